"""Withdrawal: calls are taken back from a worker, stopped meanwhile. Nothing here waits for the stop."""

from __future__ import annotations

import contextlib
import os
import signal

from ..system.processes import state_of
from ..transport.result_log import ResultLog
from ..utils.backoff import Backoff

_SOONEST, _LATEST = 0.001, 0.05  # s between two attempts; pauses double


class CallWithdrawal:
    """The withdrawal of calls up to `last` that the worker has not begun. The caller reads the clock."""

    def __init__(self, pid: int, result_log: ResultLog, last: int) -> None:
        self._pid, self._result_log, self._last = pid, result_log, last
        self._stopped_before = state_of(pid) == "T"  # by another process, as a debugger
        self._pauses = Backoff(_SOONEST, _LATEST, 2.0)
        self.next_attempt = 0.0

    def attempt(self, now: float) -> tuple[int, bytes] | None:
        """Return the last call begun and the results not sent; None if the worker does not stand still yet.

        The worker may be deep in the kernel, or another process may let it go on (SIGCONT): a later attempt stops it
        again.
        """
        self._signal(signal.SIGSTOP)
        found = self._read() if state_of(self._pid) == "T" else None
        if found is None:
            self.next_attempt = now + self._pauses.next_pause()
        elif not self._stopped_before:
            self._signal(signal.SIGCONT)
        return found

    def _read(self) -> tuple[int, bytes] | None:
        begun, unsent = self._result_log.withdraw(self._last), self._result_log.unsent()
        # Stopped before and after the writing of the range, the worker cannot have begun a call in between.
        stood_still = state_of(self._pid) == "T" and self._result_log.begun == begun
        return (begun, unsent) if stood_still else None

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self._pid, signum)
