"""When agents on static nodes are started, under random events."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from callyard.cluster.static_nodes import CONNECT, AgentStarts

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
