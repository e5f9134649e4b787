"""Calls with the user's modules inside: each function is pickled once for many calls."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callyard.backends.batch import apart_pickles
from callyard.backends.batch.apart_pickles import ApartPickles
from callyard.backends.batch.call_pickles import LargeContents

MODULE = """
import pickled_apart_helper
TABLE = [1]
class Point:
    def __init__(self, x): self.x = x
def work(x):
    return pickled_apart_helper.twice(x), TABLE
"""
MODULES = ["pickled_apart", "pickled_apart_helper"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pickled_apart.py").write_text(MODULE)
    (tmp_path / "pickled_apart_helper.py").write_text("def twice(x): return 2 * x\n")
    import pickled_apart  # type: ignore[import-not-found]

    yield pickled_apart
    for name in MODULES:
        del sys.modules[name]


def test_a_function_is_pickled_again_after_a_change(module: Any) -> None:
    pickles = ApartPickles(LargeContents())
    one, other = (pickles.of((module.work, (x,), {}), MODULES) for x in (1, 2))
    assert one is not None
    assert other is not None
    assert one[0] is other[0]
    assert one[1] != other[1]
    module.TABLE.append(2)
    changed = pickles.of((module.work, (1,), {}), MODULES)
    assert changed is not None
    assert changed[0] != one[0]
    assert changed[1] == one[1]


def test_what_arguments_share_with_the_function_is_in_one_pickle(module: Any) -> None:
    pickles = ApartPickles(LargeContents())
    shared = pickles.of((module.work, (module.TABLE,), {}), MODULES)
    assert shared is not None
    assert len(shared) == 1


def test_calls_that_would_cost_too_much_have_no_second_form(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pickles = ApartPickles(LargeContents())
    assert pickles.of((module.work, (module.Point(1),), {}), MODULES) is not None
    monkeypatch.setattr(apart_pickles, "_MANY", 1)
    assert pickles.of((module.work, (1,), {}), MODULES) is not None
    assert pickles.of((module.work, (module.Point(1),), {}), MODULES) is None


def test_without_modules_that_a_job_imports_there_is_no_second_form() -> None:
    assert ApartPickles(LargeContents()).of((len, ((),), {}), ["__main__", "no_such_module"]) is None
