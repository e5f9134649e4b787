"""Back-off: growing pauses between attempts, as long as nothing happens."""

from __future__ import annotations

__all__ = ["Backoff"]


class Backoff:
    """Pauses between attempts (s), growing by a factor up to a limit, and `at`, the time of the next attempt.

    The caller reads the clock, so that tests need none; all times must come from the same one.
    """

    def __init__(self, first: float, longest: float, factor: float) -> None:
        self.first, self._longest, self._factor = first, longest, factor
        self._pause = first
        self.at = 0.0

    def next_pause(self) -> float:
        """Return the pause before the next attempt, and make the following one longer."""
        pause, self._pause = self._pause, min(self._pause * self._factor, self._longest)
        return pause

    def reset(self) -> None:
        """Let the next pause be the first again."""
        self._pause = self.first

    def begin(self, at: float) -> None:
        """Start over with the shortest pause, the first attempt being due at `at`."""
        self.reset()
        self.at = at

    def sooner(self, at: float) -> None:
        """Move the next attempt forward to `at`, if it is due later."""
        self.at = min(self.at, at)

    def done(self, now: float, progress: bool = False) -> None:
        """Schedule the next attempt after one at `now`; start over with the shortest pause after `progress`."""
        self.next_pause()
        if progress:
            self.reset()
        self.at = now + self._pause
