"""Which node gets which call: the rules, without nodes."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from callyard.cluster.node import NodeState, StartOnNodes
from callyard.cluster.node_placement import NodePlacement
from callyard.pool.call_shape import NodeCapacity, NodeNeed, WorkerShape

UNKNOWN = 1.0  # s
ONE = NodeNeed(WorkerShape())


class Call:
    def __init__(self, order: int, need: NodeNeed = ONE, priority: int = 0, expected: float = UNKNOWN) -> None:
        self.order, self.need, self.priority, self.seconds = order, need, priority, expected
        self.alone = False
        self.cancelled = self.begun = False

    def __repr__(self) -> str:
        return f"<Call {self.order}>"

    def begin(self) -> bool:
        assert not self.begun
        self.begun = not self.cancelled
        return self.begun

    def abandoned(self) -> bool:
        return self.cancelled

    def expected(self) -> float:
        return self.seconds


def fleet_of(*capacities: NodeCapacity, max_workers: int | None = None) -> tuple[NodePlacement, list[NodeState]]:
    fleet = NodePlacement(max_workers)
    return fleet, [fleet.join(f"n{i}", capacity) for i, capacity in enumerate(capacities)]


def sent(fleet: NodePlacement) -> list[tuple[str, list[int]]]:
    return [(send.member.name, [call.order for call in send.calls]) for send in fleet.decide()]  # type: ignore[attr-defined]


def test_calls_are_spread() -> None:
    fleet, _ = fleet_of(NodeCapacity(2), NodeCapacity(2))
    for i in range(5):
        fleet.add(Call(i))
    assert sent(fleet) == [("n0", [0, 1]), ("n1", [2, 3])]
    assert fleet.waiting


def test_what_waits_is_shared_evenly_and_goes_together() -> None:
    fleet, members = fleet_of(*[NodeCapacity(128)] * 10)
    for i in range(201):
        fleet.add(Call(i))
    assert [len(orders) for _, orders in sent(fleet)] == [20] * 10 + [1]
    assert [member.places for member in members] == [21] + [20] * 9


def test_calls_that_go_together_do_not_pass_older_ones() -> None:
    fleet, _ = fleet_of(NodeCapacity(8))
    two = NodeNeed(WorkerShape(cores=2))
    for i, need in enumerate([ONE, ONE, two, ONE, two]):
        fleet.add(Call(i, need))
    assert sent(fleet) == [("n0", [0, 1]), ("n0", [2]), ("n0", [3]), ("n0", [4])]


def test_an_exclusive_call_goes_alone() -> None:
    fleet, _ = fleet_of(NodeCapacity(8), NodeCapacity(8))
    for i in range(4):
        fleet.add(Call(i, NodeNeed(WorkerShape(), exclusive=True)))
    assert sent(fleet) == [("n0", [0]), ("n1", [1])]


def test_many_calls_are_not_decided_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callyard.cluster.node_placement._MOST_AT_ONCE", 8)
    fleet, members = fleet_of(*[NodeCapacity(4)] * 4)
    for i in range(20):
        fleet.add(Call(i))
    assert [len(orders) for _, orders in sent(fleet)] == [4, 4]
    assert fleet.undecided
    fleet.finished(members[0], list(members[0].flight))  # something happens in between
    assert [len(orders) for _, orders in sent(fleet)] == [4, 4]
    assert fleet.undecided
    assert sent(fleet) == [("n0", [16, 17, 18, 19])]
    assert not fleet.undecided


def test_nothing_is_left_to_decide_once_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crew that is ended decides nothing any more, and goes on as long as there is something left."""
    monkeypatch.setattr("callyard.cluster.node_placement._MOST_AT_ONCE", 2)
    fleet, _ = fleet_of(*[NodeCapacity(1)] * 4)
    for order in range(4):
        fleet.add(Call(order))
    fleet.decide()
    assert fleet.undecided
    assert fleet.drain()
    assert not fleet.undecided


class Fleeting(Call):
    """Cancelled by another thread between two looks at it."""

    def abandoned(self) -> bool:
        was, self.cancelled = self.cancelled, True
        return was


@pytest.mark.parametrize("ahead", [False, True])
def test_the_last_call_is_cancelled_at_the_last_moment(ahead: bool) -> None:
    fleet, (member,) = fleet_of(NodeCapacity(1))
    if ahead:
        calls = [Call(i, expected=1e-4) for i in range(2)]
        for call in calls:
            fleet.add(call)
        fleet.decide()
        fleet.finished(member, calls[:1])
        fleet.decide()
    fleet.add(Fleeting(2, expected=1e-4))
    assert sent(fleet) == []
    fleet.add(Call(3, expected=1e-4))
    assert sent(fleet) == [("n0", [3])]


def test_a_node_whose_calls_are_taken_back_is_given_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, members = fleet_of(*[NodeCapacity(4)] * 100)
    for member in members[:99]:
        fleet.withdraw(member)
    for i in range(3):
        fleet.add(Call(i))
    looked: list[Any] = []
    holds = NodeState.holds
    monkeypatch.setattr(NodeState, "holds", lambda self, *asked: looked.append(1) or holds(self, *asked))
    assert sent(fleet) == [("n99", [0, 1, 2])]
    assert len(looked) <= 5  # they are not even looked at
    fleet.withdrawn(members[0])
    fleet.add(Call(3))
    fleet.add(Call(4))
    assert sent(fleet) == [("n99", [3]), ("n0", [4])]


def test_short_calls_are_sent_ahead_where_some_have_ended() -> None:
    fleet, (member,) = fleet_of(NodeCapacity(1))
    calls = [Call(i, expected=1e-4) for i in range(100)]
    for call in calls:
        fleet.add(call)
    assert sent(fleet) == [("n0", [0])]
    fleet.finished(member, [calls[0]])
    assert [len(orders) for _, orders in sent(fleet)] == [1, 50]
    assert member.ahead
    fleet.finished(member, calls[1:20])
    assert sent(fleet) == []  # not before half of them have ended
    fleet.finished(member, calls[20:40])
    assert [len(orders) for _, orders in sent(fleet)] == [37]  # there are 12 yet, and it may have what waits and one


def test_a_call_with_a_time_begins_only_where_that_is_left() -> None:
    fleet, (short, long) = fleet_of(NodeCapacity(1), NodeCapacity(1))
    fleet.lasts_until(short, 100.0)
    fleet.lasts_until(long, 200.0)
    timed = NodeNeed(WorkerShape(), time=60.0)
    for order in range(2):
        fleet.add(Call(order, timed))
    fleet.add(Call(2))
    assert [(send.member.name, send.calls[0].order) for send in fleet.decide(50.0)] == [("n1", 0), ("n0", 2)]
    assert fleet.hopeless() == []
    fleet.finished(short, list(short.flight))
    assert fleet.decide(150.0) == []
    assert fleet.hopeless() == [timed]  # nor when the other has ended
    fleet.lasts_until(short, 300.0)
    assert [send.calls[0].order for send in fleet.decide(150.0)] == [1]


def test_nodes_of_different_jobs_have_no_call_together() -> None:
    fleet = NodePlacement()
    one, _, *pair = (fleet.join(f"n{i}", NodeCapacity(1), block) for i, block in enumerate("abcc"))
    fleet.add(Call(0, NodeNeed(WorkerShape(), exclusive=True, nodes=2)))
    fleet.add(Call(1, NodeNeed(WorkerShape(), exclusive=True, nodes=3)))
    (spread,) = fleet.decide()
    assert isinstance(spread, StartOnNodes)
    assert spread.members == pair
    assert [need.nodes for need in fleet.hopeless()] == [3]
    assert not one.flight


def test_what_waits_is_known() -> None:
    fleet, (member,) = fleet_of(NodeCapacity(1))
    for order in range(4):
        fleet.add(Call(order, expected=0.5))
    big = NodeNeed(WorkerShape(cores=2))
    fleet.add(Call(9, big))
    fleet.decide()
    assert fleet.backlog() == [(ONE, 3, 0.5), (big, 1, UNKNOWN)]
    assert not fleet.idled
    fleet.finished(member, list(member.flight))
    assert fleet.idled


def test_a_long_call_is_not_sent_ahead() -> None:
    fleet, (member,) = fleet_of(NodeCapacity(1))
    calls = [Call(0, expected=1e-4), Call(1), Call(2, expected=1e-4)]
    for call in calls:
        fleet.add(call)
    assert sent(fleet) == [("n0", [0])]
    fleet.finished(member, calls[:1])
    assert sent(fleet) == [("n0", [1])]


def test_what_waits_ahead_is_shared() -> None:
    fleet, members = fleet_of(NodeCapacity(1), NodeCapacity(1))
    for i in range(2):
        fleet.add(Call(i, expected=1e-5))
    first = fleet.decide()
    for i in range(2, 102):
        fleet.add(Call(i, expected=1e-5))
    for send in first:
        fleet.finished(send.member, send.calls)
    counts = {member.name: 0 for member in members}
    for name, orders in sent(fleet):
        counts[name] += len(orders)
    assert min(counts.values()) >= 20


def test_a_node_is_kept_free_for_one_that_was_passed_too_often() -> None:
    fleet, _ = fleet_of(NodeCapacity(2), NodeCapacity(2))
    running: list[tuple[NodeState, Any]] = []

    def carry_out() -> None:
        running.extend((send.member, call) for send in fleet.decide() for call in send.calls)

    for i in range(2):
        fleet.add(Call(i))
    carry_out()
    large = Call(10, NodeNeed(WorkerShape(cores=2)))
    for call in (large, *(Call(i) for i in range(11, 200))):
        fleet.add(call)
    for _ in range(30):
        carry_out()
        if large.begun:
            return
        member, call = running.pop(0)
        fleet.finished(member, [call])
    raise AssertionError("it is starved")


def test_a_call_that_is_put_back_goes_first() -> None:
    fleet, (member,) = fleet_of(NodeCapacity(1))
    first, second = Call(0), Call(1)
    fleet.add(first)
    fleet.add(second)
    fleet.decide()
    fleet.finished(member, [first])
    first.begun = False
    fleet.put_back([first])
    assert sent(fleet) == [("n0", [0])]


def test_what_no_node_could_hold() -> None:
    fleet, _ = fleet_of(NodeCapacity(2))
    need = NodeNeed(WorkerShape(cores=3))
    fleet.add(Call(0, need))
    assert sent(fleet) == []
    assert fleet.hopeless() == [need]
    larger = fleet.join("n9", NodeCapacity(4))
    assert fleet.hopeless() == []
    assert sent(fleet) == [("n9", [0])]
    assert larger.cores == 1


def test_a_thousand_nodes_cost_nothing_when_one_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, members = fleet_of(*[NodeCapacity(1)] * 1000)
    calls = [Call(i) for i in range(3000)]
    for call in calls:
        fleet.add(call)
    placed = {send.member: send.calls for send in fleet.decide()}
    looked: list[Any] = []
    holds = NodeState.holds
    monkeypatch.setattr(NodeState, "holds", lambda self, *asked: looked.append(1) or holds(self, *asked))
    fleet.finished(members[500], placed[members[500]])
    assert sent(fleet) == [("n500", [1000])]
    assert len(looked) <= 3


NEEDS = [
    NodeNeed(WorkerShape()),
    NodeNeed(WorkerShape(cores=2)),
    NodeNeed(WorkerShape(gpus=1)),
    NodeNeed(WorkerShape(memory=3)),
    NodeNeed(WorkerShape(), exclusive=True),
    NodeNeed(WorkerShape(cores=4, gpus=2)),
    NodeNeed(WorkerShape(), exclusive=True, nodes=2),
]


class Machine(RuleBasedStateMachine):
    """Random events: nothing is given out twice, nothing is forgotten, and nothing waits that could run."""

    members = Bundle("members")

    @initialize(most=st.sampled_from([None, 1, 3]))
    def begin(self, most: int | None) -> None:
        self.fleet = NodePlacement(most)
        self.waiting: dict[Call, None] = {}
        self.there: dict[NodeState, list[Call]] = {}
        self.count = 0

    @rule(target=members, cores=st.integers(1, 4), gpus=st.integers(0, 2), memory=st.integers(0, 6))
    def join(self, cores: int, gpus: int, memory: int) -> Any:
        if len(self.there) >= 4:
            return multiple()
        member = self.fleet.join("n", NodeCapacity(cores, tuple(map(str, range(gpus))), memory))
        self.there[member] = []
        self.carry_out()
        return member

    @rule(member=consumes(members))
    def leave(self, member: NodeState) -> None:
        calls = self.fleet.leave(member)
        assert calls == self.there.pop(member)
        for call in calls:
            call.begun = False  # type: ignore[attr-defined]
            self.is_nowhere(call)
        self.fleet.put_back(reversed(calls))
        self.waiting.update(dict.fromkeys(calls))  # type: ignore[arg-type]
        self.carry_out()

    @rule(need=st.sampled_from(NEEDS), short=st.booleans(), priority=st.integers(0, 1), count=st.integers(1, 9))
    def add(self, need: NodeNeed, short: bool, priority: int, count: int) -> None:
        for _ in range(count):
            self.count += 1
            call = Call(self.count, need, priority, 1e-4 if short else UNKNOWN)
            self.waiting[call] = None
            self.fleet.add(call)
        self.carry_out()

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        busy = [member for member, calls in self.there.items() if calls]
        if busy:
            member = data.draw(st.sampled_from(busy))
            count = data.draw(st.integers(1, len(self.there[member])))
            done, self.there[member] = self.there[member][:count], self.there[member][count:]
            for call in done:
                if call.need.nodes > 1:
                    self.fleet.spread_finished(call)
                    self.is_nowhere(call)
            self.fleet.finished(member, [call for call in done if call.need.nodes == 1])
            self.carry_out()

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """What has not begun there, and will not, comes back; and then the word that this was all."""
        able = [member for member in self.there if not member.withdrawing]
        if able:
            self.fleet.withdraw(data.draw(st.sampled_from(able)))
            self.carry_out()

    @rule(data=st.data())
    def taken_back(self, data: st.DataObject) -> None:
        asked = [member for member in self.there if member.withdrawing]
        if not asked:
            return
        member = data.draw(st.sampled_from(asked))
        calls = [call for call in self.there[member] if call.need.nodes == 1][member.places :]
        for call in calls:
            call.begun = False  # type: ignore[attr-defined]
            self.is_nowhere(call)
        self.fleet.finished(member, calls)
        self.fleet.put_back(reversed(calls))
        self.waiting.update(dict.fromkeys(calls))  # type: ignore[arg-type]
        self.fleet.withdrawn(member)
        self.carry_out()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.waiting:
            call = data.draw(st.sampled_from(list(self.waiting)))
            call.cancelled = True
            del self.waiting[call]
            self.carry_out()

    def is_nowhere(self, call: Any) -> None:
        for calls in self.there.values():
            if call in calls:
                calls.remove(call)

    def carry_out(self) -> None:
        self.carry_out_a_part()
        while self.fleet.undecided:
            self.carry_out_a_part()

    def carry_out_a_part(self) -> None:
        for send in self.fleet.decide():
            if isinstance(send, StartOnNodes):
                assert len({*send.members}) == send.call.need.nodes
                del self.waiting[send.call]  # type: ignore[arg-type]
                for member in send.members:
                    self.there[member].append(send.call)  # type: ignore[arg-type]
                continue
            assert not send.member.withdrawing
            for call in send.calls:
                del self.waiting[call]  # type: ignore[arg-type]
                self.there[send.member].append(call)  # type: ignore[arg-type]

    @invariant()
    def nothing_is_given_out_twice(self) -> None:
        places = -len({call for calls in getattr(self, "there", {}).values() for call in calls if call.need.nodes > 1})
        for member in getattr(self, "there", ()):
            used = [(need, group.places) for need, group in member.groups.items()]
            places += sum(count for _, count in used)
            cores = sum(count * (member.capacity.cores if need.exclusive else need.shape.cores) for need, count in used)
            assert member.capacity.cores - cores == member.cores >= 0
            assert len(member.capacity.gpus) - sum(c * n.shape.gpus for n, c in used) == member.gpus >= 0
            assert member.capacity.memory - sum(c * n.shape.memory for n, c in used) == member.memory >= 0
            assert list(member.flight) == self.there[member]
        if hasattr(self, "fleet") and self.fleet.max_workers is not None:
            assert places <= self.fleet.max_workers

    @invariant()
    def who_waits_has_no_room(self) -> None:
        if not hasattr(self, "fleet") or (self.fleet.max_workers or 99) <= self.fleet._active:
            return
        for call in self.waiting:
            free = [m for m in self.there if m not in self.fleet._reserved and m.holds(call.need, 0.0)]
            assert len(free) < call.need.nodes, f"{call} could run on {free}"


class SmallPortions(Machine):
    """The same with few calls decided at once."""

    def carry_out_a_part(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("callyard.cluster.node_placement._MOST_AT_ONCE", 2)
            super().carry_out_a_part()


TestMachine = Machine.TestCase
TestSmallPortions = SmallPortions.TestCase
