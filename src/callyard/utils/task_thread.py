"""A thread for what would keep others waiting: files, the user's own code, and asking now and then."""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Callable
from time import monotonic

from .lazy_thread import LazyThread

_log = logging.getLogger("callyard")
_SOONEST, _LATEST, _SLOWER = 0.01, 1.0, 1.5  # s between two rounds of asking, and how they grow

# These versions start no thread any more once the main thread has ended, though calls of it may still be waited for.
_NO_LATE_THREADS = (3, 12, 0) <= sys.version_info < (3, 12, 2)


class TaskThread:
    """Does things one after the other, and asks what can only be asked, all of it in rounds."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._questions: list[Callable[[], bool]] = []
        self._thread = LazyThread("callyard-cache")
        self._closed = False

    def prepare(self) -> None:
        """There may be something to do, perhaps at the interpreter's end."""
        if _NO_LATE_THREADS:
            self._thread.begin(self._run)

    def do(self, errand: Callable[[], object]) -> None:
        if not self._closed:  # afterwards nothing is on its way: no thread shall start while the interpreter ends
            self._queue.put(errand)
            try:
                self._thread.begin(self._run)
            except RuntimeError:
                raise
            except BaseException:  # it has interrupted the beginning
                self._thread.begin(self._run)
                raise

    def ask(self, question: Callable[[], bool]) -> None:
        """Ask until the answer is True: soon, then less and less often."""
        self.do(lambda: self._questions.append(question))

    def close(self) -> None:
        """End after what is to be done; nothing is asked any more."""
        self._closed = True
        self._queue.put(None)

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        pause, due = _SOONEST, 0.0
        while True:
            try:
                left = max(0.0, due - monotonic()) if self._questions else None
                errand = self._queue.get(timeout=left)
            except queue.Empty:
                pause, due = self._ask_all(pause)
                continue
            if errand is None:
                return
            before = len(self._questions)
            _safely(errand)
            del errand  # until the next comes it would keep the call's arguments alive
            if len(self._questions) > before:
                pause, due = _SOONEST, monotonic() + _SOONEST
            elif self._questions and monotonic() >= due:  # however many errands there are
                pause, due = self._ask_all(pause)

    def _ask_all(self, pause: float) -> tuple[float, float]:
        """One round; the pause after it, and when the next is due."""
        self._questions = [question for question in self._questions if not _safely(question)]
        return min(pause * _SLOWER, _LATEST), monotonic() + pause


def _safely(step: Callable[[], object]) -> bool:
    """What it says; a fault in one must not end the others."""
    try:
        return bool(step())
    except BaseException:  # the user's callbacks run here too, and one may exit
        _log.exception("callyard: an errand of the cache failed")
        return True
