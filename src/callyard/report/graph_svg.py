"""A graph as a drawing in SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from itertools import pairwise

from ..display.call_states import COLOURS, STATES, count_words
from .call_graph import CallGraph, GraphNode
from .layout import Layout, Point, laid_out

__all__ = ["BOX_HEIGHT", "STYLE", "bend_of", "box_width", "layout_of", "marks", "name_of", "svg"]

BOX_HEIGHT = 44.0
_MARGIN = 10.0
_TIP = (
    '<defs><marker id="callyard-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>'
)
_LONGEST = 32  # characters of a name


def _style() -> str:
    """Return the CSS of drawings, with the colours themselves: viewers other than browsers know no variables."""
    rules = [
        (".callyard-graph text", "fill", "text"),
        (".callyard-graph .quiet", "fill", "quiet"),
        (".callyard-graph .box", "fill", "raised"),
        (".callyard-graph .box", "stroke", "line"),
        (".callyard-graph .edge", "stroke", "quiet"),
        (".callyard-graph .tip", "fill", "quiet"),
    ]
    light = "".join(f"{select}{{{what}:{COLOURS[name][0]}}}" for select, what, name in rules)
    dark = "".join(f"{select}{{{what}:{COLOURS[name][1]}}}" for select, what, name in rules)
    light += "".join(f".callyard-graph .{state}{{fill:{look.light}}}" for state, look in STATES.items())
    dark += "".join(f".callyard-graph .{state}{{fill:{look.dark}}}" for state, look in STATES.items())
    fonts = ".callyard-graph text{font:12px system-ui,sans-serif}.callyard-graph .quiet{font-size:11px}"
    return f"{fonts}.callyard-graph .edge{{fill:none}}{light}@media (prefers-color-scheme:dark){{{dark}}}"


STYLE = _style()


def layout_of(graph: CallGraph) -> Layout:
    """Return the places of the nodes of a graph."""
    widths = {number: box_width(node) for number, node in graph.nodes.items()}
    return laid_out(widths, graph.edges, BOX_HEIGHT)


def svg(graph: CallGraph, *, with_style: bool = True) -> str:
    """Return the drawing; without its style for a page that has `STYLE`."""
    layout = layout_of(graph)
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    calls = sum(node.calls for node in graph.nodes.values())
    edges = "".join(_edges(graph, layout))
    boxes = "".join(_box(node, layout.boxes[number]) for number, node in graph.nodes.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="callyard-graph" role="img" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="{-_MARGIN:g} {-_MARGIN:g} {width:.0f} {height:.0f}">'
        f"<title>Graph of {calls:,} calls, {len(graph.nodes):,} boxes with {len(graph.edges):,} arrows</title>"
        f"{f'<style>{STYLE}</style>' if with_style else ''}{_TIP}{edges}{boxes}</svg>"
    )


def name_of(node: GraphNode) -> str:
    """Return the first line of a box."""
    name = " ".join(node.name.split())
    name = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    return name if node.call is not None else f"{name} ×{node.calls:,}"  # noqa: RUF001


def marks(node: GraphNode) -> str:
    """Return the second line of a box: the state of a call, or the numbers of calls in each state."""
    if node.call is not None:
        return f"{STATES[node.state].mark} {STATES[node.state].word}"
    return "  ".join(f"{node.states[state]:,} {STATES[state].mark}" for state in STATES if node.states.get(state))


def box_width(node: GraphNode) -> float:
    """Return the width of a node's box, wide enough for its two lines."""
    return max(70.0, 7.4 * len(name_of(node)), 6.6 * len(marks(node))) + 20.0


def _box(node: GraphNode, at: Point) -> str:
    left, middle = at
    top, width = middle - BOX_HEIGHT / 2, box_width(node)
    return (
        f'<g class="node" data-function="{escape(node.name)}"><title>{escape(node.name)}: {count_words(node.states)}'
        f'</title><rect class="box" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{BOX_HEIGHT:g}" rx="5"/>'
        + "".join(_shares(node, left + 1, top + BOX_HEIGHT - 6, width - 2))
        + f'<text x="{left + 10:.1f}" y="{top + 16:.1f}">{escape(name_of(node))}</text>'
        f'<text class="quiet" x="{left + 10:.1f}" y="{top + 31:.1f}">{escape(marks(node))}</text></g>'
    )


def _shares(node: GraphNode, left: float, top: float, width: float) -> Iterator[str]:
    """Yield a bar at the bottom of a box, divided by states."""
    for state in STATES:
        if count := node.states.get(state, 0):
            part = width * count / node.calls
            yield f'<rect class="{state}" x="{left:.1f}" y="{top:.1f}" width="{part:.1f}" height="5"/>'
            left += part


def _edges(graph: CallGraph, layout: Layout) -> Iterator[str]:
    for (begin, end), points in layout.routes.items():
        count = graph.edges[begin, end]
        words = f"{graph.nodes[begin].name} → {graph.nodes[end].name}: {count:,}"
        yield _edge(_path(points), words, 1 + math.log10(count) * 0.8)
    for (begin, end), count in graph.edges.items():
        if begin == end:  # calls of a function that take results of its other calls
            left, middle = layout.boxes[begin]
            right = left + box_width(graph.nodes[begin])
            loop = f"M{right - 24:.1f} {middle - 22:.1f}c0 -12 16 -12 16 -1"
            yield _edge(loop, f"{graph.nodes[begin].name} → itself: {count:,}", 1.0)


def _edge(path: str, words: str, width: float) -> str:
    return (
        f'<path class="edge" d="{path}" stroke-width="{width:.1f}" marker-end="url(#callyard-tip)">'
        f"<title>{escape(words)}</title></path>"
    )


def bend_of(x: float, to_x: float) -> float:
    """Return how far the handles of a curve lie from its two ends, sideways."""
    return max(24.0, abs(to_x - x) / 2)


def _path(points: tuple[Point, ...]) -> str:
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to_x, to_y) in pairwise(points):
        bend = bend_of(x, to_x)
        path += f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    return path
