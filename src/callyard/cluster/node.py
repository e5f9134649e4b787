"""The calls, nodes and queues of calls that the placement on nodes deals with."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from math import inf
from typing import NamedTuple, Protocol

from ..pool.call_shape import NodeCapacity, NodeNeed, QueuedCall

_SHORT = 0.005  # s; calls of functions that take longer are not sent ahead


class NodeCall(QueuedCall, Protocol):
    """A call, as far as the placement is concerned."""

    @property
    def need(self) -> NodeNeed: ...


class CallGroup:
    """The calls of one need on one node: how many there are, and how many slots they have been given."""

    __slots__ = ("calls", "long", "slots")

    def __init__(self) -> None:
        self.calls = self.slots = 0
        self.long = 0  # calls that were not known to be short when they were sent


class NodeState:
    """A node as the placement sees it."""

    __slots__ = (
        *("block", "capacity", "cores", "in_flight", "gpus", "groups", "leaving"),
        *("memory", "name", "number", "proven", "until", "withdrawing"),
    )

    def __init__(self, number: int, name: str, capacity: NodeCapacity, block: Hashable = None) -> None:
        self.number, self.name, self.capacity = number, name, capacity
        self.block = block  # only nodes of one block can have a call together
        self.until = inf  # when it is taken away, by the clock of `Fleet.decide`
        self.cores, self.gpus, self.memory = capacity.cores, len(capacity.gpus), capacity.memory  # not given out
        self.groups: dict[NodeNeed, CallGroup] = {}
        self.in_flight: dict[NodeCall, bool] = {}  # with whether they were known to be short when they were sent
        self.proven: set[NodeNeed] = set()  # of these, calls have ended there: it has workers for them
        self.withdrawing = False
        self.leaving = False  # gets no more calls

    def __repr__(self) -> str:
        return f"<Member {self.name} {len(self.in_flight)} calls>"

    @property
    def slots(self) -> int:
        return sum(group.slots for group in self.groups.values())

    @property
    def ahead(self) -> bool:
        """Whether it has calls beside those that have slots."""
        return any(group.calls > group.slots for group in self.groups.values())

    def could_hold(self, need: NodeNeed, now: float) -> bool:
        """Whether it could if nothing else ran there."""
        return not self.leaving and self.lasts(need, now) and self.is_large_enough(need)

    def is_large_enough(self, need: NodeNeed) -> bool:
        shape, capacity = need.shape, self.capacity
        return capacity.cores >= shape.cores and len(capacity.gpus) >= shape.gpus and capacity.memory >= shape.memory

    def lasts(self, need: NodeNeed, now: float) -> bool:
        """Whether a call that begins now ends before the node is taken away, if it keeps to its time."""
        return not need.time or now + need.time <= self.until

    def holds(self, need: NodeNeed, now: float) -> bool:
        if self.leaving or self.withdrawing or not self.lasts(need, now):
            return False
        if need.exclusive:
            return self.could_hold(need, now) and not self.in_flight
        shape = need.shape
        return self.cores >= shape.cores and self.gpus >= shape.gpus and self.memory >= shape.memory

    def room_for(self, need: NodeNeed) -> int:
        """How many such calls fit beside what it has."""
        shape = need.shape
        pairs = ((self.cores, shape.cores), (self.gpus, shape.gpus), (self.memory, shape.memory))
        return min((free // asked for free, asked in pairs if asked), default=0)

    def take(self, need: NodeNeed, sign: int = 1) -> None:
        self.cores -= sign * (self.capacity.cores if need.exclusive else need.shape.cores)
        self.gpus -= sign * need.shape.gpus
        self.memory -= sign * need.shape.memory


class SendToNode(NamedTuple):
    """Send these calls to this node."""

    node: NodeState
    calls: list[NodeCall]


class StartOnNodes(NamedTuple):
    """Start this call on these nodes at once."""

    nodes: list[NodeState]
    call: NodeCall


class CallQueue:
    """Calls of one priority and need, in the order in which they came."""

    __slots__ = ("calls", "need", "passed", "reserved", "share", "stuck")

    def __init__(self, need: NodeNeed) -> None:
        self.need = need
        self.calls: deque[NodeCall] = deque()
        self.passed = 0  # how often others were sent while the head waited
        self.share = 0  # of each node in what waits, for this decision; 0: not known yet
        self.stuck = False  # no node had a place for it; only nodes that have changed since need be looked at
        self.reserved: list[NodeState] = []  # are kept free for its head

    def head(self) -> NodeCall | None:
        while self.calls and self.calls[0].abandoned():
            self.calls.popleft()
        return self.calls[0] if self.calls else None


def together(nodes: Iterable[NodeState], count: int) -> list[NodeState] | None:
    """The first so many that are of one block."""
    blocks: dict[Hashable, list[NodeState]] = {}
    for node in nodes:
        found = blocks.setdefault(node.block, [])
        found.append(node)
        if len(found) == count:
            return found
    return None


def record(node: NodeState, call: NodeCall) -> None:
    """The call is on the node from now on."""
    group = node.groups[call.need]
    short = node.in_flight[call] = not is_long(call)
    group.calls += 1
    group.long += not short


def is_long(call: NodeCall) -> bool:
    """Whether nothing should be sent behind this call."""
    return call.alone or call.expected() > _SHORT
