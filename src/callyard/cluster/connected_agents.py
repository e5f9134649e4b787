"""The agents of a driver: their connections, the messages to and from them, and their start and end.

All of this belongs to the I/O thread of the driver, so there is no lock.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

from ..errors import VersionMismatch, WorkerLost
from ..events.recorder import Recorder
from ..pool.call import Call
from ..pool.call_shape import NodeNeed
from ..transport import agent_protocol
from ..transport.agent_protocol import Outgoing, json_frame
from ..transport.channel_messages import Message
from ..transport.event_loop import EventLoop
from ..transport.message_reader import Reserve
from ..version import VERSION
from .agent_connection import AgentConnection, CallEnd
from .base import GivenUpCalls, Launch
from .driver_channel import DriverChannel
from .hello import Hello
from .mpi_call import MpiCalls
from .node_placement import NodePlacement
from .placement_state import NodeState, StartOnNodes

_STALL = 0.1  # s without a result after which calls sent ahead are taken back
_NEWS_APART = 2.0  # s at most between two processes of a node that the scheduler ends: a busy node is slow


class DoubtfulEnd(NamedTuple):
    """The end of a call by SIGTERM: of the call alone, or with the node's part of the job.

    The news of the latter come soon.
    """

    until: float  # without news of the node by then, the end was of the call alone
    agent: AgentConnection
    end: CallEnd


class Agents:
    """The agents of one driver, between the decisions of its placement and the encrypted channel."""

    def __init__(
        self,
        launch: Launch,
        placement: NodePlacement,
        max_workers: int | None,
        max_tasks: int | None,
        initializer: bytes | None,
        reserve: Reserve,
    ) -> None:
        self._channel = DriverChannel(launch.listen, reserve)
        self._launch, self._placement = launch, placement
        self._max_workers, self._max_tasks, self._initializer = max_workers, max_tasks, initializer
        self.ends: deque[CallEnd] = deque()  # of calls; the driver ends their futures
        self.lost: list[tuple[Call, str]] = []  # calls whose nodes are gone, with the reason in words
        self.returned: list[Call] = []  # calls that were sent, but did not begin
        self.doubtful: list[DoubtfulEnd] = []
        self._by_peer: dict[int, AgentConnection] = {}
        self._by_node: dict[int, AgentConnection] = {}
        self._by_name: dict[str, AgentConnection] = {}  # of the node; jobs may share one
        self._to_flush: dict[AgentConnection, None] = {}
        self._dropped: deque[AgentConnection] = deque()  # with buffers to forget
        self._starter = launch.make_starter(placement)
        self._starter_looks_at: float | None = None  # the time of the next look, if no event comes before
        self._mpi_calls = MpiCalls(launch, placement, self._transmit, self.ends, self.lost)
        self._last_look = 0.0
        self.recorder: Recorder | None = None  # is told where calls begin

    # -- to the agents ---------------------------------------------------------------------------------

    def send(self, node: NodeState, calls: Sequence[Call]) -> None:
        """Add the calls to the message for the node, and send full messages."""
        agent = self._by_node[node.number]
        agent.last_activity = time.monotonic()
        workers = None if self._max_workers is None else node.slots
        for message in agent.send(calls, workers):
            self._transmit(agent, message)
        self._to_flush[agent] = None

    def start_on_nodes(self, loop: EventLoop, start: StartOnNodes) -> None:
        """Start a call on several nodes."""
        # Idle workers of a node may hold GPUs and memory that the ranks need.
        for node in start.nodes:
            agent = self._by_node[node.number]
            agent.release_idle_workers()
            self._to_flush[agent] = None
        self._mpi_calls.start(loop, start, self._channel.contact, self._initializer)
        if self.recorder is not None:
            call = cast(Call, start.call)
            self.recorder.started(call.future, start.nodes[0].name, f"{len(start.nodes)} nodes", call.attempt)

    def signal(self, signum: int) -> None:
        """End all workers by this signal."""
        self._mpi_calls.signal(signum)
        for agent in self._by_peer.values():
            agent.signal(signum)
            self._to_flush[agent] = None

    def end_call(self, call: Call) -> bool:
        """Let the agent of a call end it; return False if no agent has it."""
        for agent in self._by_peer.values():
            if agent.end_call(call):
                self._to_flush[agent] = None
                return True
        return False

    def nodes_to_come(self, kind: int) -> str:
        """Return in words what becomes of nodes that are not there yet; "" if none is going to come."""
        return self._starter.nodes_to_come(kind)

    def forget_buffers(self) -> None:
        """Let agents forget the buffers of calls that have ended, which take memory on their nodes."""
        while self._dropped:
            agent = self._dropped.popleft()
            if agent.peer in self._by_peer and agent.forget_buffers():
                self._transmit(agent)

    def _note_dropped(self, agent: AgentConnection) -> None:
        """Note an agent with buffers to forget. A finalizer calls this, in any thread: so there is only a note here."""
        self._dropped.append(agent)
        self._channel.wake()  # an idle driver would sleep on, and the node keep the memory

    def flush(self) -> None:
        """Send the collected frames of each agent, as one message each."""
        agents, self._to_flush = self._to_flush, {}
        for agent in agents:
            if agent.sender:
                self._transmit(agent)

    def _transmit(self, agent: AgentConnection, message: Outgoing | None = None) -> None:
        self._channel.send(agent.peer, agent.sender.take() if message is None else (message,))

    # -- from the agents -------------------------------------------------------------------------------

    def _receive(self, mask: int) -> None:
        for peer, message in self._channel.receive():
            agent = self._by_peer.get(peer)
            if agent is None:
                if not self._mpi_calls.receive(peer, message) and message is not None:
                    self._on_hello(peer, message)
            elif message is not None:
                self._on_message(agent, message)
            else:
                self._gone(agent)

    def _on_message(self, agent: AgentConnection, message: Message) -> None:
        ends = list(agent.receive(message))
        if agent.leaving and not agent.node.leaving:
            self._begins_to_leave(agent)
        for end in ends:
            self._take_end(agent, end)
        # The futures end later, in the driver: by then the nodes have their next calls.
        self._placement.finished(agent.node, [end.call for end in ends])
        if agent.leaving and agent.ended:
            agent.end()  # the permission to go
            self._to_flush[agent] = None
        agent.last_activity = time.monotonic()
        if agent.returned:
            self._placement.finished(agent.node, agent.returned)
            self.returned.extend(agent.returned)
            agent.returned = []
        if agent.taken_back:
            agent.taken_back = False
            self._placement.withdrawn(agent.node)
            for call in agent.in_flight.values():
                call.pace.note(_STALL)  # the function is not short after all

    # -- agents that the scheduler ends ----------------------------------------------------------------

    def _begins_to_leave(self, agent: AgentConnection) -> None:
        """Give no more calls to an agent at the end of its part of the job.

        The agent gives back all calls sent until END.
        """
        agent.node.leaving = True
        agent.end()
        self._to_flush[agent] = None
        self.judge_doubtful(time.monotonic())

    def _take_end(self, agent: AgentConnection, end: CallEnd) -> None:
        """Take in the end of a call. One by SIGTERM may be the first news of the end of the node's part of its job."""
        if _by_signal(end) and not agent.leaving and end.what.exitcode == -signal.SIGTERM:
            self.doubtful.append(DoubtfulEnd(time.monotonic() + _NEWS_APART, agent, end))
        else:
            self._judge(agent, end)

    def _judge(self, agent: AgentConnection, end: CallEnd) -> None:
        if agent.leaving and _by_signal(end) and not agent.told_to_kill:
            self.lost.append((end.call, self._words_of_leaving(agent)))
        else:
            self.ends.append(end)

    def judge_doubtful(self, now: float) -> None:
        """End the calls that SIGTERM has ended, once their nodes are known to leave, or not heard to."""
        doubtful, self.doubtful = self.doubtful, []
        for each in doubtful:
            if each.agent.leaving or each.agent.told_to_kill or now >= each.until:
                self._judge(each.agent, each.end)
            else:
                self.doubtful.append(each)

    def _words_of_leaving(self, agent: AgentConnection) -> str:
        where = self._launch.describe_node(agent.node.name)
        return f"the agent on {where} was told to end, as at a preemption, scancel, or the end of its job's time"

    def _on_hello(self, peer: int, message: Message) -> None:
        for kind, _, _, _, body in agent_protocol.split_frames(message.head):
            if kind == agent_protocol.HELLO:
                hello = Hello.load(json.loads(body))
                why = self._admit(peer, hello, _mismatch_of(hello))
                if why is not None:
                    self._channel.send(peer, [Outgoing(json_frame(agent_protocol.REFUSED, why))])

    def _admit(self, peer: int, hello: Hello, mismatch: VersionMismatch | None) -> str | None:
        """Add a rank, or the agent of a node; return the reason if it is refused."""
        if hello.rank is not None:
            if mismatch is not None:
                return str(mismatch)
            known = self._mpi_calls.on_hello(peer, hello, hello.rank)
            return None if known else "nobody waits for this rank any more"
        old = self._by_name.get(hello.key)
        if old is not None and mismatch is None:
            if old.pid != hello.pid:
                return f"node {hello.node} has an agent already"
            # Connected again before the end of the first connection was noticed: calls may have ended there meanwhile.
            for message in self._channel.last_messages(old.peer):
                self._on_message(old, message)
            self._gone(old)
        node = self._starter.admit(hello, time.monotonic(), mismatch)
        if isinstance(node, str):
            return node
        agent = AgentConnection(peer, node, hello, self._note_dropped)
        self._by_peer[peer] = self._by_node[node.number] = self._by_name[hello.key] = agent
        agent.welcome(self._max_workers and 1, self._max_tasks, self._initializer, self.recorder)
        self._transmit(agent)  # a message of its own: the agent waits for this
        return None

    def _gone(self, agent: AgentConnection) -> None:
        del self._by_peer[agent.peer], self._by_node[agent.node.number], self._by_name[agent.key]
        self._to_flush.pop(agent, None)
        self._starter.gone(agent.node, time.monotonic())
        words = f"the agent on {self._launch.describe_node(agent.node.name)} is gone or cannot be reached"
        if agent.leaving:
            words = self._words_of_leaving(agent)
        # Calls on several nodes have ranks on other nodes, too, which must end.
        for call in cast("list[Call]", self._placement.leave(agent.node)):
            if call.need.by_scheduler:
                if agent.leaving and self._mpi_calls.lets_end(call, words):
                    continue
                self._mpi_calls.drop(call)
            self.lost.append((call, words))

    @property
    def ranks_leave(self) -> list[Call]:
        """The calls whose ranks end on nodes that are taken away."""
        return self._mpi_calls.leaving

    def abandon(self) -> None:
        """Treat all agents as gone: each has had its time to end."""
        for agent in list(self._by_peer.values()):
            self._gone(agent)

    # -- calls behind a long one ------------------------------------------------------------------------

    def take_back_stalled(self, now: float) -> None:
        """Take back calls that were sent ahead to nodes without new results: another node may be idle."""
        if not self._placement.ahead or now - self._last_look < _STALL:
            return
        if self._channel.behind:
            return
        self._last_look = now
        for node in list(self._placement.ahead):
            agent = self._by_node[node.number]
            if not node.ahead:
                del self._placement.ahead[node]
            elif not node.withdrawing and now - agent.last_activity > _STALL:
                self._placement.withdraw(node)
                agent.take_back()
                self._to_flush[agent] = None

    def next_look(self) -> float | None:
        """Return the time of the next task that no message brings about; None if there is none."""
        looks = (self._starter_looks_at, self._mpi_calls.next_look(), self._channel_looks_at())
        times = [when for when in looks if when is not None]
        times += [each.until for each in self.doubtful]
        if self._placement.ahead:
            times.append(self._last_look + _STALL)
        return min(times, default=None)

    def _channel_looks_at(self) -> float | None:
        return self._channel.next_look(self._placement.busy)

    # -- starts of agents ------------------------------------------------------------------------------

    def look_after(self, loop: EventLoop, now: float, wanted: bool) -> None:
        """Start missing agents, end agents on nodes to give back, and end MPI calls with no time left."""
        if (when := self._channel_looks_at()) is not None and now >= when:
            self._receive(0)  # agents may be silent
        self._mpi_calls.look_after(now)
        turn = self._starter.look_after(loop, partial(self._channel.open, loop, self._receive), now, wanted)
        self._starter_looks_at = turn.next_look
        for node in turn.leaving:
            agent = self._by_node[node.number]
            agent.end()
            self._to_flush[agent] = None

    def give_up(self, needs: Sequence[NodeNeed], long: bool) -> Sequence[GivenUpCalls]:
        """Return the needs to give up of needs that no node can hold, with the errors. `long`: after a long wait."""
        addresses = self._channel.addresses
        where = f"; the driver listens at {addresses}" if addresses else ""
        return self._starter.give_up(needs, long, where)

    # -- the end ---------------------------------------------------------------------------------------

    def close(self, loop: EventLoop, grace: float) -> None:
        """Let the agents end, then the commands and jobs behind them; leave no file behind."""
        orderly = False
        try:
            orderly = self._end_agents(loop, grace)
        finally:
            self._let_go(loop, grace if orderly else 0.2)

    def _end_agents(self, loop: EventLoop, grace: float) -> bool:
        """End the agents; return True if all nodes had agents, and all of these have ended in order."""
        self._send_end()
        until = time.monotonic() + grace
        while any(not agent.ended for agent in self._by_peer.values()) and (left := until - time.monotonic()) > 0:
            loop.step(left)
            self._send_end()  # an agent may have connected just now
        return self._starter.complete and all(agent.ended for agent in self._by_peer.values())

    def _send_end(self) -> None:
        for agent in self._by_peer.values():
            if not agent.ending:
                agent.end()
                self._to_flush[agent] = None
        self.flush()

    def _let_go(self, loop: EventLoop, grace: float) -> None:
        """Close the channel before the commands are ended: an agent that is left notices this, and ends."""
        self._channel.close(loop)
        self._mpi_calls.close(loop, 0.2)
        self._starter.close(loop, grace)


def _mismatch_of(hello: Hello) -> VersionMismatch | None:
    """Return the error of an agent with another version than this driver; None for the same version."""
    ours, theirs = ".".join(map(str, sys.version_info[:2])), ".".join(map(str, hello.python))
    if theirs == ours and hello.callyard == VERSION:
        return None
    return VersionMismatch(
        f"node {hello.node} runs Callyard {hello.callyard} with Python {theirs}, and this is Callyard "
        f"{VERSION} with Python {ours}; use one environment for both, or `python=` to choose it there"
    )


def _by_signal(end: CallEnd) -> bool:
    """Return True if a scheduler may have ended the call: by SIGTERM, and by SIGKILL later."""
    by_both = {-signal.SIGTERM, -signal.SIGKILL}
    lost = end.how == "lost" and isinstance(end.what, WorkerLost)
    return lost and (end.what.exitcode in by_both or end.call.shape.ranks > 1)
