"""The placing of jobs on the cores, GPUs and memory of one machine: which job starts now, without processes or clocks.

Jobs of the same need wait in one queue; the heads of the queues have their turns by priority, then by age. Each
executor has a share of the machine, which its jobs never exceed together, and the jobs of all executors together never
exceed the machine. A share that is larger than the machine is its user's word that there is more than was found.

A small job may pass a large one that waits. When this has happened often enough, no job passes any more until the large
one has been placed: none at all if the machine lacks room, none of the same share if the share does.
"""

from __future__ import annotations

from heapq import heappop
from operator import attrgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

from ..pool.call_queue import CallQueue, CallQueues
from ..pool.call_shape import NodeCapacity, Queued
from ..schedulers.base import Share
from ..utils.quantities import counted

__all__ = ["JobNeed", "JobPlacement", "PlacedJob"]

_PATIENCE = 4  # times the machine's cores: so many jobs may pass a waiting one
_GIB = 1 << 30


class JobNeed(NamedTuple):
    """The need of a job: cores, GPUs and memory (bytes) out of a share of the machine."""

    cores: int
    gpus: int
    memory: int
    share: Share


class PlacedJob(Queued, Protocol):
    @property
    def need(self) -> JobNeed: ...

    gpus: tuple[str, ...]  # given to the job while it runs


J = TypeVar("J", bound=PlacedJob)


class _Used:
    """The resources given out of the machine, or of one share."""

    def __init__(self) -> None:
        self.jobs = self.cores = self.memory = 0

    def add(self, need: JobNeed, sign: int) -> None:
        self.jobs += sign
        self.cores += sign * need.cores
        self.memory += sign * need.memory


class JobPlacement(Generic[J]):
    """The running jobs of a machine, and those that could run."""

    def __init__(self, capacity: NodeCapacity) -> None:
        self.capacity = capacity
        self._queues: CallQueues[J, JobNeed, CallQueue[J, JobNeed]] = CallQueues(attrgetter("need"), CallQueue)
        self._used, self._used_gpus = _Used(), set[str]()
        self._shares: dict[str, _Used] = {}

    def in_use(self) -> dict[str, int]:
        """Return the resources given out: cores and gpus (counts), memory (bytes)."""
        return {"cores": self._used.cores, "gpus": len(self._used_gpus), "memory": self._used.memory}

    def why_never(self, need: JobNeed) -> str:
        """Return the reason why such a job could never run; empty if it could."""
        share = need.share
        for wanted, most, unit in ((need.cores, share.cores, "core"), (need.gpus, len(share.gpus), "GPU")):
            if wanted > most:
                return f"it asks for {counted(wanted, unit)}, and its executor has {most}"
        if need.memory > share.memory:
            return f"it asks for {need.memory / _GIB:.3g} GiB, and its executor has {share.memory / _GIB:.3g} GiB"
        return ""

    def add(self, job: J) -> None:
        """Let a job wait for its turn."""
        self._queues.add(job)

    def occupy(self, job: J) -> None:
        """Give a running job its resources; its GPUs are those in `job.gpus`."""
        self._used.add(job.need, 1)
        self._shares.setdefault(job.need.share.name, _Used()).add(job.need, 1)
        self._used_gpus.update(job.gpus)

    def vacate(self, job: J) -> None:
        """Take back the resources of a job that has ended."""
        share = self._shares[job.need.share.name]
        for used in (self._used, share):
            used.add(job.need, -1)
        if not share.jobs:
            del self._shares[job.need.share.name]
        self._used_gpus.difference_update(job.gpus)

    def place(self) -> list[J]:
        """Return the jobs to start now, after giving them their resources."""
        heads = self._queues.heads()
        placed: list[J] = []
        passed: list[tuple[CallQueue[J, JobNeed], str | None]] = []  # and whose room each lacks: a share's, or None
        closed: set[str] = set()  # shares of which no job may start any more
        while heads:
            rank, _, queue = heappop(heads)
            need: JobNeed = queue.need
            if need.share.name in closed:
                continue
            if self._has_room(need):
                job = queue.calls.popleft()
                job.gpus = self._free_gpus(need.share)[: need.gpus]
                self.occupy(job)
                placed.append(job)
                queue.passed = 0
                for other, where in passed:
                    other.passed += where in (None, need.share.name)
                self._queues.push(heads, rank, queue)
                continue
            lacking = None if self._share_has_room(need) else need.share.name
            passed.append((queue, lacking))
            if queue.passed >= _PATIENCE * self.capacity.cores:
                if lacking is None:
                    break
                closed.add(lacking)
        return placed

    def _has_room(self, need: JobNeed) -> bool:
        used, there, share = self._used, self.capacity, need.share
        cores, memory = max(there.cores, share.cores), max(there.memory, share.memory)
        fits = used.cores + need.cores <= cores and used.memory + need.memory <= memory
        return fits and self._share_has_room(need) and len(self._free_gpus(need.share)) >= need.gpus

    def _share_has_room(self, need: JobNeed) -> bool:
        used, share = self._shares.get(need.share.name, _Used()), need.share
        return used.cores + need.cores <= share.cores and used.memory + need.memory <= share.memory

    def _free_gpus(self, share: Share) -> tuple[str, ...]:
        return tuple(gpu for gpu in share.gpus if gpu not in self._used_gpus)
