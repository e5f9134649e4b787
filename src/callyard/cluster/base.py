"""The seam between a driver and its nodes: protocols for starting agents and ranks there, and their values."""

from __future__ import annotations

import contextlib
import os
import subprocess
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import CallyardError, VersionMismatch
from ..pool.call_shape import KindOffer, NodeNeed
from ..schedulers.steps import RankOptions

if TYPE_CHECKING:
    from ..transport.event_loop import EventLoop
    from .hello import Hello
    from .node_placement import NodePlacement
    from .placement_state import NodeState

_TAIL = 20  # lines of output to keep


class RanksToStart(NamedTuple):
    """The ranks of one call, with all data for their start."""

    block: Any  # the block of the nodes
    nodes: Sequence[str]
    size: int  # of all ranks
    per_node: int  # at most; the first nodes are full
    arguments: Sequence[str]  # of each rank
    environment: Mapping[str, str]  # added to the present one
    options: RankOptions  # the user's own
    cores: int  # of each rank
    gpus: int  # of each rank


class AgentOutput(NamedTuple):
    """The news in the output of agents that were started together."""

    ended_on: Sequence[str]  # nodes whose agents have ended since the last reading
    over: bool  # all of them have ended, and there is no more output


class StartedAgents(Protocol):
    """Agents, or ranks of a call, started together by one process of this machine."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is output, or when all processes have ended."""

    def read(self) -> AgentOutput:
        """Pass new output on to the user, and return the news in it."""

    def words(self) -> str:
        """Return the last lines of the output."""

    def stop(self) -> None:
        """End all of them now, without a wait."""

    def end(self, grace: float) -> None:
        """Wait for their end, at most `grace` seconds, then end the rest and wait for that."""


class GivenUpCalls(NamedTuple):
    """Needs whose calls are given up, with the error."""

    needs: Sequence[NodeNeed]
    why: CallyardError


class StarterTurn(NamedTuple):
    """The outcome of one look at the agents."""

    leaving: Sequence[NodeState]  # nodes to give back, so their agents must end
    next_look: float | None  # the time of the next look, if no event comes before; None for no time


class AgentStarter(Protocol):
    """The starter of agents, with accounts of the present and the coming ones. Only the I/O thread uses it."""

    @property
    def complete(self) -> bool:
        """True if all agents that were started are there."""

    def look_after(self, loop: EventLoop, contact: Callable[[], str], now: float, wanted: bool) -> StarterTurn:
        """Start the missing agents. The driver calls this in each turn of the loop, before the loop waits.

        Args:
            loop: the loop in which to watch the commands that start agents.
            contact: a function that begins to listen, and returns the path of the contact file.
            now: the present time (s).
            wanted: there are calls, or calls to come.
        """

    def admit(self, hello: Hello, now: float, mismatch: VersionMismatch | None = None) -> NodeState | str:
        """Return the node of a new agent, after adding it to the placement; or the reason to refuse the agent.

        `mismatch`: the reason to refuse it, which then explains why calls have no node.
        """

    def gone(self, node: NodeState, now: float) -> None:
        """Note that the agent on this node cannot be reached any more."""

    def give_up(self, needs: Sequence[NodeNeed], long: bool, where: str) -> Sequence[GivenUpCalls]:
        """Return the needs to give up, of needs that no node can hold, with the errors; nothing if all may wait.

        Args:
            needs: the needs without a suitable node.
            long: True after a long wait.
            where: the driver's addresses, for people.
        """

    @property
    def nodes_to_come(self) -> Callable[[int], str]:
        """For any thread: returns in words what becomes of nodes of a kind that are not there yet; "" if none comes."""

    def close(self, loop: EventLoop, grace: float) -> None:
        """End the commands and jobs of agents, after `grace` seconds to end by themselves."""


class RankLaunchers(Protocol):
    """The ways in which a launcher can start the ranks of a call: not every one fits the MPI library."""

    def candidates(self) -> list[str]:
        """Return the ways to try, in this order."""

    def fits(self, way: str) -> None:
        """Note that ranks started in this way have found each other."""

    def advice(self, tried: list[str]) -> str:
        """Return the advice for the end of a message, after no way has worked."""


class RankStarter(Protocol):
    """The starter of the ranks of calls on several nodes."""

    @property
    def rank_launchers(self) -> RankLaunchers:
        """The ways in which ranks can be started."""

    def start_ranks(self, ranks: RanksToStart, way: str) -> StartedAgents:
        """Start the ranks of a call on several nodes, in one of the ways of `rank_launchers`."""


class ListenSettings(NamedTuple):
    """The settings with which the driver listens for agents.

    Attributes:
        directory: the place of the contact file: seen by the nodes, and closed to other users.
        interface: the network interface to listen at; None for all interfaces.
        ports: the first and the last port to try; None for any.
    """

    directory: str
    interface: str | None = None
    ports: tuple[int, int] | None = None


class Launch(RankStarter, Protocol):
    """The nodes of a driver, and the ways to start agents there and the ranks of a call."""

    listen: ListenSettings

    def kinds(self, timed: bool) -> Sequence[KindOffer]:
        """Return the kinds of nodes, at least one, with their resources as far as known before any agent tells.

        `timed`: include the time left, for which a command may have to ask.
        """

    def make_starter(self, placement: NodePlacement) -> AgentStarter:
        """Return the starter of agents for this placement."""

    def describe_node(self, node: str) -> str:
        """Return the node as messages name it, with the place to look after the end of its agent."""

    def describe(self) -> str:
        """Return a short description for people."""


class AgentProcess:
    """Agents behind one process of this machine, whose standard error is read here and passed on."""

    def __init__(
        self,
        nodes: Sequence[str],
        argv: Sequence[str],
        environment: Mapping[str, str],
        ended_on: Callable[[str], Sequence[str]] = lambda _: (),
        noise: bytes = b"",
    ) -> None:
        """Start the process.

        `ended_on` finds, in a line of output, the nodes whose agents have ended; `noise` is not passed on.
        """
        self._nodes = nodes
        self._noise = noise
        self._find_ended = ended_on
        self._ended_on: list[str] = []
        self._said: list[str] = []
        self._rest = b""  # of an incomplete line
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,  # never written to: agents end when this end is gone, with this process
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the driver alone, which ends the others in order
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
        if not data and self._rest:  # a last line without an end
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
        """End the process, and thereby the agents, without waiting."""
        self._process.terminate()

    def end(self, grace: float) -> None:
        self._stdin.close()  # the agents' sign to end
        # First the time to end without a signal, then SIGTERM, and SIGKILL at last.
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                end()
                grace = max(grace, 2.0)
        self._process.wait()
        self._stderr.close()

    def close_in_forked_child(self) -> None:
        """Close the pipes of this copy: agents end when no process holds the other end of their standard input."""
        for pipe in (self._stdin, self._stderr):
            with contextlib.suppress(OSError, ValueError):  # closed already
                os.close(pipe.fileno())


_processes: weakref.WeakSet[AgentProcess] = weakref.WeakSet()


def _in_forked_child() -> None:
    for process in list(_processes):
        process.close_in_forked_child()


os.register_at_fork(after_in_child=_in_forked_child)
