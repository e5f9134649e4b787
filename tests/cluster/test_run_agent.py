"""The process of an agent, before and after its calls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from callyard.cluster import run_agent
from callyard.cluster.run_agent import DriverConnection
from callyard.transport import agent_protocol
from callyard.transport.agent_protocol import json_frame
from callyard.transport.channel import PeerGone
from callyard.transport.channel_messages import MESSAGE, Message


class Driver:
    """The link to a driver that takes some bytes of the last results in each of so many turns, and then says END."""

    def __init__(self, turns: int) -> None:
        self.turns, self.moved = turns, 0
        self._ours, self._theirs = os.pipe()
        os.write(self._theirs, b"x")  # it is always readable

    def fileno(self) -> int:
        return self._ours

    def receive(self) -> list[Message]:
        if self.moved == self.turns:
            return [Message(MESSAGE, json_frame(agent_protocol.END))]
        self.moved += 1
        return []

    def close(self) -> None:
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def connection() -> Iterator[Any]:
    link = Driver(turns=20)
    yield DriverConnection(link, None, None)  # type: ignore[arg-type]
    link.close()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each look at the clock find it two seconds later."""
    times = iter(range(0, 1000, 2))
    monkeypatch.setattr(run_agent, "time", SimpleNamespace(monotonic=lambda: next(times)))


def test_the_last_results_have_time_as_long_as_they_move(connection: Any) -> None:
    assert connection._wait_for({agent_protocol.END}, 5.0)[0] == agent_protocol.END


def test_a_driver_that_takes_nothing_is_not_waited_for(connection: Any) -> None:
    connection._link.moved, connection._link.receive = 0, list
    with pytest.raises(PeerGone, match="has not answered for 5 s"):
        connection._wait_for({agent_protocol.END}, 5.0)
