"""Calls on several nodes, on the driver's side: a launcher starts the ranks, which connect, get the call, and answer.

Each rank is a process that connects to the driver as an agent does (`mpi_remote_rank.py`), but for one call only.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Protocol, cast

from ..errors import CallyardError, SchedulerError, TimeLimitExceeded, WorkerLost
from ..pool.call import Call
from ..pool.mpi_results import RankCollector, RankResults
from ..system.exit_status import too_long
from ..transport.agent_protocol import Outgoing
from ..transport.channel_messages import Message
from ..transport.event_loop import EventLoop
from ..utils.environment import THREADS
from ..worker.communicator import words_of_alone, words_of_none
from ..worker.end_sequence import GRACE
from ..worker.exceptions import words_of_some_again
from .agent_connection import AgentConnection, CallEnd
from .base import RankStarter, RanksToStart, StartedAgents
from .hello import Hello, RankPlace
from .node_placement import NodePlacement
from .placement_state import NodeState, StartOnNodes

_JOIN_TIMEOUT = 120.0  # s for all ranks to connect: an MPI library of the wrong kind may wait for ever
_LATE = 5.0  # s after the grace of a call, in which its ranks should have ended by themselves
_KILL_WAIT = 30.0  # s of grace where a scheduler takes nodes away: Slurm's default


class SendToRank(Protocol):
    def __call__(self, rank: AgentConnection, /, message: Outgoing | None = None) -> None:
        """Send a message, or the frames collected for the rank."""


class MpiCall:
    """One call on several nodes. It ends when all ranks have given their results, or with the first failure."""

    def __init__(self, number: int, call: Call, nodes: list[NodeState], ways: list[str], now: float) -> None:
        """Make a call whose ranks are being started in the first of `ways`; the others are still to be tried."""
        self.number, self.call, self.nodes, self.ways = number, call, nodes, ways
        self.size = call.plan.shape.ranks
        self.started: StartedAgents | None = None
        self.until: float | None = now + _JOIN_TIMEOUT  # the end of its time
        self.complete = False  # all ranks have connected
        self.over = False
        self.left = ""  # for people: a node of the call that its scheduler takes away
        self._ends_at: float | None = None  # the end of the `run_time`
        self._told_to_end = False
        self._ranks: dict[int, AgentConnection] = {}
        self._results = RankCollector(self.size)

    @property
    def begun(self) -> bool:
        """True if a rank has connected."""
        return bool(self._ranks)

    @property
    def ranks(self) -> Iterator[AgentConnection]:
        return iter(self._ranks.values())

    def join(self, number: int, rank: AgentConnection, now: float) -> bool:
        """Add a rank that has connected; return True if all ranks are there, and the call can be sent."""
        self._ranks[number] = rank
        rank.rank = number
        self.complete = len(self._ranks) == self.size
        # From here on the limit of the call counts, in the place of the time to connect. The ranks keep it themselves.
        if self.complete:
            limit = self.call.plan.run_time
            self._ends_at = None if limit is None else now + limit
            self.until = None if self._ends_at is None else self._ends_at + self._grace(GRACE) + _LATE
        return self.complete

    def _grace(self, usual: float) -> float:
        grace = self.call.plan.grace
        return usual if grace is None else grace

    def told_to_end(self, now: float, grace: float) -> None:
        """Note that the ranks are sent SIGTERM now; `grace` (s) counts for a call without its own."""
        self._told_to_end = True
        until = now + self._grace(grace) + _LATE
        self.until = until if self.until is None else min(self.until, until)

    def is_ending(self, now: float) -> bool:
        """Return True if its ranks end one by one, each within the grace: then the first end says nothing."""
        return self._told_to_end or (self._ends_at is not None and now >= self._ends_at)

    def receive(self, rank: AgentConnection, message: Message) -> CallEnd | None:
        """Take in a message of a rank; return the end of the call if the message has it."""
        for end in rank.receive(message):
            if end.how != "result":
                return end
            again, self.call.asks_again = self.call.asks_again, False  # the next rank may end without `Again`
            results = self._results.add(self._number_of(rank), end.what, again)
            if results is not None:
                return self._complete(results)
        return None

    def _complete(self, results: RankResults) -> CallEnd:
        if results.ranks_disagree:
            words = words_of_some_again(self.call.future.name, results.again, self.size)
            return CallEnd(self.call, "lost", CallyardError(words))
        self.call.asks_again = results.again > 0
        return CallEnd(self.call, "result", results)

    def _number_of(self, rank: AgentConnection) -> int:
        return next(number for number, known in self._ranks.items() if known is rank)

    def has_result_of(self, rank: AgentConnection) -> bool:
        return self._number_of(rank) in self._results

    # -- errors ------------------------------------------------------------------------------------------------------

    def lost(self, words: str, now: float = 0.0) -> CallEnd:
        """Return the end without a result. After the end of the `run_time` that is the reason, whatever the words."""
        if self._ends_at is not None and now >= self._ends_at:
            return self._too_late()
        nodes = ", ".join(node.name for node in self.nodes)
        error = WorkerLost(
            f"{self.call.future.name!r} lost its ranks on {nodes}" + (f": {words}" if words else "")
            + ("" if self.call.plan.restarts else "; restart_limit=1 would run such a call again")
        )  # fmt: skip
        return CallEnd(self.call, "lost", error)

    def _too_late(self) -> CallEnd:
        words = too_long(repr(self.call.future.name), self.call.plan.run_time or 0.0)
        return CallEnd(self.call, "lost", TimeLimitExceeded(words))


class MpiCalls:
    """The calls on several nodes of one driver. Only the driver's I/O thread may use this."""

    def __init__(
        self,
        starter: RankStarter,
        placement: NodePlacement,
        send: SendToRank,
        ends: deque[CallEnd],
        lost: list[tuple[Call, str]],
    ) -> None:
        """Make the calls; `lost` takes the calls whose nodes are gone, with the reason in words, `ends` all others."""
        self._starter, self._placement, self._send, self._ends, self._lost = starter, placement, send, ends, lost
        self._initializer: bytes | None = None
        self._mpi_calls: dict[int, MpiCall] = {}  # by number
        self._by_peer: dict[int, tuple[MpiCall, AgentConnection]] = {}
        self._numbers = count(1)

    def start(self, loop: EventLoop, start: StartOnNodes, contact: str, initializer: bytes | None) -> None:
        """Let the launcher start the ranks of a call; return at once."""
        self._loop, self._contact, self._initializer = loop, contact, initializer
        self._begin(cast(Call, start.call), start.nodes, self._starter.rank_launchers.candidates())

    def _begin(self, call: Call, nodes: list[NodeState], ways: list[str]) -> None:
        number = next(self._numbers)
        mpi_call = self._mpi_calls[number] = MpiCall(number, call, nodes, ways, time.monotonic())
        try:
            mpi_call.started = started = self._starter.start_ranks(_to_start(mpi_call, self._contact), ways[0])
        except OSError as error:
            del self._mpi_calls[number]
            self._end(mpi_call, mpi_call.lost(str(error)))
            return
        self._loop.watch(started.fileno(), partial(self._on_output, mpi_call, started))

    def _on_output(self, mpi_call: MpiCall, started: StartedAgents, mask: int) -> None:
        if not started.read().over:
            return
        self._loop.forget(started.fileno())
        started.end(1.0)
        del self._mpi_calls[mpi_call.number]
        if mpi_call.over:
            return
        if mpi_call.begun:
            self._end(mpi_call, mpi_call.lost(started.words(), time.monotonic()))
        else:  # perhaps the launcher does not know this way
            self._did_not_begin(mpi_call, started.words())

    def _did_not_begin(self, mpi_call: MpiCall, why: str) -> None:
        name, size, advice = mpi_call.call.future.name, mpi_call.size, self._starter.rank_launchers.advice
        self._start_in_next_way(mpi_call, lambda tried: words_of_none(name, size, why, advice(tried)))

    def _is_alone(self, mpi_call: MpiCall, size: int, library: str) -> None:
        """Try the next way, because a rank has not found all others: the launcher and its MPI library do not fit."""
        words = words_of_alone(mpi_call.call.future.name, mpi_call.size, size, library)
        advice = self._starter.rank_launchers.advice
        self._start_in_next_way(mpi_call, lambda tried: f"{words}; {advice(tried)}")

    def _start_in_next_way(self, mpi_call: MpiCall, message: Callable[[list[str]], str]) -> None:
        """Start the ranks anew in the next way; without one, fail the call with the message.

        The new ranks get a new number, so that late ranks of the first attempt are refused.
        """
        if len(mpi_call.ways) > 1:
            mpi_call.over = True
            # Over before the stop, so that the end of its output ends nothing more.
            self._stop(mpi_call)
            self._begin(mpi_call.call, mpi_call.nodes, mpi_call.ways[1:])
        else:
            error = SchedulerError(message(self._starter.rank_launchers.candidates()))
            self._end(mpi_call, CallEnd(mpi_call.call, "lost", error))

    # -- messages of the ranks ----------------------------------------------------------------------------------------

    def on_hello(self, peer: int, hello: Hello, place: RankPlace) -> bool:
        """Take in a rank that has connected; return False if no call waits for this rank."""
        mpi_call = self._mpi_calls.get(place.call)
        if mpi_call is None or mpi_call.over:
            return False
        _, size, library = place.world or (0, mpi_call.size, "")
        if size != mpi_call.size:
            self._is_alone(mpi_call, size, library)
            return False
        rank = AgentConnection(peer, mpi_call.nodes[0], hello)
        self._by_peer[peer] = mpi_call, rank
        rank.welcome(None, None, self._initializer)
        self._send(rank)
        if mpi_call.join(place.rank, rank, time.monotonic()):
            if place.world is not None:
                self._starter.rank_launchers.fits(mpi_call.ways[0])
            self._send_call(mpi_call)
        return True

    def _send_call(self, mpi_call: MpiCall) -> None:
        """Send the call to all ranks, once all are there: a rank that began alone might wait for ever."""
        for rank in mpi_call.ranks:
            for message in rank.send([mpi_call.call], None):
                self._send(rank, message)
            self._send(rank)

    def receive(self, peer: int, message: Message | None) -> bool:
        """Take in a message of a rank, None at its end; return False if this peer is no rank."""
        mpi_call, rank = self._by_peer.get(peer, (None, None))
        if mpi_call is None or rank is None:
            return False
        if message is None:
            del self._by_peer[peer]
            if not (mpi_call.has_result_of(rank) or mpi_call.over or mpi_call.is_ending(time.monotonic())):
                self._stop(mpi_call)  # the launcher may wait for the other ranks; its last words tell the reason
            return True
        end = None if mpi_call.over else mpi_call.receive(rank, message)
        if end is not None:
            self._end(mpi_call, end)
        return True

    # -- ends ----------------------------------------------------------------------------------------------------

    def _end(self, mpi_call: MpiCall, end: CallEnd) -> None:
        # Only the first end counts: after one failure the other ranks may fail, too.
        if mpi_call.over:
            return
        mpi_call.over = True
        # The nodes are free before the future ends, so that a callback's calls find room.
        self._placement.finished_everywhere(mpi_call.call)
        if end.how == "lost" and mpi_call.left:
            self._lost.append((mpi_call.call, mpi_call.left))
        else:
            self._ends.append(end)
        if end.how == "result":
            # Each rank ends by itself then, and the launcher with the last one.
            for rank in mpi_call.ranks:
                rank.end()
                self._send(rank)
        else:
            self._stop(mpi_call)

    def _stop(self, mpi_call: MpiCall) -> None:
        if mpi_call.started is not None:
            mpi_call.started.stop()

    def drop(self, call: Call) -> None:
        """End the ranks of a call with a lost node; the driver ends the future."""
        for mpi_call in self._mpi_calls.values():
            if mpi_call.call is call:
                mpi_call.over = True
                self._stop(mpi_call)

    def signal(self, signum: int) -> None:
        """End the ranks of all calls by this signal, and start none in another way."""
        for mpi_call in self._mpi_calls.values():
            del mpi_call.ways[1:]
            if signum == signal.SIGTERM and mpi_call.complete:
                self._tell_to_end(mpi_call)
            else:
                self._stop(mpi_call)

    def lets_end(self, call: Call, words: str) -> bool:
        """Let the ranks of a call end, because their scheduler takes nodes away; return False if they do not run.

        They are told nothing: the scheduler sends SIGTERM to them, too, and SIGKILL when their time is over.
        """
        for mpi_call in self._mpi_calls.values():
            if mpi_call.call is call and mpi_call.complete and not mpi_call.over:
                mpi_call.left = words
                mpi_call.told_to_end(time.monotonic(), _KILL_WAIT)
                return True
        return False

    @property
    def leaving(self) -> list[Call]:
        """The calls whose ranks end on nodes that are not there any more for other calls."""
        return [mpi_call.call for mpi_call in self._mpi_calls.values() if mpi_call.left and not mpi_call.over]

    def _tell_to_end(self, mpi_call: MpiCall) -> None:
        mpi_call.told_to_end(time.monotonic(), GRACE)
        for rank in mpi_call.ranks:
            rank.signal(signal.SIGTERM)
            self._send(rank)

    def look_after(self, now: float) -> None:
        """End the calls whose time is over."""
        # A copy, because the start in another way adds a call.
        for mpi_call in list(self._mpi_calls.values()):
            if mpi_call.until is None or now < mpi_call.until or mpi_call.over:
                continue
            if mpi_call.complete:
                self._end(mpi_call, mpi_call.lost("they did not end when they were told to", now))
            else:
                self._did_not_begin(mpi_call, f"after {_JOIN_TIMEOUT:.0f} s not all of them were there")

    def next_look(self) -> float | None:
        return min((c.until for c in self._mpi_calls.values() if c.until is not None and not c.over), default=None)

    def close(self, loop: EventLoop, grace: float) -> None:
        for mpi_call in self._mpi_calls.values():
            if mpi_call.started is not None:
                loop.forget(mpi_call.started.fileno())
                mpi_call.started.end(grace)
        self._mpi_calls.clear()


def _to_start(mpi_call: MpiCall, contact: str) -> RanksToStart:
    shape, need, nodes = mpi_call.call.plan.shape, mpi_call.call.need, mpi_call.nodes
    variables = {**dict.fromkeys(THREADS, str(shape.cores_per_rank)), **dict(shape.environment)}
    per_node = need.ranks_per_node or shape.ranks
    gpus = "" if need.rank_options.gpu_bind else str(shape.gpus // per_node)
    arguments = [contact, str(mpi_call.number), str(mpi_call.size), gpus]
    names = [node.name for node in nodes]
    each = shape.cores_per_rank, shape.gpus // per_node
    return RanksToStart(nodes[0].block, names, mpi_call.size, per_node, arguments, variables, need.rank_options, *each)
