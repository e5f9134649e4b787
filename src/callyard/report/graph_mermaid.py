"""A graph as text for Mermaid."""

from __future__ import annotations

import re

from ..display.call_states import STATES, count_words
from .call_graph import CallGraph, GraphNode

__all__ = ["mermaid"]


def mermaid(graph: CallGraph) -> str:
    """Return the text of a flowchart."""
    lines = ["flowchart LR"]
    lines += [f'    n{number}["{_label(node)}"]:::{node.state}' for number, node in graph.nodes.items()]
    for (first, last), count in graph.edges.items():
        arrow = "-->" if count == 1 else f"-->|{count}|"
        lines.append(f"    n{first} {arrow} n{last}")
    shown = {node.state for node in graph.nodes.values()}
    lines += [
        f"    classDef {state} stroke:{look.light},stroke-width:3px" for state, look in STATES.items() if state in shown
    ]
    return "\n".join(lines) + "\n"


def _label(node: GraphNode) -> str:
    if node.call is not None:
        look = STATES[node.state]
        return f"{_escaped(node.name)} {look.mark} {look.word}"
    return f"{_escaped(node.name)} ×{node.calls}<br>{count_words(node.states)}"  # noqa: RUF001


def _escaped(text: str) -> str:
    """Return text with codes in the place of all that could mean something to Mermaid or to HTML."""
    return re.sub(r"[^\w .,:-]", lambda found: f"#{ord(found.group())};", " ".join(text.split()))
