"""Which call goes to which node, and when: decisions only, no sockets, no clocks.

Events go in (`join`, `add`, `finished`, ...), and `decide()` tells what to send where. On its node the pool decides the
rest (`pool.py`), by the same rules; here it is only seen to that no node is given more than it has. A *place* on a node
is the cores, GPUs and memory of one call, from sending it to its result. Calls that are known to be short are
also sent ahead, behind the places, so that a node has something to do while its results travel.

Work is done for what has changed since the last decision, not for each node: there may be a thousand.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from heapq import heappop, heappush
from math import inf

from ..pool.call_shape import NodeCapacity, NodeNeed
from .node import CallGroup, CallQueue, NodeCall, NodeState, SendToNode, StartOnNodes, is_long, note, together

_AHEAD = 0.005  # s of work that may lie before a place besides what runs there
_MOST_AHEAD = 512
_MOST_AT_ONCE = 5000  # calls, so that the first are under way before there is a decision on all
_PATIENCE = 4  # so many times the size of all nodes may calls pass one that waits


class NodePlacement:
    """Gives out the nodes that there are."""

    def __init__(self, max_workers: int | None = None) -> None:
        self.max_workers = max_workers
        self.members: dict[int, NodeState] = {}
        self.ahead: dict[NodeState, None] = {}  # those that were sent more than they have places for, some time ago
        self._lines: dict[tuple[int, NodeNeed], CallQueue] = {}
        self._room: dict[NodeState, None] = {}  # those with free cores; who was given something last stands last
        self._changed: dict[NodeState, None] = {}  # those that have more to give than at the last decision
        self._hungry: dict[NodeNeed, dict[NodeState, None]] = {}  # where calls of that need have ended
        self._reserved: dict[NodeState, CallQueue] = {}  # kept free for the head of a line
        self._places: dict[NodeNeed, int] = {}  # in use, on all nodes
        self.undecided = False  # there is more to do now than `decide` has told
        self._active = 0  # places in use
        self._cores = 0  # of all nodes
        self._numbers = 0
        self._now = 0.0  # of the last decision
        self.idled = False  # the last call of a node has ended, since somebody set this to False

    # -- events ----------------------------------------------------------------------------------------

    def join(self, name: str, capacity: NodeCapacity, block: Hashable = None) -> NodeState:
        """A node is there."""
        self._numbers += 1
        member = self.members[self._numbers] = NodeState(self._numbers, name, capacity, block)
        self._cores += capacity.cores
        self._may_have_room(member)
        return member

    def leave(self, member: NodeState) -> list[NodeCall]:
        """A node is gone; the calls that were there."""
        del self.members[member.number]
        self._cores -= member.capacity.cores
        calls = list(member.flight)
        self.finished(member, calls)
        for call in calls:
            if call.need.nodes > 1:
                self._leave_others(call)
        for known in (self._room, self._changed, self.ahead, *self._hungry.values()):
            known.pop(member, None)
        if member in self._reserved:
            self._lift(self._reserved[member])
        return calls

    def _leave_others(self, call: NodeCall) -> None:
        """A call over several nodes ends on all of them when it ends on one."""
        for other in list(self.members.values()):
            if call in other.flight:
                self.finished(other, [call])

    def spread_finished(self, call: NodeCall) -> None:
        """A call over several nodes has ended."""
        self._leave_others(call)

    def add(self, call: NodeCall) -> None:
        key = (-call.priority, call.need)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = CallQueue(call.need)
        line.calls.append(call)

    def lasts_until(self, member: NodeState, until: float) -> None:
        """It is now known when the node is taken away."""
        member.until = until
        self._may_have_room(member)

    def put_back(self, calls: Iterable[NodeCall]) -> None:
        """Calls that are not where they were sent go to the front again, the last given first in line."""
        for call in calls:
            self.add(call)
            self._lines[-call.priority, call.need].calls.rotate(1)

    def finished(self, member: NodeState, calls: Iterable[NodeCall]) -> None:
        """These calls are not on the node any more: ended, or withdrawn."""
        for call in calls:
            short = member.flight.pop(call)
            need = call.need
            group = member.groups[need]
            group.calls -= 1
            group.long -= not short
            if group.places > group.calls:
                self._give_up_place(member, need, group)
                self._active += need.nodes > 1 and any(call in m.flight for m in self.members.values())
            member.proven.add(need)
            if group.calls:
                self._hungry.setdefault(need, {})[member] = None
        self.idled |= not member.flight
        self._may_have_room(member)

    def withdraw(self, member: NodeState) -> None:
        """What has not begun there is going to be taken back; until then it is given nothing."""
        member.withdrawing = True
        self._room.pop(member, None)  # else each call that is placed would have to pass it
        self._changed.pop(member, None)

    def withdrawn(self, member: NodeState) -> None:
        """What has not begun there was taken back; it may be given calls again."""
        member.withdrawing = False
        for need in member.groups:
            self._hungry.setdefault(need, {})[member] = None
        self._may_have_room(member)

    def drain(self) -> list[NodeCall]:
        """The calls that wait, which now wait no longer."""
        drained = [call for line in self._lines.values() for call in line.calls]
        self._lines.clear()
        self._reserved.clear()
        self.undecided = False
        return drained

    def line_up(self) -> list[NodeCall]:
        """The calls that wait at this moment. Any thread may ask: nothing comes in between while a tuple is made."""
        return [call for line in tuple(self._lines.values()) for call in tuple(line.calls)]

    def drop(self, need: NodeNeed) -> list[NodeCall]:
        """Give up the calls of this need that wait."""
        keys = [key for key, line in self._lines.items() if line.need == need]
        lines = [self._lines.pop(key) for key in keys]
        for line in lines:
            self._lift(line)
        return [call for line in lines for call in line.calls]

    # -- questions -------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        return any(line.head() is not None for line in self._lines.values())

    @property
    def busy(self) -> bool:
        return self._active > 0

    @property
    def room(self) -> int | None:
        """How many more calls may run at once; None: any number."""
        return None if self.max_workers is None else max(0, self.max_workers - self._active)

    def backlog(self) -> list[tuple[NodeNeed, int, float]]:
        """What waits: each need, how many calls there are of it, and for how long the first of them will run.

        Those are not counted for which there is room beside others, on nodes that are in use: the next decision sends
        them there.
        """
        heads = ((line, line.head()) for line in self._lines.values())
        found = ((line, head.expected()) for line, head in heads if head is not None)
        return [(line.need, len(line.calls) - self._room_beside(line), seconds) for line, seconds in found]

    @property
    def unsettled(self) -> bool:
        """Whether the next decision sends calls to nodes that are in use."""
        return self.room != 0 and any(self._room_beside(line) for line in self._lines.values())

    def _room_beside(self, line: CallQueue) -> int:
        """For how many of its calls; none if the last decision has found no room."""
        need = line.need
        if line.stuck or need.nodes > 1 or need.exclusive:
            return 0
        able = (member for member in self._room if member.flight and member.holds(need, self._now))
        return min(len(line.calls), sum(member.room_for(need) for member in able))

    def hopeless(self) -> list[NodeNeed]:
        """What is waited for and none of the nodes has."""
        return [line.need for line in self._lines.values() if line.head() is not None and not self._enough(line.need)]

    def _enough(self, need: NodeNeed) -> bool:
        able = (member for member in self.members.values() if member.could_hold(need, self._now))
        return together(able, need.nodes) is not None

    # -- decisions -------------------------------------------------------------------------------------

    def decide(self, now: float = 0.0) -> list[SendToNode | StartOnNodes]:
        """What to do now, or the first part of that."""
        self._now = now
        todo: list[SendToNode | StartOnNodes] = []
        heads: list[tuple[int, int, CallQueue]] = []
        for (rank, _), line in list(self._lines.items()):
            line.share = line.share if self.undecided else 0
            self._queue(heads, rank, line)
        passed: list[CallQueue] = []  # by whatever is sent from here on
        decided, self.undecided = 0, False
        while heads:
            if decided >= _MOST_AT_ONCE:
                self.undecided = True
                return todo
            rank, _, line = heappop(heads)
            until = heads[0][1] if heads and heads[0][0] == rank else inf
            if placed := self._place(line, until, todo):
                decided += placed
                for other in passed:
                    other.passed += placed
                self._queue(heads, rank, line)
            else:
                line.stuck = self.max_workers is None or self._active < self.max_workers
                passed.append(line)
                self._reserve(line)
        self._changed.clear()
        return todo

    def _queue(self, heads: list[tuple[int, int, CallQueue]], rank: int, line: CallQueue) -> None:
        """Let the head of the line be looked at in its turn: the highest priority, then the oldest."""
        head = line.head()
        if head is None:
            del self._lines[rank, line.need]
            self._lift(line)
        else:
            heappush(heads, (rank, head.order, line))

    def _place(self, line: CallQueue, until: float, todo: list[SendToNode | StartOnNodes]) -> int:
        """Do something for the head of the line, and for those behind it that came before `until`.

        Returns for how many calls; 0 if nothing can be done now.
        """
        if line.need.nodes > 1:
            return self._spread(line, todo)
        if self.max_workers is None or self._active < self.max_workers:
            member = self._find(line)
            if member is not None:
                return self._fill(member, line, until, todo)
        return 0 if is_long(line.calls[0]) else self._send_ahead(line, todo)

    def _find(self, line: CallQueue) -> NodeState | None:
        """A node with a place for it."""
        for member in self._candidates(line):
            if member.holds(line.need, self._now) and self._is_open_to(member, line):
                return member
        return None

    def _candidates(self, line: CallQueue) -> dict[NodeState, None]:
        return self._changed if line.stuck else self._room

    def _fill(self, member: NodeState, line: CallQueue, until: float, todo: list[SendToNode | StartOnNodes]) -> int:
        """Send calls to places on the node: its share of what waits, so that many calls share one message."""
        line.share = line.share or max(1, len(line.calls) // len(self._candidates(line)))
        most = line.share if self.max_workers is None else min(line.share, self.max_workers - self._active)
        calls: list[NodeCall] = []
        for _ in range(most):
            call = line.calls.popleft()
            if call.begin():  # or it has just been cancelled
                self._give_place(member, line.need)
                calls.append(call)
                note(member, call)
            if not line.calls or line.calls[0].order > until or not member.holds(line.need, self._now):
                break
        self._rotate(member)
        return self._under_way(member, line, calls, todo)

    def _spread(self, line: CallQueue, todo: list[SendToNode | StartOnNodes]) -> int:
        """Start the head of the line on several nodes, if so many have a place for it."""
        if self.max_workers is not None and self._active >= self.max_workers:
            return 0
        nodes, now = line.need.nodes, self._now
        able = (member for member in self._room if member.holds(line.need, now) and self._is_open_to(member, line))
        found = together(able, nodes)
        if found is None:
            return 0
        members = sorted(found, key=lambda member: member.number)
        call = line.calls.popleft()
        if call.begin():
            for member in members:
                self._give_place(member, line.need)
                self._rotate(member)
                note(member, call)
            self._active -= nodes - 1  # it is one call
            line.passed = 0
            self._lift(line)
            todo.append(StartOnNodes(members, call))
        return 1

    def _is_open_to(self, member: NodeState, line: CallQueue) -> bool:
        return self._reserved.get(member, line) is line

    def _reserve(self, line: CallQueue) -> None:
        """Keep nodes for the line's head, when it has been passed too often: those that are the least busy."""
        if not line.reserved and line.passed >= _PATIENCE * self._cores:
            able = (m for m in self.members.values() if m not in self._reserved and m.could_hold(line.need, self._now))
            line.reserved = together(sorted(able, key=lambda m: m.cores, reverse=True), line.need.nodes) or []
            self._reserved.update(dict.fromkeys(line.reserved, line))

    def _lift(self, line: CallQueue) -> None:
        """The nodes that were kept for the line's head are there for all again."""
        if line.reserved:
            for member in line.reserved:
                self._reserved.pop(member, None)
            line.reserved = []
            for other in self._lines.values():
                other.stuck = False

    def _send_ahead(self, line: CallQueue, todo: list[SendToNode | StartOnNodes]) -> int:
        hungry = self._hungry.get(line.need, {})
        while hungry:
            member = next(iter(hungry))
            del hungry[member]
            room = self._room_ahead(member, line)
            if room > 0 and self._is_open_to(member, line):
                calls: list[NodeCall] = []
                while len(calls) < room and line.calls and not is_long(line.calls[0]):
                    call = line.calls.popleft()
                    if call.begin():
                        calls.append(call)
                        note(member, call)
                return self._under_way(member, line, calls, todo)
        return 0

    def _room_ahead(self, member: NodeState, line: CallQueue) -> int:
        """How many calls may be sent to the node beside those that have places."""
        group = member.groups.get(line.need)
        if group is None or member.withdrawing or member.leaving:
            return 0
        each = min(_MOST_AHEAD, 1 + int(_AHEAD / max(line.calls[0].expected(), 1e-6)))
        # Not all to the first who asks: each place gets at most its share of what waits.
        each = min(each, 1 + len(line.calls) // self._places[line.need])
        most, calls = (group.places - group.long) * each, group.calls - group.long
        # Topped up when half has been done, so that many calls share one message.
        return most - calls if 2 * calls <= most else 0

    def _under_way(
        self, member: NodeState, line: CallQueue, calls: list[NodeCall], todo: list[SendToNode | StartOnNodes]
    ) -> int:
        """Calls of this line are sent to a node; something has been done, even if all of them had been cancelled."""
        if line.need in member.proven:  # it is worth looking whether more can be sent there
            self._hungry.setdefault(line.need, {})[member] = None
        if not calls:
            return 1
        line.passed = 0
        self._lift(line)
        group = member.groups[line.need]
        if group.calls > group.places:
            self.ahead[member] = None
        todo.append(SendToNode(member, calls))
        return len(calls)

    # -- accounts --------------------------------------------------------------------------------------

    def _give_place(self, member: NodeState, need: NodeNeed) -> None:
        group = member.groups.setdefault(need, CallGroup())
        group.places += 1
        self._places[need] = self._places.get(need, 0) + 1
        self._active += 1
        member.take(need)

    def _rotate(self, member: NodeState) -> None:
        """It was given something: the others come first now."""
        del self._room[member]
        if member.cores > 0:
            self._room[member] = None

    def _give_up_place(self, member: NodeState, need: NodeNeed, group: CallGroup) -> None:
        group.places -= 1
        self._places[need] -= 1
        if not self._places[need]:
            del self._places[need]
        self._active -= 1
        member.take(need, -1)
        if not group.calls:
            del member.groups[need]
            self._hungry.get(need, {}).pop(member, None)

    def _may_have_room(self, member: NodeState) -> None:
        if member.cores > 0 and not member.withdrawing and member.number in self.members:
            self._room[member] = None
            self._changed[member] = None
