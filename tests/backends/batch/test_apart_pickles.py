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
from callyard.hashing.call_key import call_key

MODULE = """
import pickled_apart_helper
import threading
LOCK = threading.Lock()
TABLE = [1]
class Point:
    def __init__(self, x): self.x = x
def work(x):
    return pickled_apart_helper.twice(x), TABLE
def uses_point(x):
    return pickled_apart_helper.twice(x)
def locked():
    return LOCK
"""
MODULES = ["pickled_apart", "pickled_apart_helper"]


def pickled(pickles: ApartPickles, function: Any, *args: Any) -> Any:
    key = call_key(function, args, {})
    return pickles.of((function, args, {}), frozenset(reference[0] for reference in key.references), key.reach)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pickled_apart.py").write_text(MODULE)
    (tmp_path / "pickled_apart_helper.py").write_text("def twice(x): return x, 'inside the helper'\n")
    import pickled_apart  # type: ignore[import-not-found]

    yield pickled_apart
    for name in MODULES:
        del sys.modules[name]


def test_a_function_is_pickled_again_after_a_change(module: Any) -> None:
    pickles = ApartPickles(LargeContents())
    one, other = (pickled(pickles, module.work, x) for x in (1, 2))
    assert one[0] is other[0]
    assert one[1] != other[1]
    module.TABLE.append(2)
    changed = pickled(pickles, module.work, 1)
    assert changed[0] != one[0]
    assert changed[1] == one[1]


def test_what_arguments_share_with_the_function_is_in_one_pickle(module: Any) -> None:
    assert len(pickled(ApartPickles(LargeContents()), module.work, module.TABLE)) == 1


def _has_helper(found: Any) -> bool:
    return any(b"inside the helper" in part.data for part in found)


def test_calls_that_would_cost_too_much_have_only_the_modules_that_they_name(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickles = ApartPickles(LargeContents())
    assert _has_helper(pickled(pickles, module.uses_point, module.Point(1)))
    monkeypatch.setattr(apart_pickles, "_MANY", 1)
    assert _has_helper(pickled(pickles, module.uses_point, 1))
    assert not _has_helper(pickled(pickles, module.uses_point, module.Point(1)))


@pytest.mark.filterwarnings("ignore:.*LOCK holds")
def test_what_cannot_be_sent_has_no_second_form(module: Any) -> None:
    pickles = ApartPickles(LargeContents())
    for _ in range(2):
        assert pickled(pickles, module.locked) is None


def test_without_modules_that_a_job_imports_there_is_no_second_form() -> None:
    assert pickled(ApartPickles(LargeContents()), len, ()) is None
