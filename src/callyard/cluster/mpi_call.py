"""A call that runs on several nodes, from the driver's side: its ranks come, get the call, and give their results."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, Protocol, cast

from ..errors import SchedulerError, TimeLimitExceeded, WorkerLost
from ..futures import Lazy
from ..pool.call import Call
from ..pool.mpi_group import RankResults
from ..system.exit_status import too_long
from ..transport.event_loop import EventLoop
from ..utils.environment import THREADS
from ..worker.communicator import words_of_alone, words_of_none
from .agent_connection import AgentConnection, CallEnd
from .launch import Launch, RanksToStart, StartedAgents
from .node import NodeState, StartOnNodes
from .node_placement import NodePlacement

_JOIN_TIMEOUT = 120.0  # s in which all ranks must be there: some MPI libraries wait for ever for what does not fit them


class SendToRank(Protocol):
    def __call__(self, agent: AgentConnection, message: list[bytes | memoryview] | None = None) -> None:
        """Send a message, or what was collected for it."""


class MpiCall:
    """One such call. It ends when all ranks have, or with the first that fails."""

    def __init__(self, number: int, call: Call, nodes: list[NodeState], candidates: list[str]) -> None:
        """`candidates`: in which its ranks may be started; the first is this one."""
        self.number, self.call, self.nodes, self.candidates = number, call, nodes, candidates
        self.size = call.plan.shape.ranks
        self.started: StartedAgents | None = None
        self.until: float | None = time.monotonic() + _JOIN_TIMEOUT  # when its time is over
        self.complete = False  # all ranks are there
        self.over = False
        self._agents: dict[int, AgentConnection] = {}  # by rank
        self._results: dict[int, Lazy] = {}

    @property
    def begun(self) -> bool:
        """Whether a rank has come."""
        return bool(self._agents)

    @property
    def agents(self) -> Iterator[AgentConnection]:
        return iter(self._agents.values())

    def join(self, rank: int, agent: AgentConnection, now: float) -> bool:
        """A rank is there; whether they all are, so that they can be sent the call."""
        self._agents[rank] = agent
        self.complete = len(self._agents) == self.size
        if self.complete:
            limit = self.call.plan.run_time
            self.until = None if limit is None else now + limit
        return self.complete

    def receive(self, agent: AgentConnection, message: list[bytes]) -> CallEnd | None:
        """How the call has ended, if it has."""
        for end in agent.receive(message):
            if end.how != "result":
                return end
            self._results[self._rank_of(agent)] = end.what
        if len(self._results) < self.size:
            return None
        return CallEnd(self.call, "result", RankResults([self._results[rank] for rank in range(self.size)]))

    def _rank_of(self, agent: AgentConnection) -> int:
        return next(rank for rank, known in self._agents.items() if known is agent)

    def gone(self, agent: AgentConnection) -> bool:
        """Whether this rank has gone before it had a result."""
        return self._rank_of(agent) not in self._results

    # -- why it has no result ------------------------------------------------------------------------------------

    def lost(self, words: str) -> CallEnd:
        nodes = ", ".join(node.name for node in self.nodes)
        error = WorkerLost(
            f"{self.call.future.name!r} lost its ranks on {nodes}" + (f": {words}" if words else "")
            + ("" if self.call.plan.restarts else "; restart_limit=1 would run such a call again")
        )  # fmt: skip
        return CallEnd(self.call, "lost", error)

    def too_late(self) -> CallEnd:
        words = too_long(repr(self.call.future.name), self.call.plan.run_time or 0.0)
        return CallEnd(self.call, "lost", TimeLimitExceeded(words))


class MpiCalls:
    """Those of a crew. For its I/O thread."""

    def __init__(self, launch: Launch, placement: NodePlacement, send: SendToRank, ends: deque[CallEnd]) -> None:
        self._launch, self._placement, self._send, self._ends = launch, placement, send, ends
        self._initializer: bytes | None = None
        self._mpi_calls: dict[int, MpiCall] = {}  # by number
        self._by_peer: dict[bytes, tuple[MpiCall, AgentConnection]] = {}
        self._numbers = count(1)

    def start(self, loop: EventLoop, start: StartOnNodes, contact: str, initializer: bytes | None) -> None:
        """Let the launcher start the ranks of a call."""
        self._loop, self._contact, self._initializer = loop, contact, initializer
        self._begin(cast(Call, start.call), start.nodes, self._launch.rank_launchers.candidates())

    def _begin(self, call: Call, nodes: list[NodeState], candidates: list[str]) -> None:
        number = next(self._numbers)
        mpi_call = self._mpi_calls[number] = MpiCall(number, call, nodes, candidates)
        try:
            mpi_call.started = started = self._launch.start_ranks(_to_start(mpi_call, self._contact), candidates[0])
        except OSError as error:
            del self._mpi_calls[number]
            self._end(mpi_call, mpi_call.lost(str(error)))
            return
        self._loop.watch(started.fileno(), partial(self._on_output, mpi_call, started))

    def _on_output(self, mpi_call: MpiCall, started: StartedAgents, mask: int) -> None:
        if started.read():
            return
        self._loop.forget(started.fileno())
        started.end(1.0)
        del self._mpi_calls[mpi_call.number]
        if mpi_call.over:
            return
        if mpi_call.begun:
            self._end(mpi_call, mpi_call.lost(started.words()))
        else:
            self._did_not_begin(mpi_call, started.words())  # perhaps the launcher does not know this way

    def _did_not_begin(self, mpi_call: MpiCall, why: str) -> None:
        advice = self._launch.rank_launchers.advice
        self._start_in_next_way(
            mpi_call, lambda tried: words_of_none(mpi_call.call.future.name, mpi_call.size, why, advice(tried))
        )

    def _ranks_are_alone(self, mpi_call: MpiCall, size: int, library: str) -> None:
        """Its ranks do not know each other."""
        words, advice = (
            words_of_alone(mpi_call.call.future.name, mpi_call.size, size, library),
            self._launch.rank_launchers.advice,
        )
        self._start_in_next_way(mpi_call, lambda tried: f"{words}; {advice(tried)}")

    def _start_in_next_way(self, mpi_call: MpiCall, words: Callable[[list[str]], str]) -> None:
        """Start other ranks in the next way, whose number these do not have; or say why there is none."""
        if len(mpi_call.candidates) > 1:
            mpi_call.over = True
            self._stop(mpi_call)
            self._begin(mpi_call.call, mpi_call.nodes, mpi_call.candidates[1:])
        else:
            self._end(
                mpi_call,
                CallEnd(mpi_call.call, "lost", SchedulerError(words(self._launch.rank_launchers.candidates()))),
            )

    # -- what the ranks say --------------------------------------------------------------------------------------

    def on_hello(self, peer: bytes, said: dict[str, Any]) -> bool:
        """A rank is there; False if nobody waits for it."""
        mpi_call = self._mpi_calls.get(said["call"])
        if mpi_call is None or mpi_call.over:
            return False
        _, size, library = said["world"] or (0, mpi_call.size, "")
        if size != mpi_call.size:
            self._ranks_are_alone(mpi_call, size, library)
            return False
        agent = AgentConnection(peer, mpi_call.nodes[0], said["host"], said["pid"])
        self._by_peer[peer] = mpi_call, agent
        agent.welcome(None, None, self._initializer)
        self._send(agent)
        if mpi_call.join(said["rank"], agent, time.monotonic()):
            if said["world"]:
                self._launch.rank_launchers.fits(mpi_call.candidates[0])
            for rank in mpi_call.agents:
                for message in rank.send([mpi_call.call], None):
                    self._send(rank, message)
                self._send(rank)
        return True

    def receive(self, peer: bytes, message: list[bytes]) -> bool:
        """What a rank says, or with an empty message that it is gone; False if this peer is none."""
        mpi_call, agent = self._by_peer.get(peer, (None, None))
        if mpi_call is None or agent is None:
            return False
        if not message:
            del self._by_peer[peer]
            if mpi_call.gone(agent) and not mpi_call.over:
                self._stop(mpi_call)  # the launcher may wait for the others; what it says tells why
            return True
        end = None if mpi_call.over else mpi_call.receive(agent, message)
        if end is not None:
            self._end(mpi_call, end)
        return True

    # -- ends ----------------------------------------------------------------------------------------------------

    def _end(self, mpi_call: MpiCall, end: CallEnd) -> None:
        if mpi_call.over:
            return
        mpi_call.over = True
        self._placement.finished_everywhere(mpi_call.call)
        self._ends.append(end)
        if end.how == "result":
            for agent in mpi_call.agents:
                agent.end()
                self._send(agent)
        else:
            self._stop(mpi_call)

    def _stop(self, mpi_call: MpiCall) -> None:
        if mpi_call.started is not None:
            mpi_call.started.stop()

    def drop(self, call: Call) -> None:
        """One of its nodes is gone, and it is ended elsewhere."""
        for mpi_call in self._mpi_calls.values():
            if mpi_call.call is call:
                mpi_call.over = True
                self._stop(mpi_call)

    def stop(self) -> None:
        """End all of them, and start none otherwise."""
        for mpi_call in self._mpi_calls.values():
            del mpi_call.candidates[1:]
            self._stop(mpi_call)

    def look_after(self, now: float) -> None:
        for mpi_call in list(self._mpi_calls.values()):
            if mpi_call.until is None or now < mpi_call.until or mpi_call.over:
                continue
            if mpi_call.complete:
                self._end(mpi_call, mpi_call.too_late())
            else:
                self._did_not_begin(mpi_call, f"after {_JOIN_TIMEOUT:.0f} s not all of them were there")

    def next_look(self) -> float | None:
        return min((s.until for s in self._mpi_calls.values() if s.until is not None and not s.over), default=None)

    def close(self, loop: EventLoop, grace: float) -> None:
        for mpi_call in self._mpi_calls.values():
            if mpi_call.started is not None:
                loop.forget(mpi_call.started.fileno())
                mpi_call.started.end(grace)
        self._mpi_calls.clear()

    def after_fork(self) -> None:
        for mpi_call in self._mpi_calls.values():
            if mpi_call.started is not None:
                mpi_call.started.after_fork()


def _to_start(mpi_call: MpiCall, contact: str) -> RanksToStart:
    shape, nodes = mpi_call.call.plan.shape, mpi_call.nodes
    variables = {**dict.fromkeys(THREADS, str(shape.cores_per_rank)), **dict(shape.environment)}
    per_node = -(-shape.ranks // len(nodes))
    arguments = [contact, str(mpi_call.number), str(mpi_call.size), str(shape.gpus // per_node)]
    names = [node.name for node in nodes]
    return RanksToStart(nodes[0].block, names, mpi_call.size, per_node, arguments, variables)
