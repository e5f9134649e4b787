"""A graph as a picture, by matplotlib."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

from ..display.call_states import COLOURS, STATES
from ..errors import CallyardError
from .call_graph import CallGraph, GraphNode
from .graph_svg import BOX_HEIGHT, bend_of, box_width, layout_of, marks, name_of
from .layout import Point

__all__ = ["png"]

_DOTS = 96  # pixels of the layout per inch; the picture has twice as many, if that is no more than it may have
_MOST_PIXELS = 30_000  # of a side; matplotlib refuses 2**16


def png(graph: CallGraph) -> bytes:
    """Return the picture as a file in the format PNG, on a light ground."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise CallyardError(
            "a graph as PNG needs matplotlib: pip install 'callyard[plot]', or save it as .svg"
        ) from None
    layout = layout_of(graph)
    width, height = layout.width + 20, layout.height + 20
    figure = Figure(figsize=(width / _DOTS, height / _DOTS))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-10, width - 10), ylim=(height - 10, -10))
    axes.set_axis_off()
    for points in layout.routes.values():
        axes.add_patch(_arrow(points))
    for number, at in layout.boxes.items():
        _draw_box(axes, graph.nodes[number], at)
    picture = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(picture, format="png", dpi=min(2 * _DOTS, _MOST_PIXELS * _DOTS / max(width, height)))
    return picture.getvalue()


def _arrow(points: tuple[Point, ...]) -> Any:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    codes, corners = [Path.MOVETO], [points[0]]
    for (x, y), (to_x, to_y) in pairwise(points):
        bend = bend_of(x, to_x)
        codes += [Path.CURVE4] * 3
        corners += [(x + bend, y), (to_x - bend, to_y), (to_x, to_y)]
    quiet = COLOURS["quiet"][0]
    return FancyArrowPatch(path=Path(corners, codes), arrowstyle="-|>", mutation_scale=6, lw=0.7, color=quiet)


def _draw_box(axes: Any, node: GraphNode, at: Point) -> None:
    from matplotlib.patches import Rectangle

    (left, middle), wide = at, box_width(node)
    top = middle - BOX_HEIGHT / 2
    raised, line, text, quiet = (COLOURS[name][0] for name in ("raised", "line", "text", "quiet"))
    axes.add_patch(Rectangle((left, top), wide, BOX_HEIGHT, fc=raised, ec=line, lw=0.7))
    # Names are no formulas, whatever signs they hold.
    axes.text(left + 10, top + 17, name_of(node), size=8.5, color=text, parse_math=False)
    axes.text(left + 10, top + 32, marks(node), size=7.5, color=quiet, parse_math=False)
    for state in STATES:
        if count := node.states.get(state, 0):
            part = wide * count / node.calls
            axes.add_patch(Rectangle((left, top + BOX_HEIGHT - 5), part, 5, fc=STATES[state].light, lw=0))
            left += part
