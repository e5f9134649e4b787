"""The graph of a run's calls, or of their functions, as nodes and edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..events.call_record import CallState, RunRecord

__all__ = ["MOST_CALLS", "MOST_FUNCTIONS", "CallGraph", "GraphNode", "nodes_and_edges"]

MOST_CALLS = 50  # more are shown by function
MOST_FUNCTIONS = 100


@dataclass(frozen=True)
class GraphNode:
    """A node: a call, or the calls of a function.

    Attributes:
        name: the name of the function.
        states: the number of calls in each state.
        call: the number of the call; None for the calls of a function.
    """

    name: str
    states: Mapping[CallState, int]
    call: int | None = None

    @property
    def calls(self) -> int:
        return sum(self.states.values())

    @property
    def state(self) -> CallState:
        """The state that matters most among those of the calls."""
        return next(state for state in _WORST_FIRST if self.states.get(state))


_WORST_FIRST: tuple[CallState, ...] = ("failed", "running", "waiting", "planned", "cancelled", "finished", "cached")


@dataclass(frozen=True)
class CallGraph:
    """Nodes and edges.

    Attributes:
        nodes: the calls or functions by number.
        edges: for each pair of nodes the number of results that the calls of one took from the other (count).
    """

    nodes: Mapping[int, GraphNode]
    edges: Mapping[tuple[int, int], int]


def nodes_and_edges(run: RunRecord) -> CallGraph:
    """Return the graph of the calls, or of their functions if there are more calls than can be seen."""
    if len(run.calls) <= MOST_CALLS:
        nodes = {number: GraphNode(_drawn(call.name), {call.state: 1}, number) for number, call in run.calls.items()}
        edges = {(each, number): 1 for number, call in run.calls.items() for each in call.inputs if each in nodes}
        return CallGraph(nodes, edges)
    return _by_function(run)


def _drawn(name: str) -> str:
    """Return a name without characters that no drawing can have: SVG has no control characters, for example."""
    return "".join(
        letter if letter.isprintable() or letter.isspace() else "\N{REPLACEMENT CHARACTER}" for letter in name
    )


def _by_function(run: RunRecord) -> CallGraph:
    often = Counter(call.name for call in run.calls.values()).most_common()
    shown = [name for name, _ in (often if len(often) <= MOST_FUNCTIONS else often[: MOST_FUNCTIONS - 1])]
    place = {name: number for number, name in enumerate(shown)}
    rest = len(shown)  # the node of all further functions
    states: dict[int, Counter[CallState]] = {}
    edges: Counter[tuple[int, int]] = Counter()
    for call in run.calls.values():
        node = place.get(call.name, rest)
        states.setdefault(node, Counter())[call.state] += 1
        edges.update((place.get(run.calls[each].name, rest), node) for each in call.inputs if each in run.calls)
    names = [*map(_drawn, shown), f"{len(often) - rest} other functions"]
    return CallGraph({node: GraphNode(names[node], counts) for node, counts in sorted(states.items())}, edges)
