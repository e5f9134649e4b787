"""The places of the nodes of a graph: in columns from left to right, each behind all that it depends on.

The method is Sugiyama's, made short: columns by the longest path, a point in each column that an edge passes, the order
in a column by the mean place of the neighbours. It serves some hundred nodes; more of them nobody can read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

__all__ = ["Edge", "Layout", "Point", "laid_out"]

Point = tuple[float, float]
Edge = tuple[int, int]
_Item = tuple[int, ...]  # (node,), or (first, last, rank) where an edge passes a column

_COLUMN_GAP = 56.0
_ROW_GAP = 14.0
_SWEEPS = 6


@dataclass(frozen=True)
class Layout:
    """Places in a drawing, in pixels; y grows downwards.

    Attributes:
        width: of the drawing.
        height: of the drawing.
        boxes: for each node the middle of its left side.
        routes: for each edge the points on its way, from the right side of one node to the left side of the other.
    """

    width: float
    height: float
    boxes: Mapping[int, Point]
    routes: Mapping[Edge, tuple[Point, ...]]


def laid_out(widths: Mapping[int, float], edges: Iterable[Edge], height: float) -> Layout:
    """Return the layout of boxes with these widths and one height; edges may form cycles, which go backwards."""
    nodes = list(widths)
    edges = list(dict.fromkeys(edge for edge in edges if edge[0] != edge[1]))
    forward = _without_cycles(nodes, edges)
    ranks = _ranks(nodes, forward)
    stops = {edge: _stops(edge, ranks) for edge in forward}
    links = [link for each in stops.values() for link in pairwise(each)]
    columns = _ordered(_columns(nodes, ranks, stops.values()), links)
    lefts = _lefts(nodes, ranks, widths)
    ys = _heights(columns, links, height)
    boxes = {node: (lefts[ranks[node]], ys[node,]) for node in nodes}
    routes = {}
    for first, last in edges:
        passed = stops.get((first, last), [])[1:-1]
        begin, end = (boxes[first][0] + widths[first], boxes[first][1]), boxes[last]
        routes[first, last] = (begin, *((lefts[item[2]], ys[item]) for item in passed), end)
    width = max((boxes[node][0] + widths[node] for node in nodes), default=0.0)
    return Layout(width, max(ys.values(), default=0.0) + height / 2, boxes, routes)


def _without_cycles(nodes: list[int], edges: list[Edge]) -> list[Edge]:
    """Return the edges without those that lead back to a node on the way (depth first, without recursion)."""
    following = _adjacent(edges)
    state: dict[int, int] = {}  # 1: on the way, 2: done
    backward: set[Edge] = set()
    for root in nodes:
        way = [(root, iter(following[root]))] if root not in state else []
        while way:
            node, rest = way[-1]
            state[node] = 1
            for other in rest:
                if state.get(other) == 1:
                    backward.add((node, other))
                elif other not in state:
                    way.append((other, iter(following[other])))
                    break
            else:
                state[node] = 2
                way.pop()
    return [edge for edge in edges if edge not in backward]


def _adjacent(edges: Iterable[Edge]) -> defaultdict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for first, last in edges:
        found[first].append(last)
    return found


def _ranks(nodes: list[int], edges: list[Edge]) -> dict[int, int]:
    """Return the column of each node: the length of the longest way to it."""
    following = _adjacent(edges)
    missing = dict.fromkeys(nodes, 0)
    for _, last in edges:
        missing[last] += 1
    ranks = dict.fromkeys(nodes, 0)
    ready = [node for node in nodes if not missing[node]]
    for node in ready:  # grows
        for other in following[node]:
            ranks[other] = max(ranks[other], ranks[node] + 1)
            missing[other] -= 1
            if not missing[other]:
                ready.append(other)
    return ranks


def _stops(edge: Edge, ranks: Mapping[int, int]) -> list[_Item]:
    first, last = edge
    return [(first,), *((first, last, rank) for rank in range(ranks[first] + 1, ranks[last])), (last,)]


def _columns(nodes: list[int], ranks: Mapping[int, int], stops: Iterable[list[_Item]]) -> list[list[_Item]]:
    columns: list[list[_Item]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    for node in nodes:
        columns[ranks[node]].append((node,))
    for each in stops:
        for item in each[1:-1]:
            columns[item[2]].append(item)
    return columns


def _ordered(columns: list[list[_Item]], links: list[tuple[_Item, _Item]]) -> list[list[_Item]]:
    """Return the columns, each in the order of the mean places of the neighbours before, then behind, in turns."""
    before, behind = _neighbours(links)
    places = {item: place for column in columns for place, item in enumerate(column)}
    for sweep in range(_SWEEPS):
        neighbours = behind if sweep % 2 else before
        for column in reversed(columns) if sweep % 2 else columns:
            mean = {item: fmean([places[each] for each in neighbours[item]] or [places[item]]) for item in column}
            column.sort(key=mean.__getitem__)
            places.update((item, place) for place, item in enumerate(column))
    return columns


def _neighbours(links: list[tuple[_Item, _Item]]) -> tuple[dict[_Item, list[_Item]], dict[_Item, list[_Item]]]:
    before: defaultdict[_Item, list[_Item]] = defaultdict(list)
    behind: defaultdict[_Item, list[_Item]] = defaultdict(list)
    for first, last in links:
        behind[first].append(last)
        before[last].append(first)
    return before, behind


def _lefts(nodes: list[int], ranks: Mapping[int, int], widths: Mapping[int, float]) -> dict[int, float]:
    """Return the left side of each column."""
    widest: defaultdict[int, float] = defaultdict(float)
    for node in nodes:
        widest[ranks[node]] = max(widest[ranks[node]], widths[node])
    lefts, left = {}, 0.0
    for rank in sorted(widest):
        lefts[rank] = left
        left += widest[rank] + _COLUMN_GAP
    return lefts


def _heights(columns: list[list[_Item]], links: list[tuple[_Item, _Item]], height: float) -> dict[_Item, float]:
    """Return the middle of each item: beside its neighbours, and apart from the others of its column."""
    before, behind = _neighbours(links)
    ys: dict[_Item, float] = {}
    for neighbours, sweep in ((before, columns), (behind, columns[-2::-1]), (before, columns[1:])):
        for column in sweep:
            wishes = [fmean([ys[each] for each in neighbours[item]]) if neighbours[item] else None for item in column]
            ys.update(zip(column, _apart(wishes, [height if len(item) == 1 else height / 3 for item in column])))  # noqa: B905
    top = min(ys.values(), default=0.0) - height / 2
    return {item: y - top for item, y in ys.items()}


def _apart(wishes: list[float | None], sizes: list[float]) -> list[float]:
    """Return middles in this order that do not overlap, on the average where they wish to be."""
    taken: list[float] = []
    for place, wish in enumerate(wishes):
        free = taken[-1] + (sizes[place - 1] + sizes[place]) / 2 + _ROW_GAP if taken else None
        taken.append(free or 0.0 if wish is None else wish if free is None else max(wish, free))
    off = [wish - y for wish, y in zip(wishes, taken) if wish is not None]  # noqa: B905
    shift = fmean(off) if off else 0.0
    return [y + shift for y in taken]
