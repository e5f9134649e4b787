"""When to do again what is done over and over: soon, then less and less often as long as nothing happens."""

from __future__ import annotations

__all__ = ["Backoff"]


class Backoff:
    """The moment when it is to be done next. Pauses grow by a factor, from a first to a longest one (s)."""

    def __init__(self, first: float, longest: float, factor: float) -> None:
        self.first, self._longest, self._factor = first, longest, factor
        self._pause = first
        self.at = 0.0

    def begin(self, at: float) -> None:
        """Something new is to be looked after, first at that moment."""
        self._pause, self.at = self.first, at

    def sooner(self, at: float) -> None:
        """Not later than that."""
        self.at = min(self.at, at)

    def done(self, now: float, news: bool = False) -> None:
        """It was done just now."""
        self._pause = self.first if news else min(self._pause * self._factor, self._longest)
        self.at = now + self._pause
