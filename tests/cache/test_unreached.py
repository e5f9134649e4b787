"""What is pruned because the code of a script leads to it no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import callyard
from callyard import Cache, CacheError

SCRIPT = """
from callyard import Executor
import beside

FACTOR = 2


def helper(x):
    return x * FACTOR


def relax(x):
    return helper(x)


def melt(x):
    return x


if __name__ == "__main__":
    with Executor(1, cache="results") as ex:
        for function in (relax, melt, beside.cool):
            print(ex.submit(function, 3).result())
"""
BESIDE = "def cool(x):\n    return x\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "study.py"
    path.write_text(SCRIPT)
    (tmp_path / "beside.py").write_text(BESIDE)
    environment = {**os.environ, "PYTHONPATH": str(Path(callyard.__file__).parents[1])}
    subprocess.run([sys.executable, path], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL, env=environment)
    return path


@pytest.mark.parametrize(
    ("old", "new", "functions"),
    [
        ("x * FACTOR", "FACTOR * x", ["relax"]),
        ("FACTOR = 2", "FACTOR = 3", ["relax"]),
        ("def melt(x):\n    return x", "def melt(x):\n    # as it was\n    return x", []),
        ("def melt(x):\n    return x", "def melt(x):\n    return x + 1", ["melt"]),
        ("def helper", "def other", ["relax"]),
    ],
)
def test_code_that_has_changed(script: Path, old: str, new: str, functions: list[str]) -> None:
    assert old in SCRIPT
    cache = Cache(script.parent / "results")
    assert cache.prune(unreached=script) == []
    script.write_text(SCRIPT.replace(old, new).replace("print(", "raise SystemExit("))  # nothing of it runs
    assert sorted(entry.function for entry in cache.prune(unreached=script, dry_run=True)) == functions
    assert [entry.function for entry in cache.prune(unreached=script, function="no such")] == []
    assert sorted(entry.function for entry in cache.prune(unreached=str(script))) == functions
    assert len(cache) == 3 - len(functions)


def test_a_module_beside(script: Path) -> None:
    (script.parent / "beside.py").write_text(BESIDE.replace("return x", "return -x"))
    cache = Cache(script.parent / "results")
    assert [entry.function for entry in cache.prune(unreached=script)] == ["cool"]


def test_functions_of_other_scripts_stay(script: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "other.py"
    other.parent.mkdir()
    other.write_text("x = 1\n")
    assert Cache(script.parent / "results").prune(unreached=other) == []
    with pytest.raises(CacheError, match="cannot be read"):
        Cache(script.parent / "results").prune(unreached=tmp_path / "missing.py")
