"""How many nodes are asked for and given back: the rules, without jobs."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from callyard.cluster.autoscaler import AGAIN, IDLE, Autoscaler, Block, Demand, demand
from callyard.cluster.placement_state import NodeState
from callyard.pool.call_shape import NodeCapacity, NodeNeed, WorkerShape

ONE = NodeNeed(WorkerShape())
FOUR_CORES = NodeCapacity(4, ("0",), 8)
LONG = 100.0


def node(name: str = "n") -> NodeState:
    return NodeState(1, name, FOUR_CORES)


def there(scaler: Autoscaler, block: Block, now: float, until: float | None = None) -> NodeState:
    """Its agent has connected."""
    new = node(f"n{block.number}")
    block.job = str(block.number)
    scaler.joined(block, new, now)
    if until is not None:
        scaler.ends_at(block, until, now)
    return new


def sizes(blocks: Any) -> list[int]:
    return [block.size for block in blocks]


# -- what is of use --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backlog", "nodes", "together"),
    [
        ([], 0, 1),
        ([(ONE, 1, LONG)], 1, 1),
        ([(ONE, 9, LONG)], 3, 1),
        ([(ONE, 100_000, 1e-4)], 1, 1),  # ten seconds of work
        ([(ONE, 100_000, 1e-2)], 25, 1),
        ([(NodeNeed(WorkerShape(cores=3)), 2, LONG)], 2, 1),
        ([(NodeNeed(WorkerShape(gpus=1)), 3, LONG)], 3, 1),
        ([(NodeNeed(WorkerShape(memory=5)), 3, LONG)], 3, 1),
        ([(NodeNeed(WorkerShape(), exclusive=True), 3, LONG)], 3, 1),
        ([(NodeNeed(WorkerShape(), exclusive=True, nodes=3), 2, LONG), (ONE, 1, LONG)], 4, 3),
        ([(NodeNeed(WorkerShape(cores=9)), 1, LONG)], 1, 1),  # more than a node has: it is seen when one is there
    ],
)
def test_demand(backlog: Any, nodes: int, together: int) -> None:
    assert demand(backlog, 0, FOUR_CORES) == Demand(nodes, together)
    assert demand(backlog, 2, FOUR_CORES).nodes == nodes + 2


def test_as_long_as_nodes_are_not_known_each_call_may_need_one() -> None:
    assert demand([(ONE, 3, LONG)], 0, None).nodes == 3


def test_more_nodes_than_calls_may_run_on_are_of_no_use() -> None:
    big = NodeNeed(WorkerShape(cores=4))
    assert demand([(ONE, 100, LONG), (big, 5, LONG)], 0, FOUR_CORES, room=9).nodes == 3
    assert demand([(ONE, 8, LONG), (big, 5, LONG)], 1, FOUR_CORES, room=10).nodes == 1 + 2 + 2
    assert demand([(ONE, 8, LONG)], 2, FOUR_CORES, room=0).nodes == 2


# -- growing and shrinking -------------------------------------------------------------------------


def test_nothing_is_asked_for_before_there_are_calls() -> None:
    assert Autoscaler(2, 4).decide(Demand(0), 0.0, 0.0) == ([], [])


def test_the_fewest_come_with_the_first_call_and_the_most_are_never_exceeded() -> None:
    scaler = Autoscaler(2, 4)
    assert sizes(scaler.decide(Demand(1), 0.0, 0.0).ask) == [1, 1]
    assert sizes(scaler.decide(Demand(9), 0.0, 1.0).ask) == [1, 1]
    assert sizes(scaler.decide(Demand(9), 0.0, 2.0).ask) == []


def test_idle_nodes_are_given_back_but_for_the_fewest() -> None:
    scaler = Autoscaler(1, 3)
    blocks = scaler.decide(Demand(3), 0.0, 0.0).ask
    for block in blocks:
        there(scaler, block, 0.0)
    assert scaler.decide(Demand(0), 0.0, IDLE - 1).give_back == []
    assert scaler.next_look(0.0) == IDLE
    back = scaler.decide(Demand(0), 0.0, IDLE).give_back
    assert back == [blocks[2], blocks[1]]
    assert scaler.decide(Demand(0), 0.0, 10 * IDLE) == ([], [])


def test_a_node_that_runs_something_stays() -> None:
    scaler = Autoscaler(0, 1)
    (block,) = scaler.decide(Demand(1), 0.0, 0.0).ask
    runs = there(scaler, block, 0.0)
    runs.in_flight[object()] = False  # type: ignore[index]
    assert scaler.decide(Demand(1), 0.0, 10 * IDLE).give_back == []
    runs.in_flight.clear()
    assert scaler.decide(Demand(0), 0.0, 10 * IDLE + 1).give_back == []  # idle from now on
    assert scaler.decide(Demand(0), 0.0, 11 * IDLE + 1).give_back == [block]


def test_what_has_not_come_yet_and_is_of_no_use_any_more_goes_first() -> None:
    scaler = Autoscaler(0, 2)
    first, second = scaler.decide(Demand(2), 0.0, 0.0).ask
    there(scaler, first, 0.0).in_flight[object()] = False  # type: ignore[index]
    second.goes("waiting", 0.0)
    assert scaler.decide(Demand(1), 0.0, IDLE).give_back == [second]


def test_a_call_over_several_nodes_gets_a_block_of_its_own() -> None:
    scaler = Autoscaler(0, 4)
    assert sizes(scaler.decide(Demand(3, together=2), 0.0, 0.0).ask) == [2, 1]
    assert sizes(scaler.decide(Demand(3, together=2), 0.0, 1.0).ask) == []


def test_idle_nodes_make_room_for_a_block_of_several() -> None:
    scaler = Autoscaler(2, 2)
    blocks = scaler.decide(Demand(2), 0.0, 0.0).ask
    for block in blocks:
        there(scaler, block, 0.0)
    ask, back = scaler.decide(Demand(2, together=2), 0.0, 1.0)
    assert (sizes(ask), back) == ([2], blocks)


def test_busy_nodes_do_not_make_room() -> None:
    scaler = Autoscaler(2, 2)
    for block in scaler.decide(Demand(2), 0.0, 0.0).ask:
        there(scaler, block, 0.0).in_flight[object()] = False  # type: ignore[index]
    assert scaler.decide(Demand(4, together=2), 0.0, 1.0) == ([], [])


# -- time ------------------------------------------------------------------------------------------


def test_a_block_is_replaced_before_its_time_is_over() -> None:
    scaler = Autoscaler(1, 1)
    (old,) = scaler.decide(Demand(1), 0.0, 0.0).ask
    leaving = there(scaler, old, 0.0, until=100.0)
    leaving.in_flight[object()] = False  # type: ignore[index]
    assert scaler.decide(Demand(1), 0.0, 60.0).ask == []
    assert scaler.next_look(0.0) == 65.0
    (new,) = scaler.decide(Demand(1), 0.0, 66.0).ask
    assert not leaving.leaving
    assert scaler.next_look(0.0) == 90.0
    there(scaler, new, 70.0, until=170.0)
    scaler.decide(Demand(1), 0.0, 91.0)
    assert leaving.leaving
    leaving.in_flight.clear()
    assert scaler.decide(Demand(1), 0.0, 92.0).give_back == [old]


def test_the_last_call_is_started_early_enough_to_end() -> None:
    scaler = Autoscaler(1, 1)
    (block,) = scaler.decide(Demand(1), 0.0, 0.0).ask
    node = there(scaler, block, 0.0, until=100.0)
    node.in_flight[object()] = False  # type: ignore[index]
    scaler.decide(Demand(1), 40.0, 59.0)
    assert not node.leaving
    scaler.decide(Demand(1), 40.0, 61.0)
    assert node.leaving


def test_a_node_that_is_not_there_for_long_enough_is_replaced() -> None:
    scaler = Autoscaler(1, 1)
    (block,) = scaler.decide(Demand(1), 0.0, 0.0).ask
    there(scaler, block, 0.0, until=100.0)
    assert sizes(scaler.decide(Demand(1), 0.0, 20.0, longest=90.0).ask) == [1]


def test_a_call_that_no_node_is_ever_there_for_replaces_nothing() -> None:
    scaler = Autoscaler(1, 1)
    (block,) = scaler.decide(Demand(1), 0.0, 0.0).ask
    there(scaler, block, 0.0, until=100.0)
    assert scaler.decide(Demand(1), 0.0, 20.0, longest=200.0).ask == []


def test_an_agent_that_does_not_come_back_is_replaced() -> None:
    scaler = Autoscaler(1, 1)
    (block,) = scaler.decide(Demand(1), 0.0, 0.0).ask
    scaler.lost(block, there(scaler, block, 0.0), 10.0)
    assert scaler.decide(Demand(1), 0.0, 11.0).ask == []
    assert scaler.next_look(0.0) == 15.0
    assert sizes(scaler.decide(Demand(1), 0.0, 15.0).ask) == [1]
    there(scaler, block, 16.0)  # after all: there is one too many
    assert scaler.decide(Demand(1), 0.0, 16.0 + IDLE).give_back == [block]


# -- failures --------------------------------------------------------------------------------------


def test_after_failures_is_asked_later_and_later() -> None:
    scaler, now = Autoscaler(1, 1), 0.0
    for pause in (*AGAIN, AGAIN[-1]):
        (block,) = scaler.decide(Demand(1), 0.0, now).ask
        scaler.ended(block, now)
        assert scaler.decide(Demand(1), 0.0, now + pause / 2).ask == []
        assert scaler.next_look(0.0) == now + pause
        now += pause
    there(scaler, scaler.decide(Demand(1), 0.0, now).ask[0], now)
    assert scaler.failures == 0


def test_refused_for_a_limit_fewer_are_asked_for() -> None:
    scaler = Autoscaler(0, 4)
    asked = scaler.decide(Demand(4), 0.0, 0.0).ask
    scaler.refused(asked, 0.0, few=2)
    assert sizes(scaler.decide(Demand(4), 0.0, 1.0).ask) == [1, 1]


# -- whatever happens ------------------------------------------------------------------------------


class Supplies(RuleBasedStateMachine):
    """Jobs come and go in any order, and calls with them."""

    @initialize(least=st.integers(0, 3), more=st.integers(0, 4))
    def begin(self, least: int, more: int) -> None:
        self.most = max(1, least + more)
        self.scaler, self.now = Autoscaler(least, self.most), 0.0
        self.wanted = Demand(0)

    @rule(nodes=st.integers(0, 9), together=st.integers(1, 4))
    def calls(self, nodes: int, together: int) -> None:
        self.wanted = Demand(max(nodes, together if together > 1 else 0), together)

    @rule(seconds=st.sampled_from([0.5, 10.0, 50.0, 500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def decide(self) -> None:
        busy = {block for block in self.scaler.blocks if any(node.in_flight for node in block.connected)}
        ask, back = self.scaler.decide(self.wanted, 1.0, self.now)
        assert not busy & set(back), "what runs is not taken away"
        assert not any(block.state == "asked" for block in back), "its job is not known yet"
        if self.wanted.nodes == 0 and not self.scaler.least:
            assert not ask

    @precondition(lambda self: self.scaler.blocks)
    @rule(
        data=st.data(), what=st.sampled_from(["waiting", "joined", "busy", "free", "lost", "ended", "refused", "timed"])
    )
    def happens(self, data: Any, what: str) -> None:
        block = data.draw(st.sampled_from(self.scaler.blocks))
        if what == "lost" and block.connected:
            self.scaler.lost(block, block.connected[0], self.now)
        if what == "waiting" and block.state == "asked":
            block.goes("waiting", self.now)
        elif what == "joined" and block.state in ("waiting", "starting", "lost") and len(block.connected) < block.size:
            there(self.scaler, block, self.now)
        elif what == "timed" and block.connected:
            self.scaler.ends_at(block, self.now + data.draw(st.sampled_from([0.0, 20.0, 300.0])), self.now)
        elif what == "busy" and block.state == "there" and block.connected and not block.connected[0].leaving:
            block.connected[0].in_flight[object()] = False  # type: ignore[index]
        elif what == "free" and block.connected:
            block.connected[0].in_flight.clear()
        elif what == "ended" and block.state != "asked":
            self.scaler.ended(block, self.now)
        elif what == "refused" and block.state == "asked":
            self.scaler.refused([block], self.now, few=1)

    @invariant()
    def never_too_many(self) -> None:
        if hasattr(self, "scaler"):
            assert sum(block.size for block in self.scaler.blocks if block.present) <= self.most

    @rule()
    def what_is_due_is_done(self) -> None:
        self.scaler.decide(self.wanted, 1.0, self.now)
        when = self.scaler.next_look(1.0)
        if when is not None and when > self.now:
            before = len(self.scaler.blocks)
            ask, back = self.scaler.decide(self.wanted, 1.0, self.now)
            assert not ask, "all of it was asked for at once"
            assert not back
            assert len(self.scaler.blocks) == before


TestSupplies = Supplies.TestCase
