"""The heartbeats of a running job: the times of a file that its process touches now and then."""

from __future__ import annotations

__all__ = ["MISSING_BEATS", "Heartbeats"]

MISSING_BEATS = 3  # before the job counts as gone


class Heartbeats:
    """The times of a file touched by a running job now and then."""

    def __init__(self, heartbeat: int | None, now: float) -> None:
        self._last, self._since = heartbeat, now

    def stillness(self, heartbeat: int | None, now: float) -> float:
        """Return the time since the last touch by the reader's clock (s), because other clocks may be wrong."""
        if heartbeat is not None and heartbeat != self._last:
            self._last, self._since = heartbeat, now
        return now - self._since
