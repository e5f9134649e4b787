"""When agents on static nodes are started, under random events."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from callyard.cluster.base import AgentOutput
from callyard.cluster.hello import Hello
from callyard.cluster.node_placement import NodePlacement
from callyard.cluster.static_nodes import CONNECT, AgentStarts, StaticNodes
from callyard.pool.call_shape import NodeCapacity, NodeOffer
from callyard.transport.event_loop import EventLoop
from callyard.version import VERSION

NAMES = ["n1", "n2", "n3"]
AN_HOUR = 3600.0


class Starts(RuleBasedStateMachine):
    """Agents are started when they are due, connect, are lost and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.starts, self.now = AgentStarts(NAMES), 0.0
        self.there: set[str] = set()
        self.started: dict[str, float] = {}  # when each was last started, without having ended since

    @rule(seconds=st.sampled_from([0.1, 1.0, 30.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(wanted=st.booleans())
    def look(self, wanted: bool) -> None:
        names = self.starts.to_start(self.now, wanted)
        assert not self.there & set(names), "one agent on each node"
        assert all(self.now - self.started[name] >= CONNECT for name in names if name in self.started)
        self.starts.starting(names, self.now)
        self.started.update(dict.fromkeys(names, self.now))
        when = self.starts.next_start(wanted)
        assert when is None or when > self.now, "what is due has been started"

    @rule(name=st.sampled_from(NAMES))
    def connects(self, name: str) -> None:
        if name in self.started:
            self.starts.there(name, self.now)
            self.there.add(name)

    @rule(name=st.sampled_from(NAMES))
    def is_lost(self, name: str) -> None:
        if name in self.there:
            self.starts.gone(name, self.now)
            self.there.discard(name)
            self.started[name] = self.now  # it has that long to connect again

    @rule(name=st.sampled_from(NAMES))
    def ends(self, name: str) -> None:
        if name in self.started:
            self.starts.ended([name], self.now)
            self.there.discard(name)
            del self.started[name]

    @invariant()
    def agents_that_are_not_there_are_missing(self) -> None:
        assert set(self.starts.missing()) == set(NAMES) - self.there
        assert set(self.starts.expected()) == set(self.started) - self.there

    def teardown(self) -> None:
        """Whatever has happened, all agents come in the end if they can be started."""
        until = self.now + AN_HOUR
        while self.starts.missing() and self.now < until:
            for name in self.starts.to_start(self.now, True):
                self.starts.starting([name], self.now)
                self.starts.there(name, self.now)
            when = self.starts.next_start(True)
            self.now = max(self.now + 0.1, self.now if when is None else when)
        assert not self.starts.missing()


TestStarts: Any = Starts.TestCase


# ------------------------------------------------------------------ with pretended commands


class Command:
    """A command that has started agents; it ends when the test says so."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.nodes = nodes
        self._ends = os.pipe()

    def over(self) -> None:
        os.write(self._ends[1], b"x")

    def fileno(self) -> int:
        return self._ends[0]

    def read(self) -> AgentOutput:
        return AgentOutput(self.nodes, True)

    def words(self) -> str:
        return ""

    def stop(self) -> None:
        pass

    def end(self, grace: float) -> None:
        for end in self._ends:
            os.close(end)


class Pretended:
    """Two nodes, and the commands that were typed for them."""

    how_to_keep_one = ""

    def __init__(self, tells_each_end: bool) -> None:
        self.tells_each_end = tells_each_end
        self.commands: list[Command] = []

    def nodes(self) -> Mapping[str, NodeOffer]:
        return dict.fromkeys(("n1", "n2"), NodeOffer(1))

    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[Command]:
        self.commands.append(Command(list(nodes)))
        return self.commands[-1:]

    def ends_in(self) -> float | None:
        return None

    def is_over(self, said: str) -> bool:
        return False

    def describe(self) -> str:
        return "pretended nodes"


class Driven:
    """What a driver does with static nodes; time goes on in steps."""

    def __init__(self, tells_each_end: bool) -> None:
        self.nodes, self.loop = Pretended(tells_each_end), EventLoop(lambda: None)
        self.starter = StaticNodes(self.nodes, NodePlacement())
        self.now = time.monotonic()

    def look(self, after: float = 0.0) -> list[Sequence[str]]:
        """Return the nodes of each command so far."""
        self.now += after
        self.starter.look_after(self.loop, lambda: "contact", self.now, True)
        return [command.nodes for command in self.nodes.commands]

    def connected(self, name: str) -> Any:
        hello = Hello(name, "here", 1, VERSION, (3, 11), NodeCapacity(1))
        return self.starter.admit(hello, self.now)

    def close(self) -> None:
        self.starter.close(self.loop, 0)
        self.loop.close()


@pytest.fixture(params=[False, True], ids=["tells of the end of all", "tells each end"])
def driven(request: pytest.FixtureRequest) -> Iterator[Driven]:
    driven = Driven(request.param)
    yield driven
    driven.close()


def test_a_lost_agent_is_started_again(driven: Driven) -> None:
    assert driven.look() == [["n1", "n2"]]
    node, _ = driven.connected("n1"), driven.connected("n2")
    driven.starter.gone(node, driven.now)
    soon = driven.look(after=1.0)
    if driven.nodes.tells_each_end:  # it may connect again, and else its end will be told
        assert soon == [["n1", "n2"]]
        assert driven.look(after=CONNECT) == [["n1", "n2"], ["n1"]]
    else:
        assert soon == [["n1", "n2"], ["n1"]]


def test_the_end_of_an_earlier_command_is_not_that_of_a_later_agent(driven: Driven) -> None:
    driven.look()
    node, _ = driven.connected("n1"), driven.connected("n2")
    driven.starter.gone(node, driven.now)
    assert driven.look(after=CONNECT) == [["n1", "n2"], ["n1"]]
    driven.connected("n1")
    driven.nodes.commands[0].over()
    driven.loop.step(0)
    assert driven.starter._starts.missing() == ["n2"]
