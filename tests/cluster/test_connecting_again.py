"""An agent that connects again: what it said over its first connection counts, whichever is read first."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from pretended import GIB, Inside, same, until

from bench.crowd import Answer
from callyard import Executor, Local
from callyard.backends.base import Settings
from callyard.backends.cluster import ClusterBackend, LocalLaunch
from callyard.cluster.base import AgentOutput, StartedAgents
from callyard.pool.call_shape import NodeOffer
from callyard.transport import agent_protocol, tls_connection
from callyard.transport.agent_protocol import json_frame
from callyard.transport.channel import Link
from callyard.transport.contact_file import Contact
from callyard.version import VERSION

PATIENCE = 60.0
CALLS = 20


class Nobody:
    """Agents that say nothing of themselves: the test is the agent."""

    def __init__(self) -> None:
        self._ours, self._theirs = os.pipe()

    def fileno(self) -> int:
        return self._ours

    def read(self) -> AgentOutput:
        return AgentOutput((), False)

    def words(self) -> str:
        return ""

    def stop(self) -> None:
        pass

    def end(self, grace: float) -> None:
        os.close(self._ours)
        os.close(self._theirs)


class Scripted(LocalLaunch):
    """One node, whose agent the test is."""

    contact = ""

    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[StartedAgents]:
        self.contact = contact
        return [Nobody()]


@dataclass(frozen=True)
class OneNode(Local):
    launch: Any = None

    def open(self, settings: Settings, cache: Any = None) -> ClusterBackend:  # type: ignore[override]
        return ClusterBackend(self.launch, settings)


@pytest.fixture
def launch() -> Scripted:
    return Scripted({"n1": NodeOffer(CALLS, (), GIB)}, tempfile.gettempdir())


@pytest.fixture
def ex(launch: Scripted) -> Iterator[Executor]:
    executor = Executor(backend=OneNode(launch=launch))
    yield executor
    executor.kill_workers()
    executor.shutdown()


def hello() -> bytes:
    capacity = [CALLS, [], GIB]
    said = {"node": "n1", "host": "here", "pid": os.getpid(), "callyard": VERSION, "capacity": capacity}
    return json_frame(agent_protocol.HELLO, {**said, "python": list(sys.version_info[:2])})


def frames_until(link: Link, kind: int, count: int) -> list[bytes]:
    """Return messages with so many frames of this kind."""
    heads, seen = list[bytes](), 0
    while seen < count:
        for message in link.receive():
            heads.append(message.head)
            seen += sum(frame[0] == kind for frame in agent_protocol.split_frames(message.head))
    return heads


def test_results_over_the_first_connection_count(
    ex: Executor, launch: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_connection, "AT_ONCE", 1)  # so each turn of the loop reads one record of each connection
    futures = [ex.submit(same, number) for number in range(CALLS)]
    until(lambda: launch.contact)
    contact = Contact.read(launch.contact)
    go_on = threading.Event()
    with ExitStack() as stack:
        first, again = [Link.connect(contact, timeout=PATIENCE) for _ in range(2)]
        for link in (first, again):
            stack.callback(link.close)
        stack.callback(go_on.set)
        first.send(hello())
        calls = b"".join(frames_until(first, agent_protocol.CALL, CALLS))
        answers = list(agent_protocol.split_frames(Answer(1)(calls)))
        busy = threading.Event()
        Inside(ex).driver._tell(lambda: (busy.set(), go_on.wait(PATIENCE)))
        assert busy.wait(PATIENCE)
        again.send(hello())  # it is readable before the results are
        for kind, sequence, number, _, body in answers:
            first.send(agent_protocol.frames.encode(kind, sequence, number, 0, body))
        go_on.set()
        assert [future.result(PATIENCE) for future in futures] == [None] * CALLS
        frames_until(again, agent_protocol.WELCOME, 1)
