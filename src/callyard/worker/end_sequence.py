"""The forced end of a call: perhaps a warning, SIGTERM, and after a grace SIGKILL. Decisions only.

The keeper of the limits of calls (the zygote of a machine, the process of a job) has one sequence for each running
call, asks for the signals that are due, and sends them.

SIGTERM may arrive just when the call begins to sleep or to wait: Python has looked for signals, and looks again at the
end of the wait. Or another thread of the call has taken it. So SIGURG follows, which ends any wait and otherwise does
nothing: without a handler it is ignored.
"""

from __future__ import annotations

from ..utils.lite_stdlib import signal

GRACE = 2.0  # s between SIGTERM and SIGKILL, if neither the call nor a scheduler has another time
_WAKE_AFTER = (0.05, 0.5)  # s after SIGTERM; the second time, because on a busy machine the first may be too early


class EndSequence:
    """The signals of one call, each of them at most once but for SIGURG. The caller reads the clock."""

    __slots__ = ("_grace", "_kill_at", "_term_at", "_wake_at", "_warn_at", "_warning", "announced")

    def __init__(
        self, grace: float | None = GRACE, warn_at: float | None = None, warning: int = signal.SIGUSR1
    ) -> None:
        """Begin without an end; `warn_at` is the time of the warning.

        `grace` (s) is 0 for no SIGTERM, and None if a scheduler sends SIGKILL.
        """
        self._grace = grace
        self._warn_at, self._warning = warn_at, warning
        self._term_at: float | None = None
        self._wake_at: list[float] = []
        self._kill_at: float | None = None
        self.announced = False

    def announce(self, now: float) -> None:
        """Let the end begin now; do nothing if it has begun."""
        if self.announced:
            return
        self.announced = True
        self._term_at = now if self._grace != 0 else None
        self._kill_at = None if self._grace is None else now + self._grace

    @property
    def next_at(self) -> float | None:
        """The time of the next signal; None if none is going to be due."""
        times = [at for at in (self._warn_at, self._term_at, *self._wake_at[:1], self._kill_at) if at is not None]
        return min(times, default=None)

    def due(self, now: float) -> list[int]:
        """Return the signals to send now, in this order. After SIGKILL there are no others."""
        signals: list[int] = []
        if self._warn_at is not None and now >= self._warn_at:
            self._warn_at = None
            signals.append(self._warning)
        if self._term_at is not None and now >= self._term_at:
            self._warn_at = self._term_at = None  # after SIGTERM a warning would be useless
            self._wake_at = [now + after for after in _WAKE_AFTER]
            signals.append(signal.SIGTERM)
        if self._wake_at and now >= self._wake_at[0]:
            self._wake_at = [at for at in self._wake_at if at > now]
            signals.append(signal.SIGURG)
        if self._kill_at is not None and now >= self._kill_at:
            self._warn_at = self._kill_at = None
            self._wake_at = []
            signals.append(signal.SIGKILL)
        return signals
