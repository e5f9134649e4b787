"""`Local`: this machine as a backend, whose calls are packed at `submit` and run by a pool of worker processes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, islice
from math import inf
from typing import TYPE_CHECKING

from ..argument_checks import check_host, place_in_backend
from ..errors import ResourceError
from ..errors.suggestions import strict_init
from ..pool.call import CallPlan
from ..pool.call_shape import NodeCapacity
from ..pool.worker_placement import WorkerPlacement
from ..pool.worker_pool import WorkerPool
from ..resource_values import Amount, whole
from ..resources import Resources
from ..serialize.packer import Packer
from ..serialize.shared_memory import SegmentPool
from ..system.machine import Machine, detect
from ..utils.public_names import public_names
from ..worker.current_call import current
from .base import Backend, Settings
from .call_logs import CallLogs
from .live_base import LiveBackend, pack_initializer
from .resource_mapping import GIB, check_amounts, check_live_here, described, make_plan, with_nodes

if TYPE_CHECKING:
    from ..result_cache import Cache
    from .ssh import SSH

__all__ = ["Local"]


@strict_init(place_in_backend)
@dataclass(frozen=True)
class Local:
    """This machine, or a part of it: a backend for `Executor`.

    Attributes:
        cores: the number of cores for all calls together (count); default: all that this process may use, by its CPU
            affinity and its cgroup; within a call: the cores of that call.
        gpus: the number of GPUs (count), or a list of entries of CUDA_VISIBLE_DEVICES; default: all GPUs found; within
            a call: those of that call.
        memory: the memory for all calls together (GiB, or a text as "16GB"); default: all that this process may use;
            within a call with a `memory`: that.
        detached: True for calls that outlive this process and a logout: each is a job of a daemon, which gives out the
            cores, GPUs and memory of the machine to the calls of all such executors of the user. False for calls that
            end with the executor. Default: True with a `host`, else False.
        host: another computer, `SSH(...)`, of which this is said; default: this machine.

    Raises:
        ResourceError: a value makes no sense.

    Examples:
        >>> with Executor(backend=Local(cores=1, memory="2GB")) as executor:
        ...     executor.submit(sum, range(5)).result()
        10
    """

    cores: int | None = None
    gpus: int | Sequence[int | str] | None = None
    memory: Amount = Amount()
    detached: bool | None = None
    host: SSH | None = None

    def __post_init__(self) -> None:
        if self.cores is not None:
            whole("cores", self.cores, 1)
        _check_gpus(self.gpus)
        if not isinstance(self.detached, (bool, type(None))):
            raise ResourceError(f"detached must be True, False or None, not {self.detached!r}")
        check_host(self.host)

    @property
    def other_resources(self) -> Sequence[str]:
        """No resources beside the common ones."""
        return ()

    def on_host(self) -> Local:
        """Return what is opened on the other computer."""
        return replace(self, host=None, detached=self.detached is not False)

    def open(self, settings: Settings, cache: Cache | None = None) -> Backend:
        """Make the backend of an executor.

        Raises:
            CallyardError: the settings do not go together.
        """
        if self.detached:
            from .local_jobs import open_local_jobs  # here, because live calls need none of this

            return open_local_jobs(self.capacity(), settings, cache)
        return LocalBackend(self.capacity(settings.max_workers), settings)

    def resource_check(self, settings: Settings, detached: bool) -> Callable[[Resources], object]:
        """Return the check of a call's resources by what is said here alone: the machine may be another one.

        Raises:
            CallyardError: the settings do not go together.
        """
        if detached:
            from .local_jobs import job_check

            return job_check(settings, self._check_said)
        return self._check_live

    def _check_live(self, resources: Resources) -> None:
        resources = with_nodes(resources)
        check_live_here(resources)
        self._check_said(resources)

    def _check_said(self, resources: Resources) -> None:
        gpus = self.gpus if self.gpus is None or isinstance(self.gpus, int) else len(self.gpus)
        cores, count, memory = (inf if said is None else said for said in (self.cores, gpus, self.memory))
        check_amounts(resources, cores, count, memory * GIB)

    def capacity(self, max_workers: int | None = None) -> NodeCapacity:
        """Return the resources for all calls together; more workers than cores are possible if `cores` was not set."""
        machine = _what_there_is()
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

    def __dir__(self) -> list[str]:
        return public_names(super().__dir__(), [field.name for field in fields(self)])


def _what_there_is() -> Machine:
    """Return the machine as far as this process may use it: within a call, only the call's own share."""
    machine, call = detect(), current()
    if call is None:
        return machine
    memory = machine.memory if call.memory is None else min(call.memory, machine.memory)
    return Machine(call.cores, call.gpus, memory)


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

        def make_pool(segments: SegmentPool, packer: Packer, expecting: Callable[[], bool]) -> WorkerPool:
            placement = WorkerPlacement(capacity, settings.max_workers or capacity.cores, settings.max_tasks_per_child)
            return WorkerPool(placement, segments, packer, pack_initializer(settings), expecting)

        super().__init__(make_pool, settings.recorder)
        if settings.logs is not None:
            self._logs = CallLogs(settings.logs)

    def make_plan(self, resources: Resources) -> CallPlan:
        return make_plan(resources, self.capacity)

    @property
    def description(self) -> str:
        return f"live on {socket.gethostname()}: {described(self.capacity)}"
