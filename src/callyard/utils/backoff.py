"""Back-off: growing pauses between attempts, as long as nothing happens."""

from __future__ import annotations

__all__ = ["Backoff"]


class Backoff:
    """Pauses that grow by a factor from a first to a longest one (s), and `at`, the moment of the next attempt.

    The caller reads the clock: moments are those of one clock, of its choice.
    """

    def __init__(self, first: float, longest: float, factor: float) -> None:
        self.first, self._longest, self._factor = first, longest, factor
        self._pause = first
        self.at = 0.0

    def next_pause(self) -> float:
        """Return the pause before the next attempt; the one after that is longer."""
        pause, self._pause = self._pause, min(self._pause * self._factor, self._longest)
        return pause

    def reset(self) -> None:
        """Let the next pause be the first again."""
        self._pause = self.first

    def begin(self, at: float) -> None:
        """There is something new, first to be attempted at that moment."""
        self.reset()
        self.at = at

    def sooner(self, at: float) -> None:
        """Attempt it not later than at that moment."""
        self.at = min(self.at, at)

    def done(self, now: float, news: bool = False) -> None:
        """It was attempted just now. With news the pauses begin again."""
        self.next_pause()
        if news:
            self.reset()
        self.at = now + self._pause
