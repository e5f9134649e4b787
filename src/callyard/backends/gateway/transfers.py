"""The progress of what takes long on the link, for people: in the state of futures, and in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from ...utils.quantities import size

__all__ = ["Transfer"]

_log = logging.getLogger("callyard")
_PAUSE = 10.0  # s between two lines in the log
_NOTABLE = 10_000_000  # bytes from which there are lines in the log


class Transfer:
    """Something large on its way.

    Args:
        words: what is done, and where: "sending" and "to me@login".
        total: its size (bytes).
        clock: returns the time (s).
    """

    def __init__(self, words: tuple[str, str], total: int, clock: Callable[[], float] = monotonic) -> None:
        self._verb, self._where = words
        self.total, self.done = total, 0
        self._clock = clock
        self._begun = self.moved = self._told = clock()
        if total >= _NOTABLE:
            _log.info("callyard: %s %s %s", self._verb, size(total), self._where)

    def came(self, count: int) -> None:
        """Take note that so many more bytes have gone, or come."""
        self.done += count
        self.moved = self._clock()
        if self.total < _NOTABLE:
            return
        if self.done >= self.total:
            seconds = max(self.moved - self._begun, 1e-3)
            _log.info("callyard: %s %s %s: done, %s/s", self._verb, size(self.total), self._where, self._rate(seconds))
        elif self.moved - self._told >= _PAUSE:
            self._told = self.moved
            _log.info("callyard: %s", self.text())

    def _rate(self, seconds: float) -> str:
        return size(int(self.done / seconds))

    def text(self) -> str:
        """Return the state in words, "" if nothing is on its way any more."""
        if self.done >= self.total:
            return ""
        done, total = size(self.done), size(self.total)
        if done.partition(" ")[2] == total.partition(" ")[2]:
            done = done.partition(" ")[0]
        return f"{self._verb} {done} of {total} {self._where}"
