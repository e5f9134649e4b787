"""How agents come to be on nodes: the seam between a crew and whatever starts its agents."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import CallyardError
from ..pool.call_shape import NodeCapacity, NodeNeed

if TYPE_CHECKING:
    from ..transport.event_loop import EventLoop
    from .node import NodeState
    from .node_placement import NodePlacement

_TAIL = 20  # lines kept of what was said


class NodeOffer(NamedTuple):
    """What may be given out on a node, before its agent has told what is there; None: what it finds."""

    cores: int | None = None
    gpus: int | tuple[str, ...] | None = None  # how many, or which
    memory: int | None = None  # bytes
    time: float | None = None  # s for which it is there, at most

    @property
    def gpu_count(self) -> int | None:
        return len(self.gpus) if isinstance(self.gpus, tuple) else self.gpus

    def could_hold(self, need: NodeNeed) -> bool:
        shape = need.shape
        there = ((shape.cores, self.cores), (shape.gpus, self.gpu_count), (shape.memory, self.memory))
        return all(has is None or wanted <= has for wanted, has in (*there, (need.time, self.time)))

    def of(self, found: NodeCapacity) -> NodeCapacity:
        """What is given out, now that it is known what is there."""
        gpus = self.gpus if isinstance(self.gpus, tuple) else found.gpus[: self.gpus]
        return NodeCapacity(self.cores or found.cores, gpus, found.memory if self.memory is None else self.memory)


class RanksToStart(NamedTuple):
    """Ranks that are to be started for one call."""

    block: Any  # that the nodes are of
    nodes: Sequence[str]
    size: int  # how many in all
    per_node: int  # at most, the first nodes full
    arguments: Sequence[str]  # of each
    environment: Mapping[str, str]  # beside what there is


class StartedAgents(Protocol):
    """Agents that were started together."""

    nodes: Sequence[str]

    def fileno(self) -> int:
        """Readable when there is something to read, or when all of them have ended."""

    def read(self) -> bool:
        """Pass on what they said; False when all have ended."""

    def words(self) -> str:
        """The last of what was said."""

    def ended_on(self) -> Sequence[str]:
        """Nodes whose agents have ended although others go on, since this was last asked."""

    def stop(self) -> None:
        """End them now, without waiting for it."""

    def end(self, grace: float) -> None:
        """End what has not ended by itself after so many seconds, and wait for it."""

    def after_fork(self) -> None:
        """In a forked child: hold nothing open."""


class GivenUpCalls(NamedTuple):
    """Calls that are given up, and why."""

    needs: Sequence[NodeNeed]
    why: CallyardError


class AgentStarter(Protocol):
    """Gets agents to nodes, and knows which are there and which are to come. For the I/O thread of a crew."""

    @property
    def complete(self) -> bool:
        """Whether everybody who was called is there."""

    def look_after(self, loop: EventLoop, contact: Callable[[], str], now: float, wanted: bool) -> Sequence[NodeState]:
        """Call those who are missing; the nodes whose agents are to end, because they are given back.

        `wanted`: there are calls; `contact` gives the path of the contact file.
        """

    def next_look(self) -> float | None:
        """When to look again although nothing is heard."""

    def admit(self, said: dict[str, Any], now: float) -> NodeState | str:
        """The node of an agent that has introduced itself, now one of the placement; or why it cannot be."""

    def gone(self, node: NodeState, now: float) -> None:
        """Its agent cannot be reached any more."""

    def give_up(self, needs: Sequence[NodeNeed], long: bool, where: str) -> GivenUpCalls | None:
        """Which of these calls, that no node can hold, are given up, and why; None if they may wait.

        `long`: they have waited long; `where`: how agents find the driver, for people.
        """

    def close(self, loop: EventLoop, grace: float) -> None:
        """End whatever brings agents to nodes; give it so many seconds to end by itself."""

    def after_fork(self) -> None:
        """In a forked child: hold nothing open."""


class RankLaunchers(Protocol):
    """How the ranks of a call may be started, as one tells a launcher: not each way fits the MPI library."""

    def candidates(self) -> list[str]:
        """Those to try, in this order."""

    def fits(self, way: str) -> None:
        """Ranks that were started in this way have found each other."""

    def advice(self, tried: list[str]) -> str:
        """What to do when they have not in any of these: the rest of a message."""


class Launch(Protocol):
    """Where agents run."""

    directory: str  # for the contact file: one that the nodes see too, and nobody else's
    interface: str | None
    ports: tuple[int, int] | None

    @property
    def rank_launchers(self) -> RankLaunchers:
        """How ranks may be started."""

    def offers(self, timed: bool) -> Sequence[NodeOffer]:
        """What nodes have, before their agents have told; none if that is not known.

        `timed`: it matters for how long they are there.
        """

    def make_starter(self, placement: NodePlacement) -> AgentStarter:
        """Who gets the agents there."""

    def start_ranks(self, ranks: RanksToStart, way: str) -> StartedAgents:
        """Start the ranks of a call that runs on several nodes, by a launcher that MPI knows."""

    def describe_node(self, node: str) -> str:
        """For people: which node that is, and where to look when its agent is gone."""

    def describe(self) -> str:
        """For people: what this is."""


class AgentProcess:
    """Agents behind one process of this machine, whose errors pass through here."""

    def __init__(
        self,
        nodes: Sequence[str],
        argv: Sequence[str],
        environment: Mapping[str, str],
        ended_on: Callable[[str], Sequence[str]] = lambda _: (),
        noise: bytes = b"",
    ) -> None:
        """`ended_on` finds the nodes in a line that says that their agents have ended; `noise` is not passed on."""
        self.nodes = nodes
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

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._stderr.fileno()

    def read(self) -> bool:
        try:
            data = os.read(self.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        with contextlib.suppress(OSError):
            os.write(2, data.replace(self._noise, b"") if self._noise else data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines.append(self._rest)
        for line in lines:
            self._hear(line.decode(errors="replace").strip())
        return bool(data)

    def _hear(self, line: str) -> None:
        self._ended_on += self._find_ended(line)
        if line:
            self._said = [*self._said, line][-_TAIL:]

    def words(self) -> str:
        return "; ".join(self._said)

    def ended_on(self) -> Sequence[str]:
        ended, self._ended_on = self._ended_on, []
        return ended

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

    def after_fork(self) -> None:
        for pipe in (self._stdin, self._stderr):
            with contextlib.suppress(OSError, ValueError):  # it is closed
                os.close(pipe.fileno())
