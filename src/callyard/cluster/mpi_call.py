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

_TO_MEET = 120.0  # s in which all ranks must be there: some MPI libraries wait for ever for what does not fit them


class SendToRank(Protocol):
    def __call__(self, post: AgentConnection, message: list[bytes | memoryview] | None = None) -> None:
        """Send a message, or what was collected for it."""


class MpiCall:
    """One such call. It ends when all ranks have, or with the first that fails."""

    def __init__(self, number: int, call: Call, members: list[NodeState], ways: list[str]) -> None:
        """`ways`: in which its ranks may be started; the first is this one."""
        self.number, self.call, self.members, self.ways = number, call, members, ways
        self.size = call.plan.shape.ranks
        self.started: StartedAgents | None = None
        self.until: float | None = time.monotonic() + _TO_MEET  # when its time is over
        self.complete = False  # all ranks are there
        self.over = False
        self._posts: dict[int, AgentConnection] = {}  # by rank
        self._results: dict[int, Lazy] = {}

    @property
    def begun(self) -> bool:
        """Whether a rank has come."""
        return bool(self._posts)

    @property
    def posts(self) -> Iterator[AgentConnection]:
        return iter(self._posts.values())

    def join(self, rank: int, post: AgentConnection, now: float) -> bool:
        """A rank is there; whether they all are, so that they can be sent the call."""
        self._posts[rank] = post
        self.complete = len(self._posts) == self.size
        if self.complete:
            limit = self.call.plan.run_time
            self.until = None if limit is None else now + limit
        return self.complete

    def hear(self, post: AgentConnection, message: list[bytes]) -> CallEnd | None:
        """How the call has ended, if it has."""
        for end in post.hear(message):
            if end.how != "result":
                return end
            self._results[self._rank_of(post)] = end.what
        if len(self._results) < self.size:
            return None
        return CallEnd(self.call, "result", RankResults([self._results[rank] for rank in range(self.size)]))

    def _rank_of(self, post: AgentConnection) -> int:
        return next(rank for rank, known in self._posts.items() if known is post)

    def gone(self, post: AgentConnection) -> bool:
        """Whether this rank has gone before it had a result."""
        return self._rank_of(post) not in self._results

    # -- why it has no result ------------------------------------------------------------------------------------

    def lost(self, words: str) -> CallEnd:
        nodes = ", ".join(member.name for member in self.members)
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

    def __init__(self, launch: Launch, fleet: NodePlacement, send: SendToRank, ends: deque[CallEnd]) -> None:
        self._launch, self._fleet, self._send, self._ends = launch, fleet, send, ends
        self._initializer: bytes | None = None
        self._spans: dict[int, MpiCall] = {}  # by number
        self._of_peers: dict[bytes, tuple[MpiCall, AgentConnection]] = {}
        self._numbers = count(1)

    def start(self, loop: EventLoop, spread: StartOnNodes, contact: str, initializer: bytes | None) -> None:
        """Let the launcher start the ranks of a call."""
        self._loop, self._contact, self._initializer = loop, contact, initializer
        self._begin(cast(Call, spread.call), spread.members, self._launch.ways.candidates())

    def _begin(self, call: Call, members: list[NodeState], ways: list[str]) -> None:
        number = next(self._numbers)
        span = self._spans[number] = MpiCall(number, call, members, ways)
        try:
            span.started = started = self._launch.start_ranks(_ranks(span, self._contact), ways[0])
        except OSError as error:
            del self._spans[number]
            self._end(span, span.lost(str(error)))
            return
        self._loop.watch(started.fileno(), partial(self._started_speaks, span, started))

    def _started_speaks(self, span: MpiCall, started: StartedAgents, mask: int) -> None:
        if started.read():
            return
        self._loop.forget(started.fileno())
        started.end(1.0)
        del self._spans[span.number]
        if span.over:
            return
        if span.begun:
            self._end(span, span.lost(started.words()))
        else:
            self._did_not_begin(span, started.words())  # perhaps the launcher does not know this way

    def _did_not_begin(self, span: MpiCall, why: str) -> None:
        advice = self._launch.ways.advice
        self._start_otherwise(span, lambda tried: words_of_none(span.call.future.name, span.size, why, advice(tried)))

    def _alone(self, span: MpiCall, size: int, library: str) -> None:
        """Its ranks do not know each other."""
        words, advice = words_of_alone(span.call.future.name, span.size, size, library), self._launch.ways.advice
        self._start_otherwise(span, lambda tried: f"{words}; {advice(tried)}")

    def _start_otherwise(self, span: MpiCall, words: Callable[[list[str]], str]) -> None:
        """Start other ranks in the next way, whose number these do not have; or say why there is none."""
        if len(span.ways) > 1:
            span.over = True
            self._stop(span)
            self._begin(span.call, span.members, span.ways[1:])
        else:
            self._end(span, CallEnd(span.call, "lost", SchedulerError(words(self._launch.ways.candidates()))))

    # -- what the ranks say --------------------------------------------------------------------------------------

    def greet(self, peer: bytes, said: dict[str, Any]) -> bool:
        """A rank is there; False if nobody waits for it."""
        span = self._spans.get(said["call"])
        if span is None or span.over:
            return False
        _, size, library = said["world"] or (0, span.size, "")
        if size != span.size:
            self._alone(span, size, library)
            return False
        post = AgentConnection(peer, span.members[0], said["host"], said["pid"])
        self._of_peers[peer] = span, post
        post.welcome(None, None, self._initializer)
        self._send(post)
        if span.join(said["rank"], post, time.monotonic()):
            if said["world"]:
                self._launch.ways.fits(span.ways[0])
            for rank in span.posts:
                for message in rank.send([span.call], None):
                    self._send(rank, message)
                self._send(rank)
        return True

    def hear(self, peer: bytes, message: list[bytes]) -> bool:
        """What a rank says, or with an empty message that it is gone; False if this peer is none."""
        span, post = self._of_peers.get(peer, (None, None))
        if span is None or post is None:
            return False
        if not message:
            del self._of_peers[peer]
            if span.gone(post) and not span.over:
                self._stop(span)  # the launcher may wait for the others; what it says tells why
            return True
        end = None if span.over else span.hear(post, message)
        if end is not None:
            self._end(span, end)
        return True

    # -- ends ----------------------------------------------------------------------------------------------------

    def _end(self, span: MpiCall, end: CallEnd) -> None:
        if span.over:
            return
        span.over = True
        self._fleet.spread_finished(span.call)
        self._ends.append(end)
        if end.how == "result":
            for post in span.posts:
                post.end()
                self._send(post)
        else:
            self._stop(span)

    def _stop(self, span: MpiCall) -> None:
        if span.started is not None:
            span.started.stop()

    def drop(self, call: Call) -> None:
        """One of its nodes is gone, and it is ended elsewhere."""
        for span in self._spans.values():
            if span.call is call:
                span.over = True
                self._stop(span)

    def stop(self) -> None:
        """End all of them, and start none otherwise."""
        for span in self._spans.values():
            del span.ways[1:]
            self._stop(span)

    def look_after(self, now: float) -> None:
        for span in list(self._spans.values()):
            if span.until is None or now < span.until or span.over:
                continue
            if span.complete:
                self._end(span, span.too_late())
            else:
                self._did_not_begin(span, f"after {_TO_MEET:.0f} s not all of them were there")

    def next_look(self) -> float | None:
        return min((s.until for s in self._spans.values() if s.until is not None and not s.over), default=None)

    def close(self, loop: EventLoop, grace: float) -> None:
        for span in self._spans.values():
            if span.started is not None:
                loop.forget(span.started.fileno())
                span.started.end(grace)
        self._spans.clear()

    def after_fork(self) -> None:
        for span in self._spans.values():
            if span.started is not None:
                span.started.after_fork()


def _ranks(span: MpiCall, contact: str) -> RanksToStart:
    shape, members = span.call.plan.shape, span.members
    variables = {**dict.fromkeys(THREADS, str(shape.cores_per_rank)), **dict(shape.environment)}
    per_node = -(-shape.ranks // len(members))
    arguments = [contact, str(span.number), str(span.size), str(shape.gpus // per_node)]
    names = [member.name for member in members]
    return RanksToStart(members[0].block, names, span.size, per_node, arguments, variables)
