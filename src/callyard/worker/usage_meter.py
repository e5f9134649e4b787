"""The measuring of what a call uses, in the process that makes the call."""

from __future__ import annotations

import time

from ..events.usage import Usage
from ..system.memory_peak import clear_peak, resident_peak, waited_children
from ..utils.lite_stdlib import TYPE_CHECKING, Any, Callable
from .current_call import own_gpus, running

if TYPE_CHECKING:
    from ..transport.result_log import ResultLog

__all__ = ["UsageMeter", "measuring"]


def _nothing() -> int:
    return 0


class UsageMeter:
    """The resources used from now to `stop`; `Usage` tells how precisely. Measuring costs some 15 us."""

    __slots__ = ("_bytes_in", "_counted", "_lowest_peak", "_started", "_used", "before")

    def __init__(self, bytes_in: int | None = None, counted: Callable[[], int] = _nothing) -> None:
        """Begin. `counted` returns the most memory of all the call's processes together, as others have counted it."""
        self._bytes_in, self._counted = bytes_in, counted
        self._used: tuple[Any, ...] | None = None
        # Where the peak cannot be set back, only a higher one is certainly the call's.
        self._lowest_peak = 0 if clear_peak() else (resident_peak() or 0)
        self.before = (time.process_time(), *waited_children())  # of this process, and of its children (s, s, bytes)
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Note the end of the function; only the first time counts."""
        if self._used is not None:
            return
        wall = time.perf_counter() - self._started
        cpu_before, children_before, largest_before = self.before
        children, largest = waited_children()
        cpu = time.process_time() - cpu_before + children - children_before
        own = resident_peak() or 0
        waited = children > children_before or largest > largest_before
        peak = max(own if own > self._lowest_peak else 0, largest if waited else 0, self._counted())
        self._used = (wall, cpu, peak or None, self._bytes_in, own_gpus())

    def usage(self, bytes_out: int | None = None) -> Usage:
        """Return what was used until `stop`."""
        return Usage(*self.fields(bytes_out))

    def fields(self, bytes_out: int | None = None) -> tuple[Any, ...]:
        """Return the same as a tuple, which is pickled in a fraction of the time."""
        self.stop()
        assert self._used is not None
        *used, gpus = self._used
        return *used, bytes_out, gpus


def measuring(bytes_in: int, result_log: ResultLog) -> UsageMeter:
    """Begin to measure a worker's call; the start is in the result log, in case that the worker dies."""

    def counted() -> int:
        if "memory" not in running.options:
            return 0
        from ..system.memory_control import own_group_peak  # here, because few calls have a limit

        return max(result_log.counted_memory, own_group_peak())

    meter = UsageMeter(bytes_in, counted)
    cpu, children, largest = meter.before
    result_log.measure_from(time.monotonic(), cpu + children, largest)
    return meter
