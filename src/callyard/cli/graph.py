"""Print or write the graph of a run's calls, coloured by their states; of many calls that of their functions."""

from __future__ import annotations

import argparse

from ..report.graph import graph_of
from ..utils import quantities
from .run_source import add_source, the_run

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_source(parser)
    about = "a file: .svg, .png (needs matplotlib) or .mmd (Mermaid); default: print the text for Mermaid"
    parser.add_argument("-o", "--output", metavar="FILE", help=about)


def run(options: argparse.Namespace) -> int:
    """Print the text, or write the file."""
    graph = graph_of(the_run(options))
    if options.output is None:
        print(graph, end="")
    else:
        graph.save(options.output)
        calls = sum(node.calls for node in graph.nodes.values())
        print(f"The graph of {quantities.calls(calls)} is in {options.output}.")
    return 0
