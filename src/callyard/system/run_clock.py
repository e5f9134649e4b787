"""The time in which a call could run, without the time in which the call and its limits' keeper were stopped.

`scontrol suspend`, gang scheduling and SIGSTOP stop both processes, and no program tells for how long. So the keeper of
the limits reads the clock every `LOOK` seconds while a call has a limit in time, and counts `STEP` at most between two
readings. The call itself reads the sum of the stops from memory shared by both processes (`StoppedTime`).
"""

from __future__ import annotations

import time

from ..utils.lite_stdlib import Any, Callable, struct

LOOK = 0.5  # s
STEP = 1.0  # s: a busy machine may be late for a look

_SECONDS = struct.Struct("d")


class RunClock:
    """A clock that counts at most `STEP` between two readings, and otherwise goes as the clock behind."""

    __slots__ = ("_clock", "lag", "read_at")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.read_at = clock()  # by the other clock
        self.lag = 0.0  # s that did not count so far

    def __call__(self) -> float:
        now = self._clock()
        self.lag += max(0.0, now - self.read_at - STEP)
        self.read_at = now
        return now - self.lag


class StoppedTime:
    """In shared memory: for how long the call that runs was stopped. One process writes, the call reads."""

    SIZE = 2 * _SECONDS.size

    __slots__ = ("_lag", "_offset", "_page")

    def __init__(self, page: Any, offset: int = 0) -> None:
        """`page`: the memory, all zeros at first; there the call that runs begins with the next `begin`."""
        self._page, self._offset, self._lag = page, offset, 0.0

    def begin(self, clock: RunClock) -> None:
        self._lag = clock.lag
        self.note(clock)

    def note(self, clock: RunClock) -> None:
        """Tell the call; the clock was read just now."""
        self._write(1, clock.lag - self._lag)  # first: a call reading in between then counts more time as left
        self._write(0, clock.read_at)

    def end(self) -> None:
        self._write(0, 0.0)

    def read(self, now: float) -> float:
        """Return for how many s the call was stopped; `now` is read from the monotonic clock.

        After it was stopped, the call may be here before the other process has looked.
        """
        (read_at,) = _SECONDS.unpack_from(self._page, self._offset)
        (stopped,) = _SECONDS.unpack_from(self._page, self._offset + _SECONDS.size)
        return stopped + max(0.0, now - read_at - STEP) if read_at else 0.0

    def _write(self, place: int, seconds: float) -> None:
        at = self._offset + place * _SECONDS.size
        self._page[at : at + _SECONDS.size] = _SECONDS.pack(seconds)  # at once; `pack_into` would write zeros first
