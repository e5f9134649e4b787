"""Files of earlier versions: each of their values is read, and their calls are answered.

`penstock-1` and `penstock-2` were written under the name that the project had before, in formats 1 and 2; `callyard-2`
names the modules as they were when this test was written. If that one fails, a module has moved that files name: it
belongs into `MOVED` then.
"""

from __future__ import annotations

import collections
import fractions
import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import callyard
from callyard import Cache, CallyardError, Executor, JobLost, Resources, VersionMismatch
from callyard.cache.entry import Entry
from callyard.cache.format.unpickle import MOVED, loads
from callyard.cli import main

FILES = Path(__file__).parent / "files"
NUMBER = "8ff0aa837d54725e605fc0dff0fc2d32702aae7b"  # with Python 3.11, under which the files were written
BYTECODE = ("cell", "function", "tree", "refused", "length")  # what holds the definitions of a script
SAME_PYTHON = sys.implementation.cache_tag == "cpython-311"

same_python = pytest.mark.skipif(not SAME_PYTHON, reason="the key has the version of Python in it")


@pytest.fixture(params=["penstock-1", "penstock-2", "callyard-2"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A copy that is safe: what git writes may be open to a group."""
    monkeypatch.syspath_prepend(str(FILES))
    directory = tmp_path / request.param
    shutil.copytree(FILES / request.param, directory)
    for folder, _, files in os.walk(directory):
        os.chmod(folder, 0o700)
        for file in files:
            os.chmod(os.path.join(folder, file), 0o600)
    return Cache(directory, failures=True)


@pytest.fixture
def earlier(cache: Cache) -> Any:
    return importlib.import_module("earlier_calls")


def entry(cache: Cache, key: str) -> Entry:
    if key not in cache:
        pytest.skip("not among the files of format 1")
    if key in BYTECODE and not SAME_PYTHON:
        with pytest.raises(VersionMismatch, match="it holds code of cpython-311"):
            values(cache[key])
        pytest.skip("bytecode of another Python, which was refused")
    return cache[key]


def values(entry: Entry) -> list[object]:
    return [entry.args, entry.kwargs, entry.output, entry.error]


def test_every_file_is_whole(cache: Cache) -> None:
    check = cache.check()
    assert check.ok, str(check)
    assert check.whole == len(cache) >= 7


def test_what_needs_no_code_is_read(cache: Cache, earlier: Any) -> None:
    found = {entry.function: entry for entry in cache}
    assert values(found["number"]) == [(2,), {}, 3.0, None]
    assert values(found["added"]) == [(3.0,), {"y": 3.0}, 6.0, None]
    ordered = found["ordered"].output
    assert type(ordered) is collections.OrderedDict
    assert list(ordered) == ["a", "b"]
    assert ordered["b"] == fractions.Fraction(1, 3)
    np.testing.assert_array_equal(ordered["a"], np.arange(3))


def test_our_own_objects_are_read(cache: Cache) -> None:
    assert entry(cache, "resources").output == Resources(cores_per_rank=1)
    lost = entry(cache, "lost").output
    assert type(lost) is JobLost
    assert lost.args == ("gone",)


def test_named_tuples_are_read(cache: Cache, earlier: Any) -> None:
    point = entry(cache, "point").output
    assert type(point) is earlier.Point
    assert point.x == 1
    np.testing.assert_array_equal(point.y, np.ones(2))


def test_failures_are_read(cache: Cache) -> None:
    error = entry(cache, "bad").error
    assert type(error) is ZeroDivisionError
    assert str(error) == "by zero"
    assert "raise ZeroDivisionError" in (cache["bad"].traceback or "")


def test_exceptions_of_a_script_are_read(cache: Cache) -> None:
    error = entry(cache, "refused").error
    assert type(error).__name__ == "Refused"
    assert isinstance(error, Exception)
    assert error.args == ("no", 1)


def test_classes_of_a_script_are_read(cache: Cache) -> None:
    cell = entry(cache, "cell").output
    assert (type(cell).__name__, cell.edge) == ("Cell", 2.0)
    np.testing.assert_array_equal(cell.atoms, np.arange(3.0))


def test_classes_that_know_each_other_are_read(cache: Cache) -> None:
    tree, kind = entry(cache, "tree").output
    assert type(tree) is type(tree.child) is kind
    assert tree.hello() == "hello!"


def test_functions_of_a_script_are_read(cache: Cache) -> None:
    assert entry(cache, "function").output(1) == 6


def test_arguments_are_read(cache: Cache) -> None:
    (cell,) = entry(cache, "length").args
    assert cell.edge == 3.0


def test_calls_with_keys_of_their_own_are_answered(cache: Cache, earlier: Any) -> None:
    with Executor(max_workers=1, cache=cache) as executor:
        future = executor.submit(earlier.ordered, 3, resource_dict={"cache_key": "ordered"})
        failed = executor.submit(earlier.number, 1, resource_dict={"cache_key": "bad"})
        assert future.result()["b"] == fractions.Fraction(1, 3)
        assert type(failed.exception()) is ZeroDivisionError
        assert future.cached
        assert failed.cached


@same_python
def test_calls_are_found_by_what_they_mean(cache: Cache, earlier: Any) -> None:
    """Not those of format 1: what functions and arguments mean was written down otherwise then."""
    if NUMBER not in cache:
        pytest.skip("format 1")
    with Executor(max_workers=1, cache=cache) as executor:
        first = executor.submit(earlier.number, 2)
        then = executor.submit(earlier.added, first, y=first)
        assert [first.result(), then.result()] == [3.0, 6.0]
        assert (first.key, first.cached, then.cached) == (NUMBER, True, True)


def test_new_calls_are_stored_beside_them(cache: Cache, earlier: Any) -> None:
    with Executor(max_workers=1, cache=cache) as executor:
        key = executor.submit(earlier.number, 100).key
    assert cache[str(key)].path.read_bytes().startswith(b"CALLYARD 3 ")
    assert cache.check().ok


def test_the_command_shows_them(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", cache.path]) == 0
    assert "ordered" in capsys.readouterr().out
    assert main(["show", cache.path, "resources"]) == 0
    assert "Resources(ranks=1, cores_per_rank=1" in capsys.readouterr().out


def test_a_call_may_take_what_an_earlier_one_returned(cache: Cache, earlier: Any) -> None:
    with Executor(max_workers=1, cache=cache) as executor:
        ordered = executor.submit(earlier.ordered, 3, resource_dict={"cache_key": "ordered"})
        assert executor.submit(len, ordered).result() == 2


def test_the_base_of_all_errors_is_found_by_its_earlier_name() -> None:
    assert loads(b"cpenstock.errors\nPenstockError\n.") is CallyardError


EARLIER = {
    "callyard.cache.cache": "Cache",
    "penstock.backends.local": "Local",
    "penstock.backends.slurm": "Slurm",
    "penstock.cache.cache": "Cache",
    "penstock.errors": "JobLost NodeFailure WorkerLost CacheError",
    "penstock.errors.broken": "NodeFailure WorkerLost",
    "penstock.executor": "Executor",
    "penstock.futures": "Future item unzip batched",
    "penstock.keys.keyed": "keyed",
    "penstock.resources": "Resources",
}


@pytest.mark.parametrize(("module", "names"), EARLIER.items())
def test_public_names_are_found_where_they_were(module: str, names: str) -> None:
    for name in names.split():
        assert loads(f"c{module}\n{name}\n.".encode()) is getattr(callyard, name)


def test_what_has_moved_is_there() -> None:
    assert set(EARLIER) < set(MOVED)
    assert all(map(importlib.import_module, MOVED.values()))
