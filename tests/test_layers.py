"""Imports point one way, and the public names are what they are said to be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import callyard

SOURCE = Path(callyard.__file__).parent

# From the ground up: each may import what stands before it, and its own neighbours in the folder.
LAYERS = [
    "version",
    "utils",
    "errors",
    "system",
    "resources",
    "futures",
    "usage_errors",
    "dependencies",
    "serialize",
    "transport",
    "hashing",
    "cache",
    "schedulers",
    "hosts",
    "jobs",
    "worker",
    "pool",
    "cluster",
    "backends",
    "report",
    "executor",
    "testing",
    "cli",
]


def _modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or not path.name.startswith("__"))


def _layer(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def _imported(path: Path) -> Iterator[str]:
    """The layers that a module imports from, wherever in it."""
    place = path.relative_to(SOURCE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        base = place[: len(place) - node.level + 1]
        parts = (*base, *(node.module.split(".") if node.module else ()))
        yield from (_layer((*parts, alias.name)) for alias in node.names)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = LAYERS.index(_layer(path.relative_to(SOURCE).parts))
    above = {layer for layer in _imported(path) if LAYERS.index(layer) > own}
    assert not above, f"{path.name} imports what stands above it"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_our_own_modules_are_imported_relatively(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").partition(".")[0] != "callyard"


def test_public_names() -> None:
    assert sorted(callyard.__all__) == callyard.__all__
    assert set(callyard.__all__) <= set(dir(callyard))
    for name in callyard.__all__:
        assert getattr(callyard, name).__module__.startswith("callyard")
    with pytest.raises(AttributeError, match="no attribute 'Executer'"):
        callyard.Executer  # noqa: B018


def test_importing_callyard_loads_no_optional_library() -> None:
    optional = {"numpy", "tqdm", "mpi4py", "matplotlib", "h5py", "zmq", "pandas", "psutil", "jinja2"}
    code = "import sys; from callyard import *; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "callyard" in loaded
    assert not optional & set(loaded)
