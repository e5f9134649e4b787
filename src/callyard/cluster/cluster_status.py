"""The calls of a cluster's driver at this moment, for any thread: on which node each runs, or why it waits.

As in `pool/pool_status`, nothing is locked, and nothing is noted for this while calls run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from ..futures import Future
from ..pool.call import Call
from ..pool.call_shape import NodeNeed
from ..pool.waiting_reasons import FreeResources, calls_before, missing, reason
from ..status.call_status import CallStatus
from ..status.executor_status import ExecutorStatus, RunningCall
from .node_placement import NodePlacement
from .placement_state import NodeState, together

__all__ = ["add_status", "placed", "placed_calls", "why_waits"]

Coming = Callable[[int], str]  # see `AgentStarter.nodes_to_come`


def placed(placement: NodePlacement, inbox: Iterable[Any], coming: Coming, future: Future[Any]) -> CallStatus | None:
    """Return the status of a call that runs on a node, or waits for one; None for any other."""
    for node in list(placement.nodes.values()):
        for call in cast("list[Call]", list(node.in_flight)):
            if call.future is future:
                return _running(node, call)
    waiting = _waiting(placement, inbox)
    for call in waiting:
        if call.future is future:
            before = calls_before(call, (other for other in waiting if other.need.kind == call.need.kind))
            return CallStatus("waiting", why_waits(placement, call.need, coming, before))
    return None


def placed_calls(placement: NodePlacement, inbox: Iterable[Any]) -> list[Call]:
    """Return the calls that wait for a node, or run."""
    running = {call: None for node in list(placement.nodes.values()) for call in list(node.in_flight)}
    return [*cast("dict[Call, None]", running), *_waiting(placement, inbox)]


def why_waits(placement: NodePlacement, need: NodeNeed, coming: Coming, before: int = 0) -> str:
    """Return what a call of this need waits for, in words that go on from "waits"."""
    nodes = [node for node in list(placement.nodes.values()) if not node.leaving and node.is_large_enough(need)]
    whole = f"{need.nodes} nodes" if need.nodes > 1 else "a node"
    more = coming(need.kind)
    if together(nodes, need.nodes) is None:
        return f"{reason([whole], before)}{f': {more}' if more and not before else f'; {more}' if more else ''}"
    if placement.max_workers is not None and placement.active >= placement.max_workers:
        return reason(
            missing(need.shape, FreeResources(need.shape.cores, need.shape.gpus, need.shape.memory, 0)), before
        )
    lasting = [node for node in nodes if node.lasts(need, time.monotonic())]
    if len(lasting) < need.nodes:
        lacks = [f"{whole} that is there for {need.time:.0f} s more"]
    elif need.nodes > 1 or need.exclusive:
        lacks = [f"{whole} without other calls" if need.exclusive else f"room on {whole} at once"]
    else:
        lacks = min((missing(need.shape, _free(node)) for node in lasting), key=len)
    return f"{reason(lacks, before)}{f'; {more}' if more else ''}"


def add_status(placement: NodePlacement, inbox: Iterable[Any], coming: Coming, status: ExecutorStatus) -> None:
    """Add the calls, and the resources in use."""
    nodes = list(placement.nodes.values())
    seen: set[Call] = set()
    for node in nodes:
        for call in cast("list[Call]", list(node.in_flight)):
            if call not in seen:  # a call over several nodes is on each of them
                seen.add(call)
                where, key = _running(node, call), None if call.remember is None else call.remember.key
                status.add_running(
                    RunningCall(call.order, call.future.name, where.host, where.worker, where.seconds, key)
                )
    reasons: dict[NodeNeed, str] = {}
    for call in _waiting(placement, inbox):
        if call.need not in reasons:
            reasons[call.need] = why_waits(placement, call.need, coming)
        key = None if call.remember is None else call.remember.key
        status.add_next(call.order, call.future.name, reasons[call.need], key)
    for node in nodes:
        there = node.capacity
        _add_use(status, "nodes", 1, int(bool(node.in_flight)))
        _add_use(status, "cores", there.cores, there.cores - node.cores)
        _add_use(status, "gpus", len(there.gpus), len(there.gpus) - node.gpus)
        _add_use(status, "memory", there.memory, there.memory - node.memory)


def _add_use(status: ExecutorStatus, name: str, there: int, used: int) -> None:
    status.capacity[name] = status.capacity.get(name, 0) + there
    status.used[name] = status.used.get(name, 0) + used


def _waiting(placement: NodePlacement, inbox: Iterable[Any]) -> list[Call]:
    waiting = cast("list[Call]", placement.waiting_calls())
    waiting += [event for event in tuple(inbox) if type(event) is Call]
    return [call for call in waiting if not call.future.done()]


def _running(node: NodeState, call: Call) -> CallStatus:
    since = node.since.get(call)
    seconds = None if since is None else max(0.0, time.monotonic() - since)
    more = f"and {call.need.nodes - 1} more" if call.need.nodes > 1 else ""
    return CallStatus("running", host=f"{node.name} {more}".strip(), seconds=seconds)


def _free(node: NodeState) -> FreeResources:
    return FreeResources(node.cores, node.gpus, node.memory)
