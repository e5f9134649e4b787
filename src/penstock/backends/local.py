"""This machine: calls packed at submit, run by worker processes of a node."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from ..calls.waiting import when_done
from ..errors import PenstockError, ResourceError, UnpicklableCall
from ..futures import Future
from ..node.call import Call, Pace, Plan
from ..node.node import Node
from ..node.pool import Pool
from ..node.shape import Capacity
from ..resources import Resources, amount, whole
from ..system.machine import detect
from ..wire.functions import Functions, dumps
from ..wire.memory import Segments
from ..wire.packing import Packed, Packer
from .base import Settings
from .plans import GIB, make_plan

__all__ = ["Local"]

_FORKED = "this executor belongs to the process that forked this one, and cannot be used here; make a new one"


@dataclass(frozen=True)
class Local:
    """This machine, or a part of it: a backend for `Executor`.

    Attributes:
        cores: how many may be given out; default: those that this process may use (affinity, cgroup).
        gpus: how many, or which (a list of what goes into CUDA_VISIBLE_DEVICES); default: those that are found.
        memory: GiB that may be given out; default: what this process may use.

    >>> Executor(backend=Local(cores=4, gpus=1))
    """

    cores: int | None = None
    gpus: int | Sequence[int | str] | None = None
    memory: float | None = None
    detached: bool = False
    host: None = None

    def __post_init__(self) -> None:
        if self.cores is not None:
            whole("cores", self.cores, 1)
        amount("memory", self.memory)
        _check_gpus(self.gpus)
        if self.detached or self.host is not None:
            raise PenstockError("Local runs live calls on this machine only so far; leave out detached= and host=")

    def open(self, settings: Settings) -> LocalBackend:
        return LocalBackend(self.capacity(settings.max_workers), settings)

    def capacity(self, max_workers: int | None = None) -> Capacity:
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
        return Capacity(cores, gpus, int(memory * GIB))


def _check_gpus(gpus: object) -> None:
    if gpus is None or isinstance(gpus, int):
        whole("gpus", 0 if gpus is None else gpus, 0)
    elif isinstance(gpus, str) or not isinstance(gpus, Sequence):
        raise ResourceError(f"gpus must be a number of GPUs or a list of their names, not {gpus!r}")
    elif len({*map(str, gpus)}) < len(gpus):
        raise ResourceError(f"gpus must name each GPU once, which {gpus!r} does not")


class LocalBackend:
    """The live calls of one executor on this machine."""

    def __init__(self, capacity: Capacity, settings: Settings) -> None:
        self.capacity = capacity
        segments = Segments()
        self._packer = Packer(segments)
        self._functions = Functions()
        pool = Pool(capacity, settings.max_workers or capacity.cores, settings.max_tasks_per_child)
        self._waiting: set[Future[Any]] = set()  # calls whose futures are not done
        waiting = self._waiting  # not self: an executor that nobody refers to is closed by a finalizer
        self._node = Node(pool, segments, self._packer, _pack_initializer(settings), lambda: bool(waiting))
        self._on_cancel = self._node.look_again  # one bound method for all futures
        self._order = count()
        self._paces: dict[Any, Pace] = {}
        self._plans: dict[int, tuple[Resources, Plan]] = {}

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], resources: Resources
    ) -> Future[Any]:
        if self._node.forked:
            raise RuntimeError(_FORKED)
        known = self._plans.get(id(resources))
        plan = known[1] if known is not None and known[0] is resources else self._plan(resources)
        name = getattr(fn, "__name__", None) or type(fn).__name__
        future: Future[Any] = Future(name, self._on_cancel)
        sources: list[Any] = []
        try:
            definition = self._functions.definition(fn)
            if definition is None:
                packed = self._packer.pack((fn, args, kwargs), sources)
            else:
                packed = self._packer.pack_arguments(args, kwargs, sources)
        except Exception as error:
            future.fail_with(_unpicklable(fn, args, kwargs, error))
            return future
        key = definition.id if definition is not None else (type(fn), name)
        pace = self._paces.get(key) or self._new_pace(key)
        call = Call(future, definition, packed, plan, pace, next(self._order))
        if sources:
            self._wait(call, sources)
        else:
            self._node.start(call)
        return future

    def _plan(self, resources: Resources) -> Plan:
        plan = make_plan(resources, self.capacity)
        if len(self._plans) > 1000:  # each call may bring its own
            self._plans.clear()
        self._plans[id(resources)] = resources, plan
        return plan

    def _new_pace(self, key: Any) -> Pace:
        """What is going to be known of a function that was not called before."""
        while self._functions.dead:
            self._paces.pop(self._functions.dead.popleft(), None)
        return self._paces.setdefault(key, Pace())

    # -- calls that wait for others --------------------------------------------------------------------

    def _wait(self, call: Call, sources: list[Any]) -> None:
        future = call.future
        self._waiting.add(future)
        self._node.prepare()
        future.add_done_callback(self._no_longer_waiting)

        def go() -> None:
            try:
                call.inputs = tuple(map(self._packed, sources))
            except Exception as error:
                message = f"a result that {future.name!r} waited for cannot be sent to it: {error}"
                future.fail_with(_caused(UnpicklableCall(message), error))
                return
            sources.clear()
            self._node.start(call)
            self._waiting.discard(future)  # after it is in the node's inbox: closing looks at both

        when_done(tuple(sources), future, go)

    def _packed(self, source: Any) -> Packed:
        """The result of a finished future: as it came from its worker, if nobody has opened it."""
        packed = source._packed if isinstance(source, Future) else None
        return packed if isinstance(packed, Packed) else self._packer.pack(source.result())

    def _no_longer_waiting(self, future: Future[Any]) -> None:
        if future in self._waiting:
            self._waiting.discard(future)
            self._node.look_again()

    # -- the end ---------------------------------------------------------------------------------------

    def cancel_pending(self) -> None:
        self._cancel(all_of_them=False)

    def kill(self, signum: int) -> None:
        self._cancel(all_of_them=True)
        self._node.kill(signum)

    def _cancel(self, all_of_them: bool) -> None:
        for future in tuple(self._waiting):
            future.cancel()
        self._node.cancel_waiting(all_of_them)

    def close(self, wait: bool) -> None:
        self._node.close()
        if wait:
            self._node.join()

    def describe(self) -> str:
        cores, gpus, memory = self.capacity
        return f"live on {socket.gethostname()}: {cores} cores, {len(gpus)} GPUs, {memory / GIB:.1f} GiB"


def _pack_initializer(settings: Settings) -> bytes | None:
    if settings.initializer is None and settings.init_function is None:
        return None
    try:
        return dumps((settings.initializer, settings.initargs, settings.init_function))
    except Exception as error:
        raise _caused(UnpicklableCall(f"the initializer cannot be sent to a worker: {error}"), error) from error


def _unpicklable(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> PenstockError:
    """Which part of the call cannot be pickled, in one sentence."""
    name = getattr(fn, "__name__", type(fn).__name__)
    parts = [("the function", fn), *((f"argument {i + 1}", a) for i, a in enumerate(args))]
    for what, part in (*parts, *((f"argument {key!r}", value) for key, value in kwargs.items())):
        try:
            Packer(Segments()).pack(part, [])
        except Exception as reason:
            kind = type(part).__qualname__
            return _caused(UnpicklableCall(f"{what} of {name!r}, of type {kind}, cannot be sent: {reason}"), error)
    return _caused(UnpicklableCall(f"{name!r} cannot be sent to a worker: {error}"), error)


def _caused(error: PenstockError, cause: BaseException) -> PenstockError:
    error.__cause__ = cause
    return error
