"""The seam between a driver and its nodes: protocols for starting agents and ranks there, and values that pass it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import CallyardError
from ..pool.call_shape import NodeNeed, NodeOffer
from ..schedulers.steps import RankOptions

if TYPE_CHECKING:
    from ..transport.event_loop import EventLoop
    from .hello import Hello
    from .node_placement import NodePlacement
    from .placement_state import NodeState

_TAIL = 20  # lines of output that are kept


class RanksToStart(NamedTuple):
    """The ranks of one call, as they are to be started."""

    block: Any  # that the nodes are of
    nodes: Sequence[str]
    size: int  # how many in all
    per_node: int  # at most, the first nodes full
    arguments: Sequence[str]  # of each
    environment: Mapping[str, str]  # beside what there is
    options: RankOptions  # the user's own


class AgentOutput(NamedTuple):
    """The news in the output of agents that were started together."""

    ended_on: Sequence[str]  # nodes whose agents have ended since the last time
    over: bool  # all of them have ended, and there is no more output


class StartedAgents(Protocol):
    """Agents, or ranks of a call, that were started together by one process of this machine."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is output, or when all of them have ended."""

    def read(self) -> AgentOutput:
        """Pass their output on to the user, and return its news."""

    def words(self) -> str:
        """Return the last lines of their output."""

    def stop(self) -> None:
        """End them now, without waiting for that."""

    def end(self, grace: float) -> None:
        """End those that have not ended by themselves after so many seconds, and wait for that."""


class GivenUpCalls(NamedTuple):
    """The needs whose calls are given up, and why."""

    needs: Sequence[NodeNeed]
    why: CallyardError


class StarterTurn(NamedTuple):
    """The outcome of one look at the agents."""

    leaving: Sequence[NodeState]  # nodes that are given back, so their agents are to end
    next_look: float | None  # when to look again although nothing happens; None where that is never


class AgentStarter(Protocol):
    """The starter of agents, which knows which are there and which are to come. Only the I/O thread uses it."""

    @property
    def complete(self) -> bool:
        """True if all agents that were started are there."""

    def look_after(self, loop: EventLoop, contact: Callable[[], str], now: float, wanted: bool) -> StarterTurn:
        """Start the agents that are missing. `wanted`: there are calls; `contact` gives the path of the contact file.

        It is called in each turn of the loop, before the loop waits.
        """

    def admit(self, hello: Hello, now: float) -> NodeState | str:
        """Return the node of an agent that has connected, after adding it to the placement; or why it is refused."""

    def gone(self, node: NodeState, now: float) -> None:
        """Note that the agent on this node cannot be reached any more."""

    def give_up(self, needs: Sequence[NodeNeed], long: bool, where: str) -> GivenUpCalls | None:
        """Return those of these calls, which no node can hold, that are given up, and why; None if all may wait.

        `long`: they have waited long; `where`: how agents find the driver, for people.
        """

    def close(self, loop: EventLoop, grace: float) -> None:
        """End the commands and jobs that run agents; give them so many seconds to end by themselves."""


class RankLaunchers(Protocol):
    """The ways in which a launcher can start the ranks of a call: not each fits the MPI library."""

    def candidates(self) -> list[str]:
        """Return the ways to try, in this order."""

    def fits(self, way: str) -> None:
        """Note that ranks which were started in this way have found each other."""

    def advice(self, tried: list[str]) -> str:
        """Return the advice when no way has worked: the rest of a message."""


class RankStarter(Protocol):
    """The starter of the ranks of calls on several nodes."""

    @property
    def rank_launchers(self) -> RankLaunchers:
        """The ways in which ranks can be started."""

    def start_ranks(self, ranks: RanksToStart, way: str) -> StartedAgents:
        """Start the ranks of a call on several nodes, by a launcher that the MPI library knows."""


class ListenSettings(NamedTuple):
    """The settings with which the driver listens for its agents.

    Attributes:
        directory: for the contact file: one that the nodes see too, and nobody else's.
        interface: the network interface to listen at; None for all of them.
        ports: the first and the last port that may be taken; None for any.
    """

    directory: str
    interface: str | None = None
    ports: tuple[int, int] | None = None


class Launch(RankStarter, Protocol):
    """The nodes of a driver, and the ways to start agents there and the ranks of a call."""

    listen: ListenSettings

    def offers(self, timed: bool) -> Sequence[NodeOffer]:
        """Return what nodes have, before their agents have told; nothing if that is not known.

        `timed`: include for how long they are there, which may have to be asked first.
        """

    def make_starter(self, placement: NodePlacement) -> AgentStarter:
        """Return the starter of agents for this placement."""

    def describe_node(self, node: str) -> str:
        """Return the node as messages name it, with where to look when its agent is gone."""

    def describe(self) -> str:
        """Return what this is, for people."""


class AgentProcess:
    """Agents behind one process of this machine, whose standard error passes through here."""

    def __init__(
        self,
        nodes: Sequence[str],
        argv: Sequence[str],
        environment: Mapping[str, str],
        ended_on: Callable[[str], Sequence[str]] = lambda _: (),
        noise: bytes = b"",
    ) -> None:
        """Start the process.

        `ended_on` finds the nodes in a line that says that their agents have ended; `noise` is not passed on.
        """
        self._nodes = nodes
        self._noise = noise
        self._find_ended = ended_on
        self._ended_on: list[str] = []
        self._said: list[str] = []
        self._rest = b""  # of a line that is not complete
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,  # nothing is written to it: agents end when its other end is gone, with this process
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the driver, which ends the others as it is told to
        )
        assert self._process.stderr is not None
        assert self._process.stdin is not None
        self._stdin, self._stderr = self._process.stdin, self._process.stderr
        os.set_blocking(self._stderr.fileno(), False)
        _processes.add(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._stderr.fileno()

    def read(self) -> AgentOutput:
        try:
            data = os.read(self.fileno(), 1 << 16)
        except BlockingIOError:
            return AgentOutput((), False)
        with contextlib.suppress(OSError):
            os.write(2, data.replace(self._noise, b"") if self._noise else data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines.append(self._rest)
        for line in lines:
            self._take_line(line.decode(errors="replace").strip())
        ended, self._ended_on = self._ended_on, []
        return AgentOutput(ended, False) if data else AgentOutput(self._nodes, True)

    def _take_line(self, line: str) -> None:
        self._ended_on += self._find_ended(line)
        if line:
            self._said = [*self._said, line][-_TAIL:]

    def words(self) -> str:
        return "; ".join(self._said)

    def stop(self) -> None:
        self._process.terminate()

    def end(self, grace: float) -> None:
        self._stdin.close()
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                end()
                grace = max(grace, 2.0)
        self._process.wait()
        self._stderr.close()

    def close_in_forked_child(self) -> None:
        """Close the pipes of this copy: agents end when nobody holds the other end of their standard input."""
        for pipe in (self._stdin, self._stderr):
            with contextlib.suppress(OSError, ValueError):  # it is closed
                os.close(pipe.fileno())


_processes: weakref.WeakSet[AgentProcess] = weakref.WeakSet()


def _in_forked_child() -> None:
    for process in list(_processes):
        process.close_in_forked_child()


os.register_at_fork(after_in_child=_in_forked_child)
