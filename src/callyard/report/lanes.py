"""The lanes of a timeline: for each node its workers, one below the other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from ..events.call_record import RunRecord

__all__ = ["Lane", "lanes_of"]


@dataclass
class Lane:
    """A row of a timeline: a worker, or several of one node that lived one after another.

    Attributes:
        host: the node.
        workers: their names.
        calls: the numbers of their calls, in the order of the beginnings.
    """

    host: str
    workers: list[str] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)


def lanes_of(run: RunRecord, now: float) -> list[Lane]:
    """Return the lanes, by node: as few as there were workers at once, since a job has a worker of its own."""
    calls = sorted(
        (call for call in run.calls.values() if call.started is not None), key=lambda call: call.started or 0.0
    )
    spans: dict[tuple[str, str], list[float]] = {}
    ran: dict[tuple[str, str], list[int]] = {}
    for call in calls:
        worker = call.host, call.worker
        begin, end = call.started or 0.0, now if call.ended is None else call.ended
        span = spans.setdefault(worker, [begin, end])
        span[1] = max(span[1], end)
        ran.setdefault(worker, []).append(call.number)
    lanes = _packed(spans)
    for lane in lanes:
        lane.calls = [number for worker in lane.workers for number in ran[lane.host, worker]]
    return sorted(lanes, key=lambda lane: (_natural(lane.host), _natural(lane.workers[0])))


def _packed(spans: Mapping[tuple[str, str], list[float]]) -> list[Lane]:
    """Return lanes such that the workers of a lane do not overlap; each takes the lane that is free for the longest."""
    lanes: list[Lane] = []
    ends: dict[str, list[tuple[float, int]]] = {}
    for (host, worker), (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        free = ends.setdefault(host, [])
        if free and free[0][0] <= begin:
            _, place = heappop(free)
        else:
            place = len(lanes)
            lanes.append(Lane(host))
        lanes[place].workers.append(worker)
        heappush(free, (end, place))
    return lanes


def _natural(name: str) -> list[int | str]:
    """Return a key by which c2 comes before c10: text and numbers in turns."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", name))]
