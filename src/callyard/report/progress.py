"""The progress of an executor's calls: one line at the bottom of a terminal, or a bar in a notebook; silent elsewhere.

A thread of its own draws, as a terminal may block its writers for as long as it likes (Ctrl-S), and the threads that
submit and end calls must not wait for one. They only count. The thread looks at the counts some times in a second while
calls are unfinished, and sleeps otherwise.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from ..display.notebook_html import card
from ..events.call_record import CallState
from ..futures import Future
from ..utils.environment import nested
from ..utils.locks import new_lock, under
from ..utils.threads import LazyThread, next_item
from .progress_text import Estimate, final_text, final_title, left_in_words, progress_text, unfinished
from .terminal_rows import TerminalRow, is_terminal

__all__ = ["Counts", "FutureCounts", "Progress", "ProgressView", "progress_here"]

_log = logging.getLogger("callyard")
Counts = Mapping[CallState, int]

_SOONEST, _LATEST = 0.1, 1.0  # s between two looks: soon after a change, then less often
_SLOWER = 1.5
_SHARE = 20  # looking and drawing take at most one part in so many of the thread's time, however many calls there are


class ProgressView(Protocol):
    """A place where progress is shown."""

    def show(self, counts: Counts, left: float | None) -> None:
        """Show the counts, and the time that is left (s)."""

    def end(self, counts: Counts, seconds: float) -> None:
        """Show the last counts, after a time with unfinished calls (s)."""


class TerminalView:
    """A line at the bottom of a terminal."""

    def __init__(self, row: TerminalRow, bar: str) -> None:
        self._row, self._bar = row, bar

    def show(self, counts: Counts, left: float | None) -> None:
        self._row.show(progress_text(counts, left, self._row.width, self._bar))

    def end(self, counts: Counts, seconds: float) -> None:
        self._row.remove(final_text(counts, seconds))


class NotebookView:
    """A bar below a cell of a notebook, with text for those who see no HTML."""

    def __init__(self) -> None:
        self._handle: Any = None  # of IPython, once there is something to show

    def show(self, counts: Counts, left: float | None) -> None:
        words = "" if left is None else left_in_words(left)
        self._display(card("Calls", [("", words)], counts), progress_text(counts, left, 200))

    def end(self, counts: Counts, seconds: float) -> None:
        self._display(card(final_title(counts, seconds), (), counts), final_text(counts, seconds))

    def _display(self, html: str, text: str) -> None:
        from IPython.display import display

        bundle = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class FutureCounts:
    """The number of calls in each state, from their futures."""

    def __init__(self) -> None:
        self._lock = new_lock()  # reentrant, because a finalizer may submit a call while this thread holds it
        self._open: dict[int, Future[Any]] = {}
        self._over: Counter[CallState] = Counter()

    def follow(self, future: Future[Any]) -> None:
        """Count a call."""
        under(self._lock, self._open.__setitem__, id(future), future)
        future.add_done_callback(self._done)

    def _done(self, future: Future[Any]) -> None:
        state: CallState = "finished"
        if future.cancelled():
            state = "cancelled"
        elif future.failed():
            state = "failed"
        elif future.cached:
            state = "cached"
        under(self._lock, self._count, future, state)

    def _count(self, future: Future[Any], state: CallState) -> None:
        self._over[state] += 1
        self._open.pop(id(future), None)

    def __call__(self) -> Counts:
        counts, still_open = under(self._lock, self._look)
        # Without the lock: futures of other libraries have locks of their own.
        running = sum(future.running() for future in still_open)
        counts.update({"running": running, "waiting": len(still_open) - running})
        return +counts  # without zeros

    def _look(self) -> tuple[Counter[CallState], list[Future[Any]]]:
        return self._over.copy(), list(self._open.values())


class Progress:
    """The thread that looks at the counts and draws.

    It starts with the first call. It ends with `close`, or after `end_with_calls` once all calls have ended.
    """

    def __init__(self, view: ProgressView) -> None:
        self.counts, self._view = FutureCounts(), view
        self._thread = LazyThread("callyard-progress")
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sleeps = False  # without a time limit, as all calls have ended
        self._closed = self._ending = False
        self._estimate = Estimate()

    def follow(self, future: Future[Any]) -> None:
        """Count a call from now on."""
        self.counts.follow(future)
        if not self._thread.started:
            with suppress(RuntimeError):  # no thread can be started: there is no progress then, but the call
                self._thread.start(self._run)
        elif self._sleeps:
            self._sleeps = False
            self._wake.put(None)

    def end_with_calls(self) -> None:
        """Show the last counts once all calls have ended; return without waiting."""
        self._ending = True
        self._wake.put(None)

    def close(self) -> None:
        """Show the last counts now."""
        self._closed = True
        self._wake.put(None)
        self._thread.join()

    def _run(self) -> None:
        atexit.register(self.close)  # of a program that does not end its executor
        try:
            counts = self._follow()
            self._estimate.update(monotonic(), counts)
            self._view.end(counts, self._estimate.busy)
        except Exception:
            _log.warning("callyard: the progress of calls is not shown any more", exc_info=True)
        finally:
            atexit.unregister(self.close)

    def _follow(self) -> Counts:
        """Show the counts until the end; return the last ones."""
        shown: Counts = {}
        at = pause = 0.0
        while True:
            now = monotonic()
            counts = self.counts()
            left = self._estimate.update(now, counts)
            if self._closed or (self._ending and not unfinished(counts)):
                return counts
            if counts != shown or now > at + _LATEST:
                pause, shown, at = (_SOONEST if counts != shown else pause), counts, now
                self._view.show(counts, left)
            self._sleep(counts, max(pause, _SHARE * (monotonic() - now)))
            pause = min(pause * _SLOWER, _LATEST)

    def _sleep(self, counts: Counts, pause: float) -> None:
        if unfinished(counts):
            with suppress(queue.Empty):
                next_item(self._wake, pause)
            return
        self._sleeps = True
        if self.counts() == counts and not self._closed:  # a call submitted before `_sleeps` was true is in the counts
            next_item(self._wake, None)
        self._sleeps = False


def progress_here() -> Progress | None:
    """Return the progress for this process; None if there is neither a terminal nor a notebook."""
    view = _view_here()
    return None if view is None else Progress(view)


def _view_here() -> ProgressView | None:
    if nested(os.environ):  # in a call, whose terminal is the driver's
        return None
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is not None:
        return NotebookView()
    if not is_terminal(sys.stderr):
        return None
    wide = (sys.stderr.encoding or "").lower().startswith("utf")
    return TerminalView(TerminalRow(sys.stderr), "█░" if wide else "#.")
