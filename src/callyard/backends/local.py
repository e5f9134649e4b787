"""The backend for this machine: calls are packed at submit, and run by a pool of worker processes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, islice

from ..errors import CallyardError, ResourceError
from ..errors.suggestions import strict_init
from ..pool.call import CallPlan
from ..pool.call_shape import NodeCapacity
from ..pool.worker_placement import WorkerPlacement
from ..pool.worker_pool import WorkerPool
from ..resources import Amount, Resources, whole
from ..serialize.packer import Packer
from ..serialize.shared_memory import SegmentPool
from ..system.machine import detect
from ..usage_errors import place_in_backend
from .base import Settings
from .live import LiveBackend, pack_initializer
from .resource_mapping import GIB, make_plan

__all__ = ["Local"]


@strict_init(place_in_backend)
@dataclass(frozen=True)
class Local:
    """This machine, or a part of it: a backend for `Executor`.

    Attributes:
        cores: how many may be given out; default: those that this process may use (affinity, cgroup).
        gpus: how many, or which (a list of what goes into CUDA_VISIBLE_DEVICES); default: those that are found.
        memory: GiB that may be given out, or a text as "16GB"; default: what this process may use.

    >>> Executor(backend=Local(cores=4, gpus=1))
    """

    cores: int | None = None
    gpus: int | Sequence[int | str] | None = None
    memory: Amount = Amount()
    detached: bool = False
    host: None = None

    def __post_init__(self) -> None:
        if self.cores is not None:
            whole("cores", self.cores, 1)
        _check_gpus(self.gpus)
        if self.detached or self.host is not None:
            raise CallyardError("Local runs live calls on this machine only so far; leave out detached= and host=")

    def open(self, settings: Settings) -> LocalBackend:
        return LocalBackend(self.capacity(settings.max_workers), settings)

    def capacity(self, max_workers: int | None = None) -> NodeCapacity:
        """What may be given out. More workers than cores may be asked for where `cores` was left to us."""
        machine = detect()
        cores = self.cores if self.cores is not None else max(machine.cores, max_workers or 0)
        memory = self.memory if self.memory is not None else machine.memory
        if self.gpus is None:
            gpus = machine.gpus
        elif isinstance(self.gpus, int):
            others = (str(number) for number in count() if str(number) not in machine.gpus)
            gpus = (*machine.gpus[: self.gpus], *islice(others, max(0, self.gpus - len(machine.gpus))))
        else:
            gpus = tuple(map(str, self.gpus))
        return NodeCapacity(cores, gpus, int(memory * GIB))


def _check_gpus(gpus: object) -> None:
    if gpus is None or isinstance(gpus, int):
        whole("gpus", 0 if gpus is None else gpus, 0)
    elif isinstance(gpus, str) or not isinstance(gpus, Sequence):
        raise ResourceError(f"gpus must be a number of GPUs or a list of their names, not {gpus!r}")
    elif len({*map(str, gpus)}) < len(gpus):
        raise ResourceError(f"gpus must name each GPU once, which {gpus!r} does not")


class LocalBackend(LiveBackend):
    """The live calls of one executor on this machine."""

    def __init__(self, capacity: NodeCapacity, settings: Settings) -> None:
        self.capacity = capacity

        def make_node(segments: SegmentPool, packer: Packer, expecting: Callable[[], bool]) -> WorkerPool:
            pool = WorkerPlacement(capacity, settings.max_workers or capacity.cores, settings.max_tasks_per_child)
            return WorkerPool(pool, segments, packer, pack_initializer(settings), expecting)

        super().__init__(make_node)

    def make_plan(self, resources: Resources) -> CallPlan:
        return make_plan(resources, self.capacity)

    def describe(self) -> str:
        cores, gpus, memory = self.capacity
        return f"live on {socket.gethostname()}: {cores} cores, {len(gpus)} GPUs, {memory / GIB:.1f} GiB"
