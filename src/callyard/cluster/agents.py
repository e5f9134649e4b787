"""The agents of a crew: who is there, and what they say. For the crew's I/O thread."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..errors import VersionMismatch
from ..pool.call import Call
from ..pool.call_shape import NodeNeed
from ..system.descriptors import make_room
from ..system.process_identity import may_live, this_process
from ..transport import agent_protocol
from ..transport.agent_protocol import say
from ..transport.event_loop import EventLoop
from ..version import VERSION
from .agent_connection import AgentConnection, CallEnd
from .launch import GivenUpCalls, Launch
from .mpi_call import MpiCalls
from .node import NodeState, StartOnNodes
from .node_placement import NodePlacement

if TYPE_CHECKING:
    from ..transport.curve import Listener

_LIVE = "live-"  # how the names of the drivers' directories begin
_MOST_NODES = 4096  # each has a connection, and thereby a descriptor
_STALL = 0.1  # s without a result after which calls that were sent ahead are taken back
_SILENCE = 20.0  # s without a sign of life after which a node counts as gone


class Agents:
    """Everything between the fleet's decisions and the channel."""

    def __init__(
        self,
        launch: Launch,
        fleet: NodePlacement,
        max_workers: int | None,
        max_tasks: int | None,
        initializer: bytes | None,
    ) -> None:
        self._launch, self._fleet = launch, fleet
        self._max_workers, self._max_tasks, self._initializer = max_workers, max_tasks, initializer
        self.ends: deque[CallEnd] = deque()  # of calls, for whoever ends their futures
        self.lost: list[tuple[Call, str]] = []  # calls whose nodes are gone, and how in words
        self.back: list[Call] = []  # calls that did not begin where they were sent
        self._posts: dict[bytes, AgentConnection] = {}  # by peer
        self._of_members: dict[int, AgentConnection] = {}
        self._by_name: dict[str, AgentConnection] = {}  # of the node; jobs may share one
        self._to_flush: dict[AgentConnection, None] = {}
        self._muster = launch.muster(fleet)
        self._refused: VersionMismatch | None = None
        self._listener: Listener | None = None
        self._directory: str | None = None
        self._spans = MpiCalls(launch, fleet, self._transmit, self.ends)
        self._last_look = 0.0

    # -- to the agents ---------------------------------------------------------------------------------

    def send(self, member: NodeState, calls: Sequence[Call]) -> None:
        post = self._of_members[member.number]
        post.last_news = time.monotonic()
        workers = None if self._max_workers is None else member.places
        for message in post.send(calls, workers):
            self._transmit(post, message)
        self._to_flush[post] = None

    def spread(self, loop: EventLoop, spread: StartOnNodes) -> None:
        """Start a call on several nodes."""
        for member in spread.members:
            post = self._of_members[member.number]
            post.alone()
            self._to_flush[post] = None
        self._spans.start(loop, spread, self._contact, self._initializer)

    def signal(self, signum: int) -> None:
        self._spans.stop()
        for post in self._posts.values():
            post.signal(signum)
            self._to_flush[post] = None

    def flush(self) -> None:
        """Send what was collected for each agent, as one message each."""
        posts, self._to_flush = self._to_flush, {}
        for post in posts:
            if post.sender:
                self._transmit(post)

    def _transmit(self, post: AgentConnection, message: list[bytes | memoryview] | None = None) -> None:
        from ..transport.curve import PeerGone

        with contextlib.suppress(PeerGone):  # the news of that comes by itself
            cast("Listener", self._listener).send(post.peer, post.sender.take() if message is None else message)

    # -- from the agents -------------------------------------------------------------------------------

    def _channel_speaks(self, mask: int) -> None:
        for peer, message in cast("Listener", self._listener).receive():
            post = self._posts.get(peer)
            if post is None:
                if not self._spans.hear(peer, message) and message:
                    self._greet(peer, message)
            elif message:
                self._hear(post, message)
            else:
                self._gone(post)

    def _hear(self, post: AgentConnection, message: list[bytes]) -> None:
        ends = list(post.hear(message))
        self.ends.extend(ends)
        self._fleet.finished(post.member, [end.call for end in ends])
        post.last_news = time.monotonic()
        if post.back:
            self._fleet.finished(post.member, post.back)
            self.back.extend(post.back)
            post.back = []
        if post.taken_back:
            post.taken_back = False
            self._fleet.withdrawn(post.member)
            for call in post.flight.values():
                call.pace.note(_STALL)  # it is not short after all

    def _greet(self, peer: bytes, message: list[bytes]) -> None:
        for kind, _, _, _, body in agent_protocol.heard(message[0]):
            if kind == agent_protocol.HELLO:
                said = json.loads(body)
                why = self._why_not(said)
                if why is None and "call" in said:
                    why = None if self._spans.greet(peer, said) else "nobody waits for this rank any more"
                elif why is None:
                    why = self._join(peer, said)
                if why is not None:
                    self._refuse(peer, why)

    def _refuse(self, peer: bytes, why: str) -> None:
        from ..transport.curve import PeerGone

        with contextlib.suppress(PeerGone):  # as a rank may be whose step was ended meanwhile
            cast("Listener", self._listener).send(peer, [say(agent_protocol.REFUSED, why)])

    def _why_not(self, said: dict[str, Any]) -> str | None:
        """Why an agent cannot be one of this driver's."""
        ours, theirs = ".".join(map(str, sys.version_info[:2])), ".".join(map(str, said["python"]))
        if theirs != ours or said["callyard"] != VERSION:
            why = (
                f"node {said['node']} runs Callyard {said['callyard']} with Python {theirs}, and this is Callyard "
                f"{VERSION} with Python {ours}; use one environment for both, or `python=` to choose it there"
            )
            self._refused = VersionMismatch(why)
            return why
        old = self._by_name.get(_key(said))
        if "call" not in said and old is not None and old.pid != said["pid"]:
            return f"node {said['node']} has an agent already"
        return None

    def _join(self, peer: bytes, said: dict[str, Any]) -> str | None:
        """Take it in; or why not."""
        key = _key(said)
        old = self._by_name.get(key)
        if old is not None:  # it is here again before it was known to be gone
            self._gone(old)
        member = self._muster.admit(said, time.monotonic())
        if isinstance(member, str):
            return member
        post = AgentConnection(peer, member, said["host"], said["pid"], key)
        self._posts[peer] = self._of_members[member.number] = self._by_name[key] = post
        post.welcome(self._max_workers and 1, self._max_tasks, self._initializer)
        self._transmit(post)  # a message of its own
        return None

    def _gone(self, post: AgentConnection) -> None:
        del self._posts[post.peer], self._of_members[post.member.number], self._by_name[post.key]
        self._to_flush.pop(post, None)
        self._muster.gone(post.member, time.monotonic())
        words = f"the agent on {self._launch.lost(post.member.name)} is gone or cannot be reached"
        for call in cast("list[Call]", self._fleet.leave(post.member)):
            if call.need.nodes > 1:
                self._spans.drop(call)
            self.lost.append((call, words))

    def abandon(self) -> None:
        """Wait no longer for those that should have ended."""
        for post in list(self._posts.values()):
            self._gone(post)

    # -- calls behind one that takes long --------------------------------------------------------------

    def take_back_stalled(self, now: float) -> None:
        if not self._fleet.ahead or now - self._last_look < _STALL:
            return
        if cast("Listener", self._listener).behind:  # then it is this driver that is slow
            return
        self._last_look = now
        for member in list(self._fleet.ahead):
            post = self._of_members[member.number]
            if not member.ahead:
                del self._fleet.ahead[member]
            elif not member.withdrawing and now - post.last_news > _STALL:
                self._fleet.withdraw(member)
                post.take_back()
                self._to_flush[post] = None

    def next_look(self) -> float | None:
        """When there is something to be done, although nothing is heard."""
        times = [when for when in (self._muster.next_look(), self._spans.next_look()) if when is not None]
        if self._fleet.ahead:
            times.append(self._last_look + _STALL)
        return min(times, default=None)

    # -- getting agents to nodes -----------------------------------------------------------------------

    def look_after(self, loop: EventLoop, now: float, wanted: bool) -> None:
        """See to it that agents come where they are missing, and end calls over several nodes whose time is over."""
        self._spans.look_after(now)
        for member in self._muster.look_after(loop, partial(self._open, loop), now, wanted):
            post = self._of_members[member.number]
            post.end()
            self._to_flush[post] = None

    @property
    def _contact(self) -> str:
        return os.path.join(self._directory or "", "contact")

    def _open(self, loop: EventLoop) -> str:
        """Listen, once; where the contact file is."""
        if self._listener is not None:
            return self._contact
        from ..transport.curve import Listener

        make_room(_MOST_NODES)
        listener = Listener(self._launch.interface, self._launch.ports, silence=_SILENCE)
        try:
            os.makedirs(self._launch.directory, mode=0o700, exist_ok=True)
            _remove_left(self._launch.directory)
            prefix = f"{_LIVE}{this_process().label}~"
            self._directory = tempfile.mkdtemp(prefix=prefix, dir=self._launch.directory)
            listener.contact.write(self._contact)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        loop.watch(listener.fileno(), self._channel_speaks)
        return self._contact

    def give_up(self, needs: Sequence[NodeNeed], long: bool) -> GivenUpCalls | None:
        """Which calls that no node can hold are given up, and why. `long`: they have waited long."""
        where = ""
        if self._listener is not None:
            where = "; the driver listens at " + ", ".join(map(str, self._listener.contact.addresses))
        found = self._muster.give_up(needs, long, where)
        return found if found is None or self._refused is None else found._replace(why=self._refused)

    # -- the end ---------------------------------------------------------------------------------------

    def close(self, loop: EventLoop, grace: float) -> None:
        """Let the agents end, then whatever started them; leave nothing."""
        orderly = False
        try:
            orderly = self._end_agents(loop, grace)
        finally:
            self._let_go(loop, grace if orderly else 0.2)

    def _end_agents(self, loop: EventLoop, grace: float) -> bool:
        """Whether all nodes had agents, and these have ended as they should."""
        self._say_that_it_is_the_end()
        until = time.monotonic() + grace
        while any(not post.ended for post in self._posts.values()) and (left := until - time.monotonic()) > 0:
            loop.step(left)
            self._say_that_it_is_the_end()  # one may just have come
        return self._muster.complete and all(post.ended for post in self._posts.values())

    def _say_that_it_is_the_end(self) -> None:
        for post in self._posts.values():
            if not post.ending:
                post.end()
                self._to_flush[post] = None
        self.flush()

    def _let_go(self, loop: EventLoop, grace: float) -> None:
        if self._listener is not None:
            loop.forget(self._listener.fileno())
            self._listener.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._spans.close(loop, 0.2)
        self._muster.close(loop, grace)

    def after_fork(self) -> None:
        self._spans.after_fork()
        self._muster.after_fork()


def _key(said: dict[str, Any]) -> str:
    """By which an agent is known: its node, and its job if the driver has asked for several, which may share a node."""
    return f"{said['node']}/{said['block']}" if "block" in said else str(said["node"])


def _remove_left(directory: str) -> None:
    """Remove what drivers have left that are provably gone. A number alone proves nothing: others have the same."""
    for name in os.listdir(directory):
        if name.startswith(_LIVE) and not may_live(name.removeprefix(_LIVE).rpartition("~")[0]):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
