"""The progress of an executor's calls: one line at the bottom of a terminal, or a bar in a notebook; silent elsewhere.

The counts come from the events of calls. A thread of its own draws them, as a terminal may block its writers for as
long as it likes (Ctrl-S), and events should not wait for one. The thread looks at the counts some times in a second
while calls are unfinished, and sleeps otherwise.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from ..display.notebook_html import card
from ..events.call_record import CallState
from ..events.event import Ended, Event, RunEnded, Started, Submitted, Waiting
from ..utils.environment import nested
from ..utils.threads import LazyThread, next_item
from .progress_text import Estimate, final_text, final_title, left_in_words, progress_text, unfinished
from .terminal_rows import TerminalRow, is_terminal

__all__ = ["Counts", "Progress", "ProgressView", "progress_here"]

_log = logging.getLogger("callyard")
Counts = Mapping[CallState, int]

_SOONEST, _LATEST = 0.1, 1.0  # s between two looks: soon after a change, then less often
_SLOWER = 1.5


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


class Progress:
    """What has become of the calls, counted from their events, and a thread that draws the counts.

    It is a target of the recorder of events. The thread starts with the first call and ends with the run.
    """

    def __init__(self, view: ProgressView) -> None:
        self._view = view
        self._counts: Counter[CallState] = Counter()
        self._states: dict[int, CallState] = {}  # of the calls that have not ended
        self._thread = LazyThread("callyard-progress")
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sleeps = False  # without a time limit, as all calls have ended
        self._ended = False
        self._estimate = Estimate()

    def take(self, run: str, events: Sequence[Event]) -> None:
        """Count the calls of these events; at the end of the run, show the last counts before this returns."""
        for event in events:
            self._take(event)
        if not self._counts:  # no calls, no line
            return
        if not self._thread.started:
            self._thread.start(self._run)
        elif self._sleeps or self._ended:
            self._sleeps = False
            self._wake.put(None)
        if self._ended:
            self._thread.join()

    def _take(self, event: Event) -> None:
        if isinstance(event, RunEnded):
            self._ended = True
        elif isinstance(event, Submitted):
            self._states[event.call] = "waiting"
            self._counts["waiting"] += 1
        elif isinstance(event, (Waiting, Started, Ended)) and event.call in self._states:
            self._counts[self._states.pop(event.call)] -= 1
            state: CallState = event.outcome if isinstance(event, Ended) else "running"
            if isinstance(event, Waiting):
                state = "waiting"
            self._counts[state] += 1
            if not isinstance(event, Ended):
                self._states[event.call] = state

    def counts(self) -> Counts:
        """Return the number of calls in each state."""
        return +self._counts.copy()

    def _run(self) -> None:
        try:
            counts = self._follow()
            self._estimate.update(monotonic(), counts)
            self._view.end(counts, self._estimate.busy)
        except Exception:
            _log.warning("callyard: the progress of calls is not shown any more", exc_info=True)

    def _follow(self) -> Counts:
        """Show the counts until the end; return the last ones."""
        shown: Counts = {}
        at = pause = 0.0
        while True:
            now = monotonic()
            ended, counts = self._ended, self.counts()
            left = self._estimate.update(now, counts)
            if ended:
                return counts
            if counts != shown or now > at + _LATEST:
                pause, shown, at = (_SOONEST if counts != shown else pause), counts, now
                self._view.show(counts, left)
            self._sleep(counts, pause)
            pause = min(pause * _SLOWER, _LATEST)

    def _sleep(self, counts: Counts, pause: float) -> None:
        if unfinished(counts):
            with suppress(queue.Empty):
                next_item(self._wake, pause)
            return
        self._sleeps = True
        if self.counts() == counts and not self._ended:  # what came before `_sleeps` was true is in the counts
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
