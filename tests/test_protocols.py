"""The seams are small: a protocol has at most five methods, and its values have types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import callyard

pytestmark = pytest.mark.once
MOST = 5
TYPE_OF_THE_USERS = {"Lazy"}  # a packed result of a call: its type is the user's, and nobody here knows it

CLASSES = {
    node.name: node
    for path in sorted(Path(callyard.__file__).parent.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.ClassDef)
}


def _bases(node: ast.ClassDef) -> Iterator[str]:
    for base in node.bases:
        yield ast.unparse(base).partition("[")[0]


PROTOCOLS = {name: node for name, node in CLASSES.items() if "Protocol" in _bases(node)}


def _methods(node: ast.ClassDef) -> set[str]:
    """Return the methods of a protocol, those of its bases included; a property is a value, and none."""
    own = {each.name for each in node.body if isinstance(each, ast.FunctionDef) and not each.decorator_list}
    return own.union(*(_methods(PROTOCOLS[base]) for base in _bases(node) if base in PROTOCOLS))


def _types(node: ast.ClassDef) -> Iterator[str]:
    """Yield all names in the annotations of a class."""
    for each in ast.walk(node):
        if isinstance(each, ast.arg | ast.AnnAssign):
            annotation = each.annotation
        else:
            annotation = each.returns if isinstance(each, ast.FunctionDef) else None
        if annotation is not None:
            yield from (part.id for part in ast.walk(annotation) if isinstance(part, ast.Name))


def test_the_protocols_are_found() -> None:
    assert {"AgentStarter", "Backend", "Host", "Scheduler"} <= PROTOCOLS.keys()
    assert _methods(PROTOCOLS["Scheduler"]) == {"submit", "status", "find", "cancel", "site"}
    assert _methods(PROTOCOLS["Launch"]) > _methods(PROTOCOLS["RankStarter"]) == {"start_ranks"}
    assert {"Resources", "Future", "T"} <= set(_types(PROTOCOLS["Backend"]))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_small(name: str) -> None:
    methods = _methods(PROTOCOLS[name])
    assert len(methods) <= MOST, f"{name} has {len(methods)} methods: split it by role, or let a value carry more"


@pytest.mark.parametrize("name", sorted(PROTOCOLS.keys() - TYPE_OF_THE_USERS))
def test_the_values_of_a_protocol_have_types(name: str) -> None:
    assert "Any" not in set(_types(PROTOCOLS[name]))
