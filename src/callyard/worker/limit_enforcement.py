"""Limits in time and memory: the limits of the calls on this node, and the workers beyond their limits.

A call's memory is limited by a cgroup of its own where the kernel allows one; the kernel then ends the processes.
Otherwise the process trees of the calls are sampled ten times a second.
"""

from __future__ import annotations

from itertools import count

from ..utils.lite_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ..system.memory_control import Sampler

_SAMPLING = 0.1  # s between two samples of calls with a memory limit


class _Limit:
    __slots__ = ("deadline", "group", "memory", "reason")

    def __init__(self, deadline: float | None, reason: str, memory: int | None, group: Path | None) -> None:
        self.deadline, self.reason, self.memory, self.group = deadline, reason, memory, group


class Limits:
    """The limits of workers, by their process ids. All times are of one clock, which the caller reads."""

    def __init__(self, driver: int) -> None:
        self._driver = driver
        self._limits: dict[int, _Limit] = {}
        self._numbers = count(1)
        self._parent: Path | None = None  # the cgroup around those of the calls
        self._asked = False
        self._sampler: Sampler | None = None
        self._sampled = 0.0
        self._counted: dict[int, int] = {}  # bytes, the most so far; by process
        self._told: dict[int, int] = {}  # the part of it that was asked for

    def watch(self, pid: int, deadline: float | None, memory: int | None, reason: str) -> None:
        """Keep limits from now on; `reason` is the word for an end at the deadline."""
        self.unwatch(pid)  # the limits of the call before
        self._forget_counts(pid)
        group = None if memory is None else self._make_group(pid, memory)
        self._limits[pid] = _Limit(deadline, reason, memory, group)

    def unwatch(self, pid: int) -> None:
        limit = self._limits.pop(pid, None)
        if limit is not None and limit.group is not None and self._parent is not None:
            from ..system import machine
            from ..system import memory_control as memory

            # Out of the group first: the kernel does not remove a group with processes.
            memory.move(self._parent / machine.LEAF, pid)
            memory.remove_group(limit.group)

    def ended(self, pid: int) -> str | None:
        """Forget an ended process; return "memory" if the kernel ended it because of the limit."""
        limit = self._limits.pop(pid, None)
        if limit is None or limit.group is None:
            return None
        from ..system import memory_control as memory

        self._counted[pid] = max(self._counted.get(pid, 0), memory.group_peak(limit.group))
        killed = memory.oom_kills(limit.group)
        memory.remove_group(limit.group)
        return "memory" if killed else None

    def counted(self) -> dict[int, int]:
        """Return the most memory (bytes) of all processes of each call together, where that has grown since last time.

        Of a call with a cgroup this is known only once it has ended with its process.
        """
        grown = {pid: most for pid, most in self._counted.items() if most > self._told.get(pid, 0)}
        self._told.update(grown)
        for pid in self._counted.keys() - self._limits.keys():
            self._forget_counts(pid)
        return grown

    def _forget_counts(self, pid: int) -> None:
        self._counted.pop(pid, None)
        self._told.pop(pid, None)

    def patience(self, now: float) -> float | None:
        """Return the seconds for which nothing needs a look."""
        times = [limit.deadline for limit in self._limits.values() if limit.deadline is not None]
        if any(limit.memory is not None and limit.group is None for limit in self._limits.values()):
            times.append(self._sampled + _SAMPLING)
        return max(0.0, min(times) - now) if times else None

    def exceeded(self, now: float) -> dict[int, str]:
        """Return the processes to end, each once, with the reason."""
        late = {p: x.reason for p, x in self._limits.items() if x.deadline is not None and now >= x.deadline}
        for pid in (*late, *(large := self._too_large(now))):
            limit = self._limits[pid]
            limit.deadline = limit.memory = None  # reported once
        return {**dict.fromkeys(large, "memory"), **late}

    def _too_large(self, now: float) -> list[int]:
        memory = {p: x.memory for p, x in self._limits.items() if x.memory is not None and x.group is None}
        if not memory or now < self._sampled + _SAMPLING:
            return []
        if self._sampler is None:
            from ..system.memory_control import Sampler  # here and above, because most nodes never need these

            self._sampler = Sampler()
        self._sampled = now
        exceeding = self._sampler.exceeding(memory)
        for pid, held in {**self._sampler.sums, **exceeding}.items():
            self._counted[pid] = max(self._counted.get(pid, 0), held)
        return list(exceeding)

    def _make_group(self, pid: int, limit: int) -> Path | None:
        """Make a cgroup for the call of this worker; return None where the kernel refuses."""
        from ..system import memory_control as memory

        if not self._asked:
            self._asked = True
            parent = memory.delegated(top=self._driver)
            self._parent = parent if parent is not None and memory.take_over(parent) else None
        if self._parent is None:
            return None
        try:
            group = memory.make_group(self._parent, f"{memory.CALL_GROUP}{self._driver}-{next(self._numbers)}", limit)
            memory.move(group, pid)
        except OSError:  # sampling will do
            return None
        return group
