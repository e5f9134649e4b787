"""The calls of a worker pool at this moment, for any thread: where each runs, or why it waits.

Nothing is locked, and nothing is noted for this while calls run. Copies of containers are atomic, and what has changed
in between is looked at once more by whoever asks.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

from ..futures import Future
from ..status.call_status import CallStatus
from ..status.executor_status import MOST_LISTED, ExecutorStatus, RunningCall, WaitingCall
from .call import Call
from .call_shape import WorkerShape
from .dispatcher import AnyConnection, Dispatcher
from .waiting_reasons import missing, reason

__all__ = ["add_status", "placed", "placed_calls"]


_FOR_A_START = "for a worker to start"


def placed(dispatcher: Dispatcher, future: Future[Any]) -> CallStatus | None:
    """Return the status of a call that runs on a worker, or waits for one; None for any other."""
    for connection, calls in _in_flight(dispatcher):
        for place, call in enumerate(calls):
            if call.future is future:
                return _running(connection, behind=place > 0)
    for call in _waiting(dispatcher):
        if call.future is future:
            return CallStatus("waiting", dispatcher.placement.why_waits(call))
    return None


def placed_calls(dispatcher: Dispatcher) -> list[Call]:
    """Return the calls that wait for a worker, or run."""
    return [*(call for _, calls in _in_flight(dispatcher) for call in calls), *_waiting(dispatcher)]


def add_status(dispatcher: Dispatcher, status: ExecutorStatus) -> None:
    """Add the calls, and the resources in use."""
    for connection, calls in _in_flight(dispatcher):
        for place, call in enumerate(calls):
            where = _running(connection, behind=place > 0)
            key = _key_of(call)
            status.add_running(RunningCall(call.order, call.future.name, where.host, where.worker, where.seconds, key))
    placement = dispatcher.placement
    starting = Counter(worker.shape for worker in tuple(placement.workers.values()) if not worker.ready)
    waiting, free, reasons = _waiting(dispatcher), placement.free(), dict[WorkerShape, str]()
    for (name, shape), number in Counter((call.future.name, call.shape) for call in waiting).items():
        begun = min(number, starting[shape])  # all at once, as there may be a hundred thousand calls
        starting[shape] -= begun
        if shape not in reasons:
            reasons[shape] = reason(missing(shape, free), 0)
        status.add_waiting(name, _FOR_A_START, begun)
        status.add_waiting(name, reasons[shape], number - begun)
    for call in waiting[:MOST_LISTED]:
        status.next.append(WaitingCall(call.order, call.future.name, reasons[call.shape], _key_of(call)))
    there = placement.capacity
    status.capacity = {"cores": there.cores, "gpus": len(there.gpus), "memory": there.memory}
    status.used = {
        "cores": there.cores - free.cores,
        "gpus": len(there.gpus) - free.gpus,
        "memory": there.memory - free.memory,
    }


def _key_of(call: Call) -> str | None:
    return None if call.remember is None else call.remember.key


def _in_flight(dispatcher: Dispatcher) -> Iterator[tuple[AnyConnection, list[Call]]]:
    for connection in list(dispatcher.connections.values()):
        yield connection, list(connection.in_flight.values())


def _waiting(dispatcher: Dispatcher) -> list[Call]:
    waiting = cast("list[Call]", dispatcher.placement.waiting_calls())
    waiting += [event for event in tuple(dispatcher.inbox) if type(event) is Call]
    return [call for call in waiting if not call.future.done()]


def _running(connection: AnyConnection, behind: bool) -> CallStatus:
    """Return the status of a call that was sent to a worker, perhaps behind another one."""
    worker = f"worker {connection.pid}" if connection.pid is not None else "a worker"
    if behind:
        return CallStatus("running", host=socket.gethostname(), worker=f"behind another short call of {worker}")
    seconds = max(0.0, time.monotonic() - connection.sent_at)
    return CallStatus("running", host=socket.gethostname(), worker=worker, seconds=seconds)
