"""The graph of a run's calls, coloured by their states: as Mermaid text, SVG and PNG."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CallyardError
from ..events.call_record import RunRecord
from ..utils.quantities import calls, counted
from .call_graph import CallGraph, nodes_and_edges
from .graph_mermaid import mermaid
from .graph_png import png
from .graph_svg import svg
from .output_file import write_file

__all__ = ["Graph", "graph_of"]


@dataclass(frozen=True)
class Graph(CallGraph):
    """The calls of a run, or the functions of a large one, with arrows from a call to those that take its result.

    `print(graph)` shows the text for Mermaid; a notebook shows the drawing.

    Attributes:
        nodes: the calls or functions by number.
        edges: for each pair of nodes the number of results that the calls of one took from the other (count).
    """

    def mermaid(self) -> str:
        """Return the graph as text, which GitHub, GitLab and Jupyter show as a drawing."""
        return mermaid(self)

    def svg(self) -> str:
        """Return a drawing for a browser or a paper, on light and dark grounds."""
        return svg(self)

    def png(self) -> bytes:
        """Return a picture; needs matplotlib.

        Raises:
            CallyardError: matplotlib is not installed.
        """
        return png(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph into a file, for yourself alone: .svg, .png, or .mmd (Mermaid).

        Raises:
            CallyardError: the name has another ending, or matplotlib is missing for a PNG.
            OSError: the file cannot be written.
        """
        made: dict[str, Callable[[], str | bytes]] = {
            ".svg": self.svg,
            ".png": self.png,
            ".mmd": self.mermaid,
            ".mermaid": self.mermaid,
        }
        ending = Path(path).suffix.lower()
        if ending not in made:
            raise CallyardError(f"a graph is saved as .svg, .png or .mmd (Mermaid), not as {os.fspath(path)!r}")
        write_file(path, made[ending]())

    def __str__(self) -> str:
        return self.mermaid()

    def __repr__(self) -> str:
        total = sum(node.calls for node in self.nodes.values())
        return f"<Graph of {calls(total)}: {counted(len(self.nodes), 'node')}, {counted(len(self.edges), 'edge')}>"

    def _repr_svg_(self) -> str:
        return self.svg()


def graph_of(run: RunRecord) -> Graph:
    """Return the graph of a run: of its calls, or of their functions if there are more than fifty."""
    found = nodes_and_edges(run)
    return Graph(found.nodes, found.edges)
