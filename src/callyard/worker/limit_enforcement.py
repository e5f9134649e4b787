"""The limits of the calls that run on this node, in time and memory, and the workers that exceed them.

Memory is kept by a cgroup of the call's own where one may be made; the kernel then ends what is in it. Otherwise the
process trees of the calls are looked at ten times a second.
"""

from __future__ import annotations

from itertools import count

from ..utils.lite_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ..system.memory_control import Sampler

_SAMPLING = 0.1  # s between two looks at what the calls with a memory limit hold


class _Limit:
    __slots__ = ("deadline", "group", "memory", "reason")

    def __init__(self, deadline: float | None, reason: str, memory: int | None, group: Path | None) -> None:
        self.deadline, self.reason, self.memory, self.group = deadline, reason, memory, group


class Limits:
    """Of workers, by their process ids. Times are those of one clock that the caller reads."""

    def __init__(self, driver: int) -> None:
        self._driver = driver
        self._limits: dict[int, _Limit] = {}
        self._numbers = count(1)
        self._parent: Path | None = None  # the cgroup in which calls get their own
        self._asked = False
        self._sampler: Sampler | None = None
        self._sampled = 0.0

    def watch(self, pid: int, deadline: float | None, memory: int | None, reason: str) -> None:
        """From now on; `reason` is what the end at the deadline is to be called."""
        self.unwatch(pid)
        group = None if memory is None else self._make_group(pid, memory)
        self._limits[pid] = _Limit(deadline, reason, memory, group)

    def unwatch(self, pid: int) -> None:
        limit = self._limits.pop(pid, None)
        if limit is not None and limit.group is not None and self._parent is not None:
            from ..system import machine
            from ..system import memory_control as memory

            memory.move(self._parent / machine.LEAF, pid)
            memory.remove_group(limit.group)

    def ended(self, pid: int) -> str | None:
        """Forget a process that has ended; return "memory" if the kernel ended it because of its limit."""
        limit = self._limits.pop(pid, None)
        if limit is None or limit.group is None:
            return None
        from ..system import memory_control as memory

        killed = memory.oom_kills(limit.group)
        memory.remove_group(limit.group)
        return "memory" if killed else None

    def patience(self, now: float) -> float | None:
        """Return for how long nothing needs to be looked at, in s."""
        times = [limit.deadline for limit in self._limits.values() if limit.deadline is not None]
        if any(limit.memory is not None and limit.group is None for limit in self._limits.values()):
            times.append(self._sampled + _SAMPLING)
        return max(0.0, min(times) - now) if times else None

    def exceeded(self, now: float) -> dict[int, str]:
        """Return the processes that are to be ended, and what for. Each is told once."""
        late = {p: x.reason for p, x in self._limits.items() if x.deadline is not None and now >= x.deadline}
        for pid in (*late, *(large := self._too_large(now))):
            limit = self._limits[pid]
            limit.deadline = limit.memory = None
        return {**dict.fromkeys(large, "memory"), **late}

    def _too_large(self, now: float) -> list[int]:
        memory = {p: x.memory for p, x in self._limits.items() if x.memory is not None and x.group is None}
        if not memory or now < self._sampled + _SAMPLING:
            return []
        if self._sampler is None:
            from ..system.memory_control import Sampler  # here and above, because most nodes never need it

            self._sampler = Sampler()
        self._sampled = now
        return list(self._sampler.exceeding(memory))

    def _make_group(self, pid: int, limit: int) -> Path | None:
        """Make a cgroup for the call of this worker, where the kernel allows it."""
        from ..system import memory_control as memory

        if not self._asked:
            self._asked = True
            parent = memory.delegated(top=self._driver)
            self._parent = parent if parent is not None and memory.take_over(parent) else None
        if self._parent is None:
            return None
        try:
            group = memory.make_group(self._parent, f"call-{self._driver}-{next(self._numbers)}", limit)
            memory.move(group, pid)
        except OSError:  # sampling will do
            return None
        return group
