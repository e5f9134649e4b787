"""Nodes, calls and queues as the placement of calls on nodes sees them, and the instructions that it gives."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from math import inf
from typing import NamedTuple, Protocol

from ..pool.call_queue import CallQueue
from ..pool.call_shape import NodeCapacity, NodeNeed, QueuedCall

_SHORT = 0.005  # s; calls of functions that take longer are not sent ahead


class NodeCall(QueuedCall, Protocol):
    """A call, as far as its placement on a node is concerned."""

    @property
    def need(self) -> NodeNeed: ...


class CallGroup:
    """The calls of one need on one node: how many there are, and how many slots they have been given."""

    __slots__ = ("calls", "long", "slots")

    def __init__(self) -> None:
        self.calls = self.slots = 0
        self.long = 0  # calls that were not known to be short when they were sent


class NodeState:
    """A node: what it has, what of that is in use, and the calls that were sent there."""

    __slots__ = (
        *("block", "capacity", "cores", "in_flight", "gpus", "groups", "leaving"),
        *("memory", "name", "number", "proven", "until", "withdrawing"),
    )

    def __init__(self, number: int, name: str, capacity: NodeCapacity, block: Hashable = None) -> None:
        self.number, self.name, self.capacity = number, name, capacity
        self.block = block  # only nodes of one block can have a call together
        self.until = inf  # when it is taken away, by the clock of `NodePlacement.decide`
        self.cores, self.gpus, self.memory = capacity.cores, len(capacity.gpus), capacity.memory  # not given out
        self.groups: dict[NodeNeed, CallGroup] = {}
        self.in_flight: dict[NodeCall, bool] = {}  # with whether they were known to be short when they were sent
        self.proven: set[NodeNeed] = set()  # of these, calls have ended there: it has workers for them
        self.withdrawing = False  # calls that have not begun there are being taken back
        self.leaving = False  # it gets no more calls

    def __repr__(self) -> str:
        return f"<NodeState {self.name} {len(self.in_flight)} calls>"

    @property
    def slots(self) -> int:
        return sum(group.slots for group in self.groups.values())

    @property
    def ahead(self) -> bool:
        """True if calls were sent there beyond its slots."""
        return any(group.calls > group.slots for group in self.groups.values())

    def could_hold(self, need: NodeNeed, now: float) -> bool:
        """Return whether such a call could run there if nothing else did."""
        return not self.leaving and self.lasts(need, now) and self.is_large_enough(need)

    def is_large_enough(self, need: NodeNeed) -> bool:
        shape, capacity = need.shape, self.capacity
        return capacity.cores >= shape.cores and len(capacity.gpus) >= shape.gpus and capacity.memory >= shape.memory

    def lasts(self, need: NodeNeed, now: float) -> bool:
        """Return whether a call that begins now ends before the node is taken away, if it keeps to its time."""
        return not need.time or now + need.time <= self.until

    def holds(self, need: NodeNeed, now: float) -> bool:
        """Return whether such a call can be given a slot now."""
        if self.leaving or self.withdrawing or not self.lasts(need, now):
            return False
        if need.exclusive:
            return self.could_hold(need, now) and not self.in_flight
        shape = need.shape
        return self.cores >= shape.cores and self.gpus >= shape.gpus and self.memory >= shape.memory

    def room_for(self, need: NodeNeed) -> int:
        """Return how many such calls fit beside those that it has."""
        shape = need.shape
        pairs = ((self.cores, shape.cores), (self.gpus, shape.gpus), (self.memory, shape.memory))
        return min((free // asked for free, asked in pairs if asked), default=0)

    def take(self, need: NodeNeed, sign: int = 1) -> None:
        """Give out the resources of a slot; with a sign of -1 they are free again."""
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


class NodeQueue(CallQueue[NodeCall, NodeNeed]):
    """Calls of one priority and need, and what they are given. Stuck: look only at nodes that have changed since."""

    __slots__ = ("reserved", "share")

    def __init__(self, need: NodeNeed) -> None:
        super().__init__(need)
        self.share = 0  # calls that each node gets at once in this decision; 0: not known yet
        self.reserved: list[NodeState] = []  # nodes that are kept free for the head


def together(nodes: Iterable[NodeState], count: int) -> list[NodeState] | None:
    """Return the first so many nodes that are of one block; None if there are not so many."""
    blocks: dict[Hashable, list[NodeState]] = {}
    for node in nodes:
        found = blocks.setdefault(node.block, [])
        found.append(node)
        if len(found) == count:
            return found
    return None


def record(node: NodeState, call: NodeCall) -> None:
    """Note that the call is on the node from now on."""
    group = node.groups[call.need]
    short = node.in_flight[call] = not is_long(call)
    group.calls += 1
    group.long += not short


def is_long(call: NodeCall) -> bool:
    """Return whether nothing should be sent behind this call."""
    return call.alone or call.expected() > _SHORT
