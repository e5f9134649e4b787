"""Nodes, calls and queues as the placement of calls on nodes sees them, and the instructions of the placement."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from math import inf
from typing import NamedTuple, Protocol

from ..pool.call_queue import CallQueue
from ..pool.call_shape import NodeCapacity, NodeNeed, QueuedCall

_SHORT = 0.005  # s; calls of functions that take longer are not sent ahead


class NodeCall(QueuedCall, Protocol):
    """A call as the placement on nodes sees it."""

    @property
    def need(self) -> NodeNeed: ...


class CallGroup:
    """The calls of one need on one node: their number, and the number of their slots."""

    __slots__ = ("calls", "long", "slots")

    def __init__(self) -> None:
        self.calls = self.slots = 0
        self.long = 0  # calls not known to be short when they were sent


class NodeState:
    """A node: the resources, the part in use, and the calls that were sent there."""

    __slots__ = (
        *("block", "capacity", "cores", "in_flight", "gpus", "groups", "kind", "leaving"),
        *("memory", "name", "number", "proven", "since", "until", "withdrawing"),
    )

    def __init__(self, number: int, name: str, capacity: NodeCapacity, block: Hashable = None, kind: int = 0) -> None:
        self.number, self.name, self.capacity = number, name, capacity
        self.block = block  # only nodes of one block can have a call together
        self.kind = kind  # only calls with a need of this kind may be there
        self.until = inf  # the end of the node's time, by the clock of `NodePlacement.decide`
        self.cores, self.gpus, self.memory = capacity.cores, len(capacity.gpus), capacity.memory  # not given out
        self.groups: dict[NodeNeed, CallGroup] = {}
        self.in_flight: dict[NodeCall, bool] = {}  # True for calls known to be short when sent
        self.since: dict[NodeCall, float] = {}  # of the other ones, the time of the sending
        self.proven: set[NodeNeed] = set()  # needs of ended calls: the node has workers for them
        self.withdrawing = False  # calls that have not begun there are being taken back
        self.leaving = False  # the node gets no more calls

    def __repr__(self) -> str:
        return f"<NodeState {self.name} {len(self.in_flight)} calls>"

    @property
    def slots(self) -> int:
        return sum(group.slots for group in self.groups.values())

    @property
    def ahead(self) -> bool:
        """True if calls were sent there beyond the slots."""
        return any(group.calls > group.slots for group in self.groups.values())

    def could_hold(self, need: NodeNeed, now: float) -> bool:
        """Return True if such a call could run there alone."""
        return not self.leaving and self.lasts(need, now) and self.is_large_enough(need)

    def is_large_enough(self, need: NodeNeed) -> bool:
        """Return True for a node of the need's kind that has enough of everything."""
        shape, capacity = need.shape, self.capacity
        if need.kind != self.kind:
            return False
        return capacity.cores >= shape.cores and len(capacity.gpus) >= shape.gpus and capacity.memory >= shape.memory

    def lasts(self, need: NodeNeed, now: float) -> bool:
        """Return True if a call with a `run_time`, begun now, ends before the node is taken away."""
        return not need.time or now + need.time <= self.until

    def holds(self, need: NodeNeed, now: float) -> bool:
        """Return True if such a call can be given a slot now."""
        if need.kind != self.kind or self.leaving or self.withdrawing or not self.lasts(need, now):
            return False
        if need.exclusive:
            return self.could_hold(need, now) and not self.in_flight
        shape = need.shape
        return self.cores >= shape.cores and self.gpus >= shape.gpus and self.memory >= shape.memory

    def room_for(self, need: NodeNeed) -> int:
        """Return the number of such calls that fit beside the present ones."""
        shape = need.shape
        pairs = ((self.cores, shape.cores), (self.gpus, shape.gpus), (self.memory, shape.memory))
        return min((free // asked for free, asked in pairs if asked), default=0)

    def take(self, need: NodeNeed, sign: int = 1) -> None:
        """Give out the resources of a slot; with a sign of -1 take them back."""
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
    """Calls of one priority and need, and their nodes. A queue that is stuck looks only at nodes with changes since."""

    __slots__ = ("reserved", "share")

    def __init__(self, need: NodeNeed) -> None:
        super().__init__(need)
        self.share = 0  # calls for each node in this decision; 0: not known yet
        self.reserved: list[NodeState] = []  # nodes kept free for the head


def together(nodes: Iterable[NodeState], count: int) -> list[NodeState] | None:
    """Return the first `count` nodes of one block; None if no block has so many."""
    blocks: dict[Hashable, list[NodeState]] = {}
    for node in nodes:
        found = blocks.setdefault(node.block, [])
        found.append(node)
        if len(found) == count:
            return found
    return None


def record(node: NodeState, call: NodeCall, now: float = 0.0) -> None:
    """Note that the call is on the node from now on."""
    group = node.groups[call.need]
    short = node.in_flight[call] = not is_long(call)
    if not short:
        node.since[call] = now
    group.calls += 1
    group.long += not short


def is_long(call: NodeCall) -> bool:
    """Return True if no call should be sent behind this one."""
    return call.alone or call.expected() > _SHORT
