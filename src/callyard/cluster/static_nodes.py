"""Static nodes: agents on nodes that are known from the beginning, such as those of an allocation.

`AgentStarts` decides on the time of each start, with the present time as an argument; `StaticNodes` starts the agents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from ..errors import CallyardError, NodeFailure, ResourceError, SchedulerError, VersionMismatch
from ..pool.call_shape import NodeNeed, NodeOffer
from ..transport.event_loop import EventLoop
from .base import GivenUpCalls, StartedAgents, StarterTurn
from .hello import Hello
from .node_placement import NodePlacement
from .placement_state import NodeState

_MOST_NAMED = 4  # nodes in a sentence


class Nodes(Protocol):
    """The nodes, and the command that starts agents there.

    Attributes:
        tells_each_end: the command tells of the end of one agent while others go on.
        how_to_keep_one: advice for nodes that were taken away with the first lost one; empty without such advice.
    """

    tells_each_end: bool
    how_to_keep_one: str

    def nodes(self) -> Mapping[str, NodeOffer]:
        """Return the names of the nodes, and the resources to give out there."""

    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[StartedAgents]:
        """Start an agent on each of these nodes, without waiting.

        Raises:
            OSError: the attempt itself is impossible.
        """

    def ends_in(self) -> float | None:
        """Return the seconds until the nodes are taken away; None while unknown."""

    def is_over(self, said: str) -> bool:
        """Return True if this output of a command says that the nodes were taken away for good."""

    def describe(self) -> str:
        """Return a short description for people."""


class StaticNodes:
    """The starter of an agent on each of these nodes, and of another one after each end."""

    def __init__(self, nodes: Nodes, placement: NodePlacement) -> None:
        self._nodes, self._placement = nodes, placement
        self._starts = AgentStarts(nodes.nodes())
        self._started: list[StartedAgents] = []
        self._latest: dict[str, StartedAgents] = {}  # the last command that has started an agent, by node
        self._words: list[str] = []  # the last output of ended commands
        self._next_start: float | None = None
        self._wanted = False  # there were calls at the last look
        self._mismatch: VersionMismatch | None = None
        self._timed = False  # the end of the nodes' time is known

    @property
    def complete(self) -> bool:
        return not self._starts.missing()

    def nodes_to_come(self, kind: int) -> str:
        missing = self._starts.missing()
        if not missing:
            return ""
        some = ", ".join(missing[:_MOST_NAMED]) + (", ..." if len(missing) > _MOST_NAMED else "")
        return f"no agent has come from {some} yet"

    def look_after(self, loop: EventLoop, contact: Callable[[], str], now: float, wanted: bool) -> StarterTurn:
        if not self._timed and (left := self._nodes.ends_in()) is not None:
            self._timed = True
            for node in self._placement.nodes.values():
                self._placement.lasts_until(node, now + left)
        due = self._next_start is not None and self._next_start <= now
        if due or self._starts.changed or wanted is not self._wanted:
            self._start_missing(loop, contact, now, wanted)
        return StarterTurn((), self._next_start)

    def _start_missing(self, loop: EventLoop, contact: Callable[[], str], now: float, wanted: bool) -> None:
        self._starts.changed, self._wanted = False, wanted
        names = self._starts.to_start(now, wanted)
        if names:
            # First, because `ended` counts only starts under way.
            self._starts.starting(names, now)
            try:
                self._start(loop, contact(), names)
            except (OSError, ValueError, CallyardError) as error:
                self._words.append(str(error))
                self._starts.ended(names, now)
        self._next_start = self._starts.next_start(wanted)

    def _start(self, loop: EventLoop, contact: str, names: list[str]) -> None:
        for started in self._nodes.start(contact, names):
            self._started.append(started)
            self._latest.update(dict.fromkeys(names, started))
            loop.watch(started.fileno(), partial(self._on_output, loop, started))

    def _on_output(self, loop: EventLoop, started: StartedAgents, mask: int) -> None:
        output = started.read()
        if output.over:
            loop.forget(started.fileno())
            started.end(1.0)
            self._started.remove(started)
            self._words.append(started.words())
        # A connected agent counts as there until the channel reports its end; then the agent is started again.
        ended = [name for name in output.ended_on if self._latest.get(name) is started]
        self._starts.ended(ended, time.monotonic())

    def admit(self, hello: Hello, now: float, mismatch: VersionMismatch | None = None) -> NodeState | str:
        if mismatch is not None:
            self._mismatch = mismatch
            return str(mismatch)
        name = hello.node
        offer = self._nodes.nodes().get(name, NodeOffer())
        node = self._placement.join(name, offer.of(hello.capacity))
        left = self._nodes.ends_in()
        if left is not None:
            self._placement.lasts_until(node, now + left)
        self._starts.there(name, now)
        return node

    def gone(self, node: NodeState, now: float) -> None:
        if self._nodes.tells_each_end:
            self._starts.gone(node.name, now)
        else:  # perhaps the agent has ended; if not, the first to connect stays, and the other one ends
            self._starts.ended([node.name], now)

    def give_up(self, needs: Sequence[NodeNeed], long: bool, where: str) -> Sequence[GivenUpCalls]:
        expected = self._starts.expected()
        if any(node.leaving for node in self._placement.nodes.values()):
            return []  # the node ends soon; only then is it known if another agent can be started there
        if not self._starts.missing():
            left = self._nodes.ends_in()
            hours = "" if left is None else f", or no node is there for its run_time ({max(0.0, left):.0f} s are left)"
            return [GivenUpCalls(needs, ResourceError(f"no node has what it asks for{hours}; ask for less"))]
        over = any(map(self._nodes.is_over, self._words))  # then no agent will ever come, however long one waits
        if not over and not long and (self._starts.ever or expected or not self._words):
            return []
        error, self._mismatch = self._mismatch or self._explain(where), None
        self._starts.forget()
        self._words.clear()
        return [GivenUpCalls(needs, error)]

    def _explain(self, where: str) -> CallyardError:
        missing = ", ".join(self._starts.missing()[:8])
        words = [*self._words, *(started.words() for started in self._started)]
        said = "; ".join(dict.fromkeys(line for word in words for line in word.split("; ") if line))
        kind = NodeFailure if self._starts.ever else SchedulerError
        if any(map(self._nodes.is_over, words)):
            advice = self._nodes.how_to_keep_one
            return kind(
                f"{self._nodes.describe()}: this allocation has ended, so ask for another one"
                f"{advice and '; '}{advice} ({said})"
            )
        return kind(
            f"{self._nodes.describe()} has no connected node that could take this call (missing agents: {missing}; "
            f"waited for {CONNECT:.0f} s at most){where}" + (f"; what was said: {said}" if said else "")
        )

    def close(self, loop: EventLoop, grace: float) -> None:
        while self._started:
            started = self._started.pop()
            loop.forget(started.fileno())
            started.end(grace)


CONNECT = 60.0  # s for an agent to connect
_AGAIN = (0.5, 2.0, 10.0, 30.0, 60.0)  # s after which an ended agent is started again


class _AgentStart:
    __slots__ = ("failures", "since", "state")

    def __init__(self) -> None:
        self.state = "idle"  # then "starting", "there", "gone"
        self.since = 0.0
        self.failures = 0  # in a row


class AgentStarts:
    """The agents of these nodes: the present ones, and the times to start the others. Decisions only."""

    def __init__(self, names: Iterable[str]) -> None:
        self._nodes = {name: _AgentStart() for name in names}
        self.changed = True  # since this was set to False
        self.ever = False  # an agent has been there since the first start

    # -- events ----------------------------------------------------------------------------------------

    def starting(self, names: Iterable[str], now: float) -> None:
        """Note that agents are being started on these nodes."""
        for name in names:
            self._goes(name, "starting", now)

    def there(self, name: str, now: float) -> None:
        """Note that the agent of this node has connected."""
        self._nodes.setdefault(name, _AgentStart()).failures = 0
        self._goes(name, "there", now)
        self.ever = True

    def gone(self, name: str, now: float) -> None:
        """Note that the agent is out of reach; a process that still runs connects again by itself."""
        if self._nodes[name].state == "there":
            self._goes(name, "starting", now)

    def ended(self, names: Iterable[str], now: float) -> None:
        """Note the ends of the agents of these nodes."""
        for name in names:
            node = self._nodes[name]
            if node.state in ("starting", "there"):
                node.failures += 1
                self._goes(name, "gone", now)

    def forget(self) -> None:
        """Begin anew with the absent agents, after the waiting calls have failed."""
        for name, node in self._nodes.items():
            if node.state == "gone":
                node.failures = 0
                self._goes(name, "idle", 0.0)
        self.ever = any(node.state == "there" for node in self._nodes.values())

    def _goes(self, name: str, state: str, now: float) -> None:
        node = self._nodes[name]
        node.state, node.since = state, now
        self.changed = True

    # -- questions -------------------------------------------------------------------------------------

    def to_start(self, now: float, wanted: bool) -> list[str]:
        """Return the nodes to start agents on now. `wanted`: there are calls, for which the first start waits."""
        return [name for name, node in self._nodes.items() if (when := _when(node, wanted)) is not None and when <= now]

    def next_start(self, wanted: bool) -> float | None:
        """Return the time of the next start."""
        times = (_when(node, wanted) for node in self._nodes.values())
        return min((when for when in times if when is not None), default=None)

    def expected(self) -> list[str]:
        """Return the nodes whose agents have been started and are not there yet."""
        return [name for name, node in self._nodes.items() if node.state == "starting"]

    def missing(self) -> list[str]:
        return [name for name, node in self._nodes.items() if node.state != "there"]


def _when(node: _AgentStart, wanted: bool) -> float | None:
    """Return the time to start this agent; None for no start."""
    if node.state == "idle":
        return 0.0 if wanted else None
    if node.state == "starting":
        return node.since + CONNECT
    if node.state == "gone":
        return node.since + _AGAIN[min(node.failures, len(_AGAIN)) - 1]
    return None
