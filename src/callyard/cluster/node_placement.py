"""The placement of calls on nodes: decisions on which call goes to which node, and when, without sockets or clocks.

Events go in (`join`, `add`, `finished`, ...), and `decide()` returns the calls to send, and their nodes. On its node
the worker pool decides the rest by the same rules (`pool/worker_placement.py`); here no node is given more than it has.
A *slot* on a node is the cores, GPUs and memory of one call, from the sending of the call to the arrival of its result.
Calls that are known to be short are also sent ahead, beyond the slots, so that a node has work while results travel.

A decision looks at changes since the last one, not at each node: there may be a thousand nodes. Nodes may be of several
*kinds*. A call is for one of them, and has nothing to do with the nodes and the calls of the others, except for
`max_workers`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from heapq import heappop
from math import inf
from operator import attrgetter

from ..pool.call_queue import CallQueues
from ..pool.call_shape import NodeCapacity, NodeNeed
from .placement_state import (
    CallGroup,
    NodeCall,
    NodeQueue,
    NodeState,
    SendToNode,
    StartOnNodes,
    is_long,
    record,
    together,
)
from .reserved_nodes import ReservedNodes

_AHEAD = 0.005  # s of work that may wait at a slot besides the running call
_MOST_AHEAD = 512  # calls that may wait at a slot
_MOST_AT_ONCE = 5000  # calls in one decision, so that the first are under way before all have been decided on
_PATIENCE = 4  # times the cores of all nodes of a kind: so many calls may pass a waiting one before nodes are reserved


class NodePlacement:
    """The nodes of an executor, and the waiting calls."""

    def __init__(self, max_workers: int | None = None) -> None:
        self.max_workers = max_workers
        self.nodes: dict[int, NodeState] = {}
        self.ahead: dict[NodeState, None] = {}  # nodes with more calls than slots
        self._queues: CallQueues[NodeCall, NodeNeed, NodeQueue] = CallQueues(attrgetter("need"), NodeQueue)
        # By kind: nodes with free cores, the last to be given a call at the end; nodes with more room than at the last
        # decision; the cores of all nodes; the calls with slots.
        self._room: defaultdict[int, dict[NodeState, None]] = defaultdict(dict)
        self._changed: defaultdict[int, dict[NodeState, None]] = defaultdict(dict)
        self._cores = Counter[int]()
        self._active_of = Counter[int]()
        self._can_top_up: dict[NodeNeed, dict[NodeState, None]] = {}  # nodes where calls of that need have ended
        self._reserved = ReservedNodes()
        self._slots: dict[NodeNeed, int] = {}  # slots in use, on all nodes
        self.undecided = False  # `decide` has returned only the first part
        self._active = 0  # calls with slots, of all kinds
        self._numbers = 0
        self._now = 0.0  # the time of the last decision
        self.idled: set[int] = set()  # kinds: the last call of a node has ended since the kind was removed

    # -- events ----------------------------------------------------------------------------------------

    def join(self, name: str, capacity: NodeCapacity, block: Hashable = None, kind: int = 0) -> NodeState:
        """Add a new node."""
        self._numbers += 1
        node = self.nodes[self._numbers] = NodeState(self._numbers, name, capacity, block, kind)
        self._cores[kind] += capacity.cores
        self._may_have_room(node)
        return node

    def leave(self, node: NodeState) -> list[NodeCall]:
        """Remove a lost node; return the calls that were there."""
        del self.nodes[node.number]
        self._cores[node.kind] -= node.capacity.cores
        calls = list(node.in_flight)
        self.finished(node, calls)
        for call in calls:
            if call.need.by_scheduler:
                self.finished_everywhere(call)
        for known in (self._room[node.kind], self._changed[node.kind], self.ahead, *self._can_top_up.values()):
            known.pop(node, None)
        if (queue := self._reserved.queue_of(node)) is not None:
            self._release_reserved(queue)
        return calls

    def finished_everywhere(self, call: NodeCall) -> None:
        """Note that a call over several nodes has ended, on all those where it still is."""
        for node in list(self.nodes.values()):
            if call in node.in_flight:
                self.finished(node, [call])

    def add(self, call: NodeCall) -> None:
        self._queues.add(call)

    def lasts_until(self, node: NodeState, until: float) -> None:
        """Note the time at which the node is going to be taken away."""
        node.until = until
        self._may_have_room(node)

    def put_back(self, calls: Iterable[NodeCall]) -> None:
        """Put calls that were sent and not run to the front again; the last given becomes the first."""
        self._queues.put_back(calls)

    def finished(self, node: NodeState, calls: Iterable[NodeCall]) -> None:
        """Note that these calls have left the node: by their ends, or withdrawn."""
        for call in calls:
            short = node.in_flight.pop(call)
            if not short:
                node.since.pop(call, None)
            need = call.need
            group = node.groups[need]
            group.calls -= 1
            group.long -= not short
            # With calls sent ahead, the next of them has this slot, and nothing is free.
            if group.slots > group.calls:
                self._free_slot(node, need, group)
                # A call over several nodes counts as one active call until the last node is free.
                if need.nodes > 1 and any(call in m.in_flight for m in self.nodes.values()):
                    self._count(need, 1)
            node.proven.add(need)
            if group.calls:
                self._can_top_up.setdefault(need, {})[node] = None
        if not node.in_flight:
            self.idled.add(node.kind)
        self._may_have_room(node)

    def withdraw(self, node: NodeState) -> None:
        """Give the node no calls until calls not begun there have been taken back."""
        node.withdrawing = True
        self._room[node.kind].pop(node, None)  # otherwise each decision would have to pass it over
        self._changed[node.kind].pop(node, None)

    def withdrawn(self, node: NodeState) -> None:
        """Let the node have calls again, now that calls not begun there have been taken back."""
        node.withdrawing = False
        for need in node.groups:
            self._can_top_up.setdefault(need, {})[node] = None
        self._may_have_room(node)

    def drain(self) -> list[NodeCall]:
        """Empty the queues; return the calls that waited."""
        drained = self._queues.waiting_calls()
        self._queues.clear()
        self._reserved.clear()
        self.undecided = False
        return drained

    def waiting_calls(self) -> list[NodeCall]:
        """Return the calls that wait at this moment. Any thread may ask."""
        return self._queues.waiting_calls()

    def drop(self, need: NodeNeed) -> list[NodeCall]:
        """Drop the waiting calls of this need, and return them."""
        queues = self._queues.take_out(need)
        for queue in queues:
            self._release_reserved(queue)
        return [call for queue in queues for call in queue.calls]

    # -- questions -------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        return self._queues.waiting

    @property
    def busy(self) -> bool:
        return self._active > 0

    @property
    def active(self) -> int:
        """The number of calls that run at once, those sent ahead not counted."""
        return self._active

    def room(self, kind: int) -> int | None:
        """Return the number of further calls of a kind that may run at once; None for any number.

        Calls of other kinds do not count: otherwise they could keep its nodes from being asked for.
        """
        return None if self.max_workers is None else max(0, self.max_workers - self._active_of[kind])

    def waits(self, kind: int) -> bool:
        """Return True if a call of this kind waits."""
        return any(queue.head() is not None for queue in self._of(kind))

    def busy_nodes(self, kind: int) -> int:
        """Return the number of nodes of this kind with calls."""
        return sum(1 for node in self.nodes.values() if node.kind == kind and node.in_flight)

    def _of(self, kind: int) -> Iterable[NodeQueue]:
        return (queue for queue in self._queues if queue.need.kind == kind)

    def backlog(self, kind: int) -> list[tuple[NodeNeed, int, float]]:
        """Return the needs of waiting calls, with the number of calls and the likely duration of the first (s).

        Calls that fit beside others on nodes in use are not counted, because the next decision sends them there.
        """
        heads = ((queue, queue.head()) for queue in self._of(kind))
        found = ((queue, head.expected()) for queue, head in heads if head is not None)
        return [(queue.need, len(queue.calls) - self._room_beside(queue), seconds) for queue, seconds in found]

    def unsettled(self, kind: int) -> bool:
        """Return True if the next decision sends calls to nodes in use."""
        return self._may_begin() and any(self._room_beside(queue) for queue in self._of(kind))

    def _room_beside(self, queue: NodeQueue) -> int:
        """Return the number of the queue's calls that fit on nodes in use; 0 if the last decision has found no room."""
        need = queue.need
        if queue.stuck or need.nodes > 1 or need.exclusive:
            return 0
        able = (node for node in self._room[need.kind] if node.in_flight and node.holds(need, self._now))
        return min(len(queue.calls), sum(node.room_for(need) for node in able))

    def unplaceable(self) -> list[NodeNeed]:
        """Return the needs of waiting calls that none of the nodes could ever hold."""
        return [queue.need for queue in self._queues if queue.head() is not None and not self._enough(queue.need)]

    def _enough(self, need: NodeNeed) -> bool:
        able = (node for node in self.nodes.values() if node.could_hold(need, self._now))
        return together(able, need.nodes) is not None

    # -- decisions -------------------------------------------------------------------------------------

    def decide(self, now: float = 0.0) -> list[SendToNode | StartOnNodes]:
        """Return the instructions for now, or the first part of them if `undecided` is set."""
        self._now = now
        todo: list[SendToNode | StartOnNodes] = []
        if not self.undecided:
            for queue in self._queues:
                queue.share = 0
        heads = self._queues.heads(self._release_reserved)
        passed: list[NodeQueue] = []  # passed by each call that is sent from here on
        decided, self.undecided = 0, False
        while heads:
            if decided >= _MOST_AT_ONCE:
                self.undecided = True
                return todo
            priority, _, queue = heappop(heads)
            until = heads[0][1] if heads and heads[0][0] == priority else inf
            if placed := self._place(queue, until, todo):
                decided += placed
                for other in passed:
                    if other.need.kind == queue.need.kind:
                        other.passed += placed
                if not self._queues.push(heads, priority, queue):
                    self._release_reserved(queue)
            else:
                queue.stuck = self._may_begin()
                passed.append(queue)
                self._reserve(queue)
        self._changed.clear()
        return todo

    def _may_begin(self) -> bool:
        """Return True if one call more may run at once."""
        return self.max_workers is None or self._active < self.max_workers

    def _place(self, queue: NodeQueue, until: float, todo: list[SendToNode | StartOnNodes]) -> int:
        """Send the head of the queue, and the calls behind it from before `until`; return the number of calls sent."""
        if queue.need.by_scheduler:
            return self._start_on_nodes(queue, todo)
        # First an idle slot; a call is sent ahead only where no node has one.
        if self._may_begin():
            node = self._find(queue)
            if node is not None:
                return self._fill(node, queue, until, todo)
        return 0 if is_long(queue.calls[0]) else self._send_ahead(queue, todo)

    def _find(self, queue: NodeQueue) -> NodeState | None:
        """Return a node with a slot for the head."""
        for node in self._candidates(queue):
            if node.holds(queue.need, self._now) and self._reserved.is_open(node, queue):
                return node
        return None

    def _candidates(self, queue: NodeQueue) -> dict[NodeState, None]:
        # The last decision found no room for a stuck queue, so only nodes with changes can have some.
        return (self._changed if queue.stuck else self._room)[queue.need.kind]

    def _fill(self, node: NodeState, queue: NodeQueue, until: float, todo: list[SendToNode | StartOnNodes]) -> int:
        """Send calls to slots on the node: a share of the queue, so that many calls share one message."""
        queue.share = queue.share or max(1, len(queue.calls) // len(self._candidates(queue)))
        most = queue.share if self.max_workers is None else min(queue.share, self.max_workers - self._active)
        calls: list[NodeCall] = []
        for _ in range(most):
            call = queue.calls.popleft()
            if call.begin():  # False for a call that has just been cancelled
                self._take_slot(node, queue.need)
                calls.append(call)
                record(node, call, self._now)
            if not queue.calls or queue.calls[0].order > until or not node.holds(queue.need, self._now):
                break
        self._rotate(node)
        return self._sent(node, queue, calls, todo)

    def _start_on_nodes(self, queue: NodeQueue, todo: list[SendToNode | StartOnNodes]) -> int:
        """Let the scheduler start the head of the queue, if enough nodes have a slot for it."""
        if not self._may_begin():
            return 0
        count, now = queue.need.nodes, self._now
        able = (
            node
            for node in self._room[queue.need.kind]
            if node.holds(queue.need, now) and self._reserved.is_open(node, queue)
        )
        found = together(able, count)
        if found is None:
            return 0
        nodes = sorted(found, key=lambda node: node.number)
        call = queue.calls.popleft()
        if call.begin():
            for node in nodes:
                self._take_slot(node, queue.need)
                self._rotate(node)
                record(node, call, self._now)
            self._count(queue.need, 1 - count)  # the nodes have one call together
            queue.passed = 0
            self._release_reserved(queue)
            todo.append(StartOnNodes(nodes, call))
        return 1

    def _reserve(self, queue: NodeQueue) -> None:
        """Keep nodes free for the queue's head, once that has been passed too often."""
        if not queue.reserved and queue.passed >= _PATIENCE * self._cores[queue.need.kind]:
            able = (node for node in self.nodes.values() if node.could_hold(queue.need, self._now))
            self._reserved.reserve(queue, able)

    def _release_reserved(self, queue: NodeQueue) -> None:
        """Let all queues use the nodes that were kept free for the head of this one."""
        if self._reserved.release(queue):
            for other in self._queues:
                other.stuck = False

    def _send_ahead(self, queue: NodeQueue, todo: list[SendToNode | StartOnNodes]) -> int:
        """Send short calls beyond the slots of a node that has such calls already."""
        nodes = self._can_top_up.get(queue.need, {})
        while nodes:
            node = next(iter(nodes))
            del nodes[node]
            room = self._room_ahead(node, queue)
            if room > 0 and self._reserved.is_open(node, queue):
                calls: list[NodeCall] = []
                while len(calls) < room and queue.calls and not is_long(queue.calls[0]):
                    call = queue.calls.popleft()
                    if call.begin():
                        calls.append(call)
                        record(node, call, self._now)
                return self._sent(node, queue, calls, todo)
        return 0

    def _room_ahead(self, node: NodeState, queue: NodeQueue) -> int:
        """Return the number of calls that may be sent to the node beyond the slots."""
        group = node.groups.get(queue.need)
        if group is None or node.withdrawing or node.leaving:
            return 0
        each = min(_MOST_AHEAD, 1 + int(_AHEAD / max(queue.calls[0].expected(), 1e-6)))
        # Not all to the first node: each slot gets at most its share of the queue.
        each = min(each, 1 + len(queue.calls) // self._slots[queue.need])
        most, calls = (group.slots - group.long) * each, group.calls - group.long
        # Topped up when half has been done, so that many calls share one message.
        return most - calls if 2 * calls <= most else 0

    def _sent(
        self, node: NodeState, queue: NodeQueue, calls: list[NodeCall], todo: list[SendToNode | StartOnNodes]
    ) -> int:
        """Add the instruction to send these calls; return their number, or 1 if all had been cancelled."""
        if queue.need in node.proven:  # perhaps the node can take more calls of this need
            self._can_top_up.setdefault(queue.need, {})[node] = None
        if not calls:
            return 1
        queue.passed = 0
        self._release_reserved(queue)
        group = node.groups[queue.need]
        if group.calls > group.slots:
            self.ahead[node] = None
        todo.append(SendToNode(node, calls))
        return len(calls)

    # -- accounts --------------------------------------------------------------------------------------

    def _count(self, need: NodeNeed, calls: int) -> None:
        """Add to the number of calls with slots."""
        self._active += calls
        self._active_of[need.kind] += calls

    def _take_slot(self, node: NodeState, need: NodeNeed) -> None:
        group = node.groups.setdefault(need, CallGroup())
        group.slots += 1
        self._slots[need] = self._slots.get(need, 0) + 1
        self._count(need, 1)
        node.take(need)

    def _rotate(self, node: NodeState) -> None:
        """Put a node that was given a call behind the others."""
        room = self._room[node.kind]
        del room[node]
        if node.cores > 0:
            room[node] = None

    def _free_slot(self, node: NodeState, need: NodeNeed, group: CallGroup) -> None:
        group.slots -= 1
        self._slots[need] -= 1
        if not self._slots[need]:
            del self._slots[need]
        self._count(need, -1)
        node.take(need, -1)
        if not group.calls:
            del node.groups[need]
            self._can_top_up.get(need, {}).pop(node, None)

    def _may_have_room(self, node: NodeState) -> None:
        if node.cores > 0 and not node.withdrawing and node.number in self.nodes:
            self._room[node.kind][node] = None
            self._changed[node.kind][node] = None
