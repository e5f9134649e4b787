"""The end of the call of a rank whose launcher passes no signals on: another thread of the same process keeps it.

Launchers of ranks do as they like at SIGTERM: one kills its ranks at once, another after a second, and between nodes
only some signals travel. So each rank looks at the clock itself, is told of other ends by its caller, and sends the
warning, SIGTERM and SIGKILL to itself. A rank in the middle of compiled code that keeps other threads from running is
ended by others, later.
"""

from __future__ import annotations

import os
import threading
import time

from ..utils.lite_stdlib import Any, Callable, signal, suppress
from .current_call import GRACE, WARN_BEFORE, WARN_SIGNAL
from .end_sequence import EndSequence

__all__ = ["TERM", "WARNING", "RankEnd", "keep_in_thread"]

WARNING, TERM = "warning", "term"  # the words with which a rank is told


class RankEnd:
    """The signals of the end of this process's call. All times are of the monotonic clock (s)."""

    def __init__(self, options: dict[str, Any], deadline: float | None, until: float | None, grace: float) -> None:
        """Begin without an end.

        Args:
            options: the options of the call.
            deadline: the end of the `run_time`; None for no limit.
            until: the end of the `run_time` or of the job, whichever comes first.
            grace: the time between SIGTERM and SIGKILL (s), unless the call has its own.
        """
        before, warning = options.get(WARN_BEFORE), options.get(WARN_SIGNAL, signal.SIGUSR1)
        warn_at = None if before is None or until is None else until - before
        if warn_at is not None and warn_at <= time.monotonic():  # the call sees the coming end from the time
            warn_at = None
        self._deadline, self._warning, self._warns = deadline, warning, before is not None
        self._end = EndSequence(options.get(GRACE, grace), warn_at, warning)

    def hear(self, word: str) -> None:
        """Take in the word of the caller; one that was heard before does nothing."""
        if word == TERM:
            self._end.announce(time.monotonic())
        elif word == WARNING and not self._end.announced:
            self._warn()

    def patience(self) -> float | None:
        """Return the seconds for which nothing is due; None for any time."""
        times = [self._end.next_at, None if self._end.announced else self._deadline]
        known = [at for at in times if at is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def send_due(self) -> None:
        """Send the signals that are due."""
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            self._end.announce(now)
        for signum in self._end.due(now):
            if signum == self._warning:
                self._warn()
            else:
                _send(signum)

    def _warn(self) -> None:
        """Send the warning, unless it was sent: the clock and the caller may both give the reason."""
        if self._warns:
            self._warns = False
            _send(self._warning)


def _send(signum: int) -> None:
    """Send a signal to the main thread, which runs the function: only there it ends a wait."""
    if signum == signal.SIGKILL:
        os.kill(os.getpid(), signum)
    with suppress(ProcessLookupError):
        signal.pthread_kill(threading.main_thread().ident or 0, signum)


def keep_in_thread(end: RankEnd, read: Callable[[], str], every: float) -> None:
    """Keep the end of this process's call in a thread, which reads the word of the caller `every` so many seconds."""

    def keep() -> None:
        while True:
            patience = end.patience()
            time.sleep(every if patience is None else min(every, patience))
            with suppress(OSError):  # a file server that stumbles, or a call that has used up all descriptors
                end.hear(read())
            end.send_due()

    threading.Thread(target=keep, name="callyard-end", daemon=True).start()
