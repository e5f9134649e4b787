"""Which node gets which call: the rules, without nodes."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from callyard.cluster.node_placement import NodePlacement
from callyard.cluster.placement_state import NodeState, StartOnNodes
from callyard.pool.call_shape import NodeCapacity, NodeNeed, WorkerShape
from callyard.schedulers.steps import RankOptions

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


def placement_of(*capacities: NodeCapacity, max_workers: int | None = None) -> tuple[NodePlacement, list[NodeState]]:
    placement = NodePlacement(max_workers)
    return placement, [placement.join(f"n{i}", capacity) for i, capacity in enumerate(capacities)]


def sent(placement: NodePlacement) -> list[tuple[str, list[int]]]:
    return [(send.node.name, [call.order for call in send.calls]) for send in placement.decide()]  # type: ignore[attr-defined]


def test_calls_are_spread() -> None:
    placement, _ = placement_of(NodeCapacity(2), NodeCapacity(2))
    for i in range(5):
        placement.add(Call(i))
    assert sent(placement) == [("n0", [0, 1]), ("n1", [2, 3])]
    assert placement.waiting


def test_what_waits_is_shared_evenly_and_goes_together() -> None:
    placement, nodes = placement_of(*[NodeCapacity(128)] * 10)
    for i in range(201):
        placement.add(Call(i))
    assert [len(orders) for _, orders in sent(placement)] == [20] * 10 + [1]
    assert [node.slots for node in nodes] == [21] + [20] * 9


def test_calls_that_go_together_do_not_pass_older_ones() -> None:
    placement, _ = placement_of(NodeCapacity(8))
    two = NodeNeed(WorkerShape(cores=2))
    for i, need in enumerate([ONE, ONE, two, ONE, two]):
        placement.add(Call(i, need))
    assert sent(placement) == [("n0", [0, 1]), ("n0", [2]), ("n0", [3]), ("n0", [4])]


def test_an_exclusive_call_goes_alone() -> None:
    placement, _ = placement_of(NodeCapacity(8), NodeCapacity(8))
    for i in range(4):
        placement.add(Call(i, NodeNeed(WorkerShape(), exclusive=True)))
    assert sent(placement) == [("n0", [0]), ("n1", [1])]


def test_many_calls_are_not_decided_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callyard.cluster.node_placement._MOST_AT_ONCE", 8)
    placement, nodes = placement_of(*[NodeCapacity(4)] * 4)
    for i in range(20):
        placement.add(Call(i))
    assert [len(orders) for _, orders in sent(placement)] == [4, 4]
    assert placement.undecided
    placement.finished(nodes[0], list(nodes[0].in_flight))  # something happens in between
    assert [len(orders) for _, orders in sent(placement)] == [4, 4]
    assert placement.undecided
    assert sent(placement) == [("n0", [16, 17, 18, 19])]
    assert not placement.undecided


def test_nothing_is_left_to_decide_once_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is ended decides nothing any more, and goes on as long as there is something left."""
    monkeypatch.setattr("callyard.cluster.node_placement._MOST_AT_ONCE", 2)
    placement, _ = placement_of(*[NodeCapacity(1)] * 4)
    for order in range(4):
        placement.add(Call(order))
    placement.decide()
    assert placement.undecided
    assert placement.drain()
    assert not placement.undecided


class Fleeting(Call):
    """Cancelled by another thread between two looks at it."""

    def abandoned(self) -> bool:
        was, self.cancelled = self.cancelled, True
        return was


@pytest.mark.parametrize("ahead", [False, True])
def test_the_last_call_is_cancelled_at_the_last_moment(ahead: bool) -> None:
    placement, (node,) = placement_of(NodeCapacity(1))
    if ahead:
        calls = [Call(i, expected=1e-4) for i in range(2)]
        for call in calls:
            placement.add(call)
        placement.decide()
        placement.finished(node, calls[:1])
        placement.decide()
    placement.add(Fleeting(2, expected=1e-4))
    assert sent(placement) == []
    placement.add(Call(3, expected=1e-4))
    assert sent(placement) == [("n0", [3])]


def test_a_node_whose_calls_are_taken_back_is_given_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    placement, nodes = placement_of(*[NodeCapacity(4)] * 100)
    for node in nodes[:99]:
        placement.withdraw(node)
    for i in range(3):
        placement.add(Call(i))
    looked: list[Any] = []
    holds = NodeState.holds
    monkeypatch.setattr(NodeState, "holds", lambda self, *asked: looked.append(1) or holds(self, *asked))
    assert sent(placement) == [("n99", [0, 1, 2])]
    assert len(looked) <= 5  # they are not even looked at
    placement.withdrawn(nodes[0])
    placement.add(Call(3))
    placement.add(Call(4))
    assert sent(placement) == [("n99", [3]), ("n0", [4])]


def test_short_calls_are_sent_ahead_where_some_have_ended() -> None:
    placement, (node,) = placement_of(NodeCapacity(1))
    calls = [Call(i, expected=1e-4) for i in range(100)]
    for call in calls:
        placement.add(call)
    assert sent(placement) == [("n0", [0])]
    placement.finished(node, [calls[0]])
    assert [len(orders) for _, orders in sent(placement)] == [1, 50]
    assert node.ahead
    placement.finished(node, calls[1:20])
    assert sent(placement) == []  # not before half of them have ended
    placement.finished(node, calls[20:40])
    assert [len(orders) for _, orders in sent(placement)] == [
        37
    ]  # there are 12 yet, and it may have what waits and one


def test_a_call_with_a_time_begins_only_where_that_is_left() -> None:
    placement, (short, long) = placement_of(NodeCapacity(1), NodeCapacity(1))
    placement.lasts_until(short, 100.0)
    placement.lasts_until(long, 200.0)
    timed = NodeNeed(WorkerShape(), time=60.0)
    for order in range(2):
        placement.add(Call(order, timed))
    placement.add(Call(2))
    assert [(send.node.name, send.calls[0].order) for send in placement.decide(50.0)] == [("n1", 0), ("n0", 2)]
    assert placement.unplaceable() == []
    placement.finished(short, list(short.in_flight))
    assert placement.decide(150.0) == []
    assert placement.unplaceable() == [timed]  # nor when the other has ended
    placement.lasts_until(short, 300.0)
    assert [send.calls[0].order for send in placement.decide(150.0)] == [1]


def test_nodes_of_different_jobs_have_no_call_together() -> None:
    placement = NodePlacement()
    one, _, *pair = (placement.join(f"n{i}", NodeCapacity(1), block) for i, block in enumerate("abcc"))
    placement.add(Call(0, NodeNeed(WorkerShape(), exclusive=True, nodes=2)))
    placement.add(Call(1, NodeNeed(WorkerShape(), exclusive=True, nodes=3)))
    (spread,) = placement.decide()
    assert isinstance(spread, StartOnNodes)
    assert spread.nodes == pair
    assert [need.nodes for need in placement.unplaceable()] == [3]
    assert not one.in_flight


def test_what_waits_is_known() -> None:
    placement, (node,) = placement_of(NodeCapacity(1))
    for order in range(4):
        placement.add(Call(order, expected=0.5))
    big = NodeNeed(WorkerShape(cores=2))
    placement.add(Call(9, big))
    placement.decide()
    assert placement.backlog(0) == [(ONE, 3, 0.5), (big, 1, UNKNOWN)]
    assert placement.idled == set()
    placement.finished(node, list(node.in_flight))
    assert placement.idled == {0}


def test_a_long_call_is_not_sent_ahead() -> None:
    placement, (node,) = placement_of(NodeCapacity(1))
    calls = [Call(0, expected=1e-4), Call(1), Call(2, expected=1e-4)]
    for call in calls:
        placement.add(call)
    assert sent(placement) == [("n0", [0])]
    placement.finished(node, calls[:1])
    assert sent(placement) == [("n0", [1])]


def test_what_waits_ahead_is_shared() -> None:
    placement, nodes = placement_of(NodeCapacity(1), NodeCapacity(1))
    for i in range(2):
        placement.add(Call(i, expected=1e-5))
    first = placement.decide()
    for i in range(2, 102):
        placement.add(Call(i, expected=1e-5))
    for send in first:
        placement.finished(send.node, send.calls)
    counts = {node.name: 0 for node in nodes}
    for name, orders in sent(placement):
        counts[name] += len(orders)
    assert min(counts.values()) >= 20


def test_a_node_is_kept_free_for_one_that_was_passed_too_often() -> None:
    placement, _ = placement_of(NodeCapacity(2), NodeCapacity(2))
    running: list[tuple[NodeState, Any]] = []

    def carry_out() -> None:
        running.extend((send.node, call) for send in placement.decide() for call in send.calls)

    for i in range(2):
        placement.add(Call(i))
    carry_out()
    large = Call(10, NodeNeed(WorkerShape(cores=2)))
    for call in (large, *(Call(i) for i in range(11, 200))):
        placement.add(call)
    for _ in range(30):
        carry_out()
        if large.begun:
            return
        node, call = running.pop(0)
        placement.finished(node, [call])
    raise AssertionError("it is starved")


def test_a_call_that_is_put_back_goes_first() -> None:
    placement, (node,) = placement_of(NodeCapacity(1))
    first, second = Call(0), Call(1)
    placement.add(first)
    placement.add(second)
    placement.decide()
    placement.finished(node, [first])
    first.begun = False
    placement.put_back([first])
    assert sent(placement) == [("n0", [0])]


def test_what_no_node_could_hold() -> None:
    placement, _ = placement_of(NodeCapacity(2))
    need = NodeNeed(WorkerShape(cores=3))
    placement.add(Call(0, need))
    assert sent(placement) == []
    assert placement.unplaceable() == [need]
    larger = placement.join("n9", NodeCapacity(4))
    assert placement.unplaceable() == []
    assert sent(placement) == [("n9", [0])]
    assert larger.cores == 1


def test_a_thousand_nodes_cost_nothing_when_one_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    placement, nodes = placement_of(*[NodeCapacity(1)] * 1000)
    calls = [Call(i) for i in range(3000)]
    for call in calls:
        placement.add(call)
    placed = {send.node: send.calls for send in placement.decide()}
    looked: list[Any] = []
    holds = NodeState.holds
    monkeypatch.setattr(NodeState, "holds", lambda self, *asked: looked.append(1) or holds(self, *asked))
    placement.finished(nodes[500], placed[nodes[500]])
    assert sent(placement) == [("n500", [1000])]
    assert len(looked) <= 3


def test_calls_of_one_kind_pass_none_of_another() -> None:
    """A large call that has been passed too often has a node kept free; calls of other kinds pass nobody there."""
    placement = NodePlacement()
    for kind in (0, 1):
        placement.join(f"n{kind}", NodeCapacity(2), kind=kind)
    small, large = ONE._replace(kind=1), NodeNeed(WorkerShape(cores=2), kind=1)
    placement.add(Call(0, small))
    placement.decide()
    placement.add(Call(1, large))
    others = placement.nodes[1]
    for number in range(2, 100):
        placement.add(Call(number, ONE))
        placement.decide()
        placement.finished(others, list(others.in_flight))
    placement.add(Call(100, small))
    assert sent(placement) == [("n1", [100])]


NEEDS = [
    NodeNeed(WorkerShape()),
    NodeNeed(WorkerShape(cores=2)),
    NodeNeed(WorkerShape(gpus=1)),
    NodeNeed(WorkerShape(memory=3)),
    NodeNeed(WorkerShape(), exclusive=True),
    NodeNeed(WorkerShape(cores=4, gpus=2)),
    NodeNeed(WorkerShape(), exclusive=True, nodes=2),
    NodeNeed(WorkerShape(), exclusive=True, rank_options=RankOptions(cpu_bind="cores")),
]


KINDS = st.sampled_from([0, 0, 1])


class Machine(RuleBasedStateMachine):
    """Random events: nothing is given out twice, nothing is forgotten, and nothing waits that could run."""

    nodes = Bundle("nodes")

    @initialize(most=st.sampled_from([None, 1, 3]))
    def begin(self, most: int | None) -> None:
        self.placement = NodePlacement(most)
        self.waiting: dict[Call, None] = {}
        self.there: dict[NodeState, list[Call]] = {}
        self.count = 0

    @rule(target=nodes, cores=st.integers(1, 4), gpus=st.integers(0, 2), memory=st.integers(0, 6), kind=KINDS)
    def join(self, cores: int, gpus: int, memory: int, kind: int) -> Any:
        if len(self.there) >= 4:
            return multiple()
        node = self.placement.join("n", NodeCapacity(cores, tuple(map(str, range(gpus))), memory), kind=kind)
        self.there[node] = []
        self.carry_out()
        return node

    @rule(node=consumes(nodes))
    def leave(self, node: NodeState) -> None:
        calls = self.placement.leave(node)
        assert calls == self.there.pop(node)
        for call in calls:
            call.begun = False  # type: ignore[attr-defined]
            self.is_nowhere(call)
        self.placement.put_back(reversed(calls))
        self.waiting.update(dict.fromkeys(calls))  # type: ignore[arg-type]
        self.carry_out()

    @rule(
        need=st.sampled_from(NEEDS),
        short=st.booleans(),
        priority=st.integers(0, 1),
        count=st.integers(1, 9),
        kind=KINDS,
    )
    def add(self, need: NodeNeed, short: bool, priority: int, count: int, kind: int) -> None:
        for _ in range(count):
            self.count += 1
            call = Call(self.count, need._replace(kind=kind), priority, 1e-4 if short else UNKNOWN)
            self.waiting[call] = None
            self.placement.add(call)
        self.carry_out()

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        busy = [node for node, calls in self.there.items() if calls]
        if busy:
            node = data.draw(st.sampled_from(busy))
            count = data.draw(st.integers(1, len(self.there[node])))
            done, self.there[node] = self.there[node][:count], self.there[node][count:]
            for call in done:
                if call.need.nodes > 1:
                    self.placement.finished_everywhere(call)
                    self.is_nowhere(call)
            self.placement.finished(node, [call for call in done if call.need.nodes == 1])
            self.carry_out()

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """What has not begun there, and will not, comes back; and then the word that this was all."""
        able = [node for node in self.there if not node.withdrawing]
        if able:
            self.placement.withdraw(data.draw(st.sampled_from(able)))
            self.carry_out()

    @rule(data=st.data())
    def taken_back(self, data: st.DataObject) -> None:
        asked = [node for node in self.there if node.withdrawing]
        if not asked:
            return
        node = data.draw(st.sampled_from(asked))
        calls = [call for call in self.there[node] if call.need.nodes == 1][node.slots :]
        for call in calls:
            call.begun = False  # type: ignore[attr-defined]
            self.is_nowhere(call)
        self.placement.finished(node, calls)
        self.placement.put_back(reversed(calls))
        self.waiting.update(dict.fromkeys(calls))  # type: ignore[arg-type]
        self.placement.withdrawn(node)
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
        while self.placement.undecided:
            self.carry_out_a_part()

    def carry_out_a_part(self) -> None:
        for send in self.placement.decide():
            if isinstance(send, StartOnNodes):
                assert len({*send.nodes}) == send.call.need.nodes
                del self.waiting[send.call]  # type: ignore[arg-type]
                for node in send.nodes:
                    self.there[node].append(send.call)  # type: ignore[arg-type]
                continue
            assert not send.node.withdrawing
            for call in send.calls:
                del self.waiting[call]  # type: ignore[arg-type]
                self.there[send.node].append(call)  # type: ignore[arg-type]

    @invariant()
    def nothing_is_given_out_twice(self) -> None:
        places = -len({call for calls in getattr(self, "there", {}).values() for call in calls if call.need.nodes > 1})
        for node in getattr(self, "there", ()):
            used = [(need, group.slots) for need, group in node.groups.items()]
            places += sum(count for _, count in used)
            cores = sum(count * (node.capacity.cores if need.exclusive else need.shape.cores) for need, count in used)
            assert node.capacity.cores - cores == node.cores >= 0
            assert len(node.capacity.gpus) - sum(c * n.shape.gpus for n, c in used) == node.gpus >= 0
            assert node.capacity.memory - sum(c * n.shape.memory for n, c in used) == node.memory >= 0
            assert list(node.in_flight) == self.there[node]
        if hasattr(self, "placement") and self.placement.max_workers is not None:
            assert places <= self.placement.max_workers

    @invariant()
    def calls_are_on_nodes_of_their_kind(self) -> None:
        for node, calls in getattr(self, "there", {}).items():
            assert {call.need.kind for call in calls} <= {node.kind}
        for kind in (0, 1) if hasattr(self, "placement") else ():
            on_nodes = {call for node, calls in self.there.items() if node.kind == kind for call in calls}
            assert self.placement._active_of[kind] <= len(on_nodes)
        if hasattr(self, "placement"):
            assert self.placement._active_of.total() == self.placement._active

    @invariant()
    def who_waits_has_no_room(self) -> None:
        if not hasattr(self, "placement") or (self.placement.max_workers or 99) <= self.placement._active:
            return
        for call in self.waiting:
            free = [m for m in self.there if self.placement._reserved.queue_of(m) is None and m.holds(call.need, 0.0)]
            assert len(free) < call.need.nodes, f"{call} could run on {free}"


class SmallPortions(Machine):
    """The same with few calls decided at once."""

    def carry_out_a_part(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("callyard.cluster.node_placement._MOST_AT_ONCE", 2)
            super().carry_out_a_part()


TestMachine = Machine.TestCase
TestSmallPortions = SmallPortions.TestCase
