"""What counts as the same call, and what its futures say."""

from __future__ import annotations

import io
import linecache
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import psutil
import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, CacheError, Executor, ResourceError, UnpicklableCall, keyed


def combine(journal: str, a: int, b: int = 2, *, c: int = 3) -> tuple[int, int, int]:
    calls.note(journal, f"combine {a} {b} {c}")
    return a, b, c


def environment(name: str) -> str | None:
    return os.environ.get(name)


# ------------------------------------------------------------------ what a future says


def test_what_futures_say(ex: Executor, journal: str, results: Path) -> None:
    first = ex.submit(calls.square, journal, 3)
    assert (first.cached, first.job_id) == (False, None)
    assert first.result() == 9
    again = ex.submit(calls.square, journal, 3)
    assert again.done()
    assert not again.running()
    assert not again.cancel()
    assert repr(again).endswith("'square' state=finished>")
    assert again.result() == 9
    assert repr(again).endswith("'square' state=finished returned int>")
    assert (again.cached, again.key, again.job_id) == (True, first.key, None)
    assert first.cached is False
    assert noted(journal) == ["square 3"]
    cache = Cache(results)
    assert cache.keys() == [first.key]
    assert cache[first.key].output == 9


def test_an_argument_that_was_a_result_is_said_to_be_one(ex: Executor, results: Path, journal: str) -> None:
    first = ex.submit(calls.square, journal, 3)
    then = ex.submit(combine, journal, first)
    assert then.result() == (9, 2, 3)
    said = Cache(results)[then.key or ""].ingredients["argument a"]
    assert said.partition(" ")[2] in ("9", f"the result of square {str(first.key)[:12]}")
    assert Cache(results)[then.key or ""].inputs == {first.key: "square"}


def test_the_key_is_known_while_the_call_runs(ex: Executor, gate: Any, place: str, journal: str) -> None:
    future = ex.submit(calls.held, journal, place, 1)
    assert future.key is not None
    gate.arrived()
    assert future.running()
    assert "state=running" in repr(future)
    gate.open()
    assert future.result() == 1


def test_a_dependent_knows_its_key_once_its_arguments_are_known(
    ex: Executor, gate: Any, place: str, journal: str
) -> None:
    first = ex.submit(calls.held, journal, place, 1)
    dependent = ex.submit(calls.square, journal, first)
    assert (dependent.key, dependent.cached) == (None, None)
    gate.open()
    assert dependent.result() == 1
    assert dependent.cached is False
    assert dependent.key == ex.submit(calls.square, journal, 1).key


def test_a_failed_call_is_not_remembered(ex: Executor, journal: str, results: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="the user's own"):
            ex.submit(calls.failing, journal, 1).result()
    assert noted(journal) == ["failing 1"] * 2
    assert [entry.state for entry in Cache(results)] == ["failed"]


def test_what_is_remembered_is_as_it_was_given(ex: Executor, journal: str, results: Path) -> None:
    items = [1, 2, 3]
    future = ex.submit(calls.consume, journal, items)
    assert future.result() == 6
    assert Cache(results)[future.key].args == (journal, [1, 2, 3])
    assert ex.submit(calls.consume, journal, [1, 2, 3]).cached


# ------------------------------------------------------------------ the same arguments


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1, 2), {}), ((1,), {"b": 2}), ((), {"b": 2, "a": 1}), ((1,), {"c": 3}), ((), {"c": 3, "a": 1, "b": 2})],
)
def test_however_arguments_are_spelled(ex: Executor, journal: str, args: tuple[int, ...], kwargs: Any) -> None:
    ex.submit(combine, journal, 1).result()
    again = ex.submit(combine, journal, *args, **kwargs)
    assert again.cached
    assert again.result() == (1, 2, 3)


@pytest.mark.parametrize("other", [1.0, True, "1", b"1", (1,), [1], None])
def test_equal_is_not_the_same(ex: Executor, other: Any) -> None:
    assert ex.submit(calls.pair, 1, 0).result() == (1, 0)
    future = ex.submit(calls.pair, other, 0)
    assert not future.cached
    value = future.result()[0]
    assert (type(value), value) == (type(other), other)


def test_order_and_identity_do_not_count(ex: Executor) -> None:
    inner = [1, 2]
    future = ex.submit(calls.pair, {"a": inner, "b": inner}, {"x", "y", "z"})
    future.result()
    again = ex.submit(calls.pair, {"b": [1, 2], "a": [1, 2]}, {"z", "y", "x"})
    assert again.cached
    assert ex.submit(calls.pair, {"b": [1, 2], "a": [2, 1]}, {"z", "y", "x"}).key != future.key


@pytest.mark.needs("numpy")
def test_large_arrays_are_whole_and_private(make: Any, ex: Executor) -> None:
    import numpy as np

    ones = ex.submit(np.ones, (1000, 1000))
    given = ones.result()
    given[0, 0] = 5  # what somebody does with a result is no part of the memory
    first, second = ex.submit(np.ones, (1000, 1000)), make().submit(np.ones, (1000, 1000))
    assert first.cached
    assert second.cached
    assert first.result().sum() == 1e6
    first.result()[:] = 0
    assert second.result().sum() == 1e6
    assert second.result().flags.writeable
    assert ex.submit(np.ones, (1000, 1000)).result().sum() == 1e6
    assert ex.submit(np.sum, ones).result() == 1e6 + 4  # it is passed on as it is now, and so it counts
    assert ex.submit(np.sum, first).result() == 0
    assert ex.submit(np.sum, ex.submit(np.ones, (1000, 1000))).result() == 1e6


# ------------------------------------------------------------------ the same function elsewhere

SCRIPT = """
    import sys
    from dataclasses import dataclass
    from callyard import Cache, Executor

    SCALE = 3

    @dataclass
    class Point:
        x: int
        tags: frozenset = frozenset(["a", "b", "c"])

    def helper(x):
        '''Scale it.'''
        return x * SCALE

    def move(point: Point, by: int = 1) -> Point:
        return Point(helper(point.x) + by)

    with Executor(1, cache=sys.argv[1]) as ex:
        future = ex.submit(move, Point(4))
        result = future.result()
        assert type(result) is Point
        assert isinstance(ex.submit(move, future).result(), Point)
        assert all(isinstance(entry.output, Point) for entry in Cache(sys.argv[1]) if entry.function == "move")
        print(future.key, future.cached, result.x, ex.submit(lambda p: p.x, result).result())
"""

REFORMATTED = """
    import os; import sys
    from dataclasses import dataclass
    # The same, seen by somebody with other habits.
    from callyard import Cache, Executor

    def move(point: "Point", by: int = 1):
        return Point(
            helper(point.x)
            + by  # a step
        )

    def helper( x ) : return (x*SCALE)

    @dataclass
    class Point:
        '''Somewhere.'''
        x: int
        tags: frozenset = frozenset(["c", "b", "a"])

    SCALE: int = 1 + 2

    if __name__ == "__main__":
        with Executor(1, cache=sys.argv[1]) as ex:
            future = ex.submit(point=Point(x=4), fn=None) if False else ex.submit(move, by=1, point=Point(x=4))
            result = future.result()
            assert type(result) is Point
            assert ex.submit(move, future).cached
            print(future.key, future.cached, result.x, ex.submit(lambda p: p.x, result).result())
"""


def run_script(text: str, directory: Path, results: Path, seed: int, *options: str) -> list[str]:
    directory.mkdir(parents=True)
    script = directory / f"script_{seed}.py"
    script.write_text(textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [sys.executable, *options, script.name, results],
        cwd=directory, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_other_processes_and_directories_and_formatting(tmp_path: Path, results: Path) -> None:
    first = run_script(SCRIPT, tmp_path / "one", results, 1)
    second = run_script(SCRIPT, tmp_path / "another" / "place", results, 2)
    third = run_script(REFORMATTED, tmp_path / "third", results, 3, "-W", "ignore")
    assert first[1:] == ["False", "13", "13"]
    assert second == third == [first[0], "True", "13", "13"]


def test_what_changes_it(tmp_path: Path, results: Path) -> None:
    keys = {run_script(SCRIPT, tmp_path / "one", results, 1)[0]}
    changes = [("SCALE = 3", "SCALE = 4"), ("return x *", "return 1 + x *"), ("by: int = 1", "by: int = 2")]
    for number, (old, new) in enumerate(changes):
        assert old in SCRIPT
        key, cached, *_ = run_script(SCRIPT.replace(old, new), tmp_path / str(number), results, 1)
        assert cached == "False"
        keys.add(key)
    assert len(keys) == 1 + len(changes)


def cell(number: int, text: str, namespace: dict[str, Any]) -> None:
    """Run it as notebooks do: code of a file that nobody has."""
    name, text = f"<cell {number}>", textwrap.dedent(text)
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)


def test_notebook_cells(ex: Executor) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    cell(1, "OFFSET = 10\ndef helper(x):\n    return x + OFFSET", namespace)
    cell(2, "def work(x):\n    return helper(x) * 2", namespace)
    first = ex.submit(namespace["work"], 1)
    assert first.result() == 22
    cell(3, "# once more\ndef work(x): return (helper(x)\n   * 2)", namespace)
    assert ex.submit(namespace["work"], 1).cached
    cell(4, "OFFSET = 20", namespace)
    changed = ex.submit(namespace["work"], 1)
    assert not changed.cached
    assert changed.result() == 42
    cell(5, "def helper(x):\n    return x - OFFSET", namespace)
    assert ex.submit(namespace["work"], 1).result() == -38
    cell(6, "OFFSET = 10\ndef helper(x):\n    return x + OFFSET", namespace)
    back = ex.submit(namespace["work"], 1)
    assert back.cached
    assert (back.key, back.result()) == (first.key, 22)


def test_lambdas_and_closures(ex: Executor) -> None:
    def adder(n: int) -> Callable[[int], int]:
        return lambda x: x + n

    futures = [ex.submit(adder(n), 1) for n in (1, 2, 1)]
    assert [future.result() for future in futures] == [2, 3, 2]
    assert futures[0].key == futures[2].key != futures[1].key


# ------------------------------------------------------------------ what else counts


def given(x: int, factor: int = 1) -> int:
    return x * factor


def factor_two() -> dict[str, int]:
    return {"factor": 2}


def factor_three() -> dict[str, int]:
    return {"factor": 3}


def set_mode(mode: str) -> None:
    os.environ["CALLYARD_TEST_MODE"] = mode


def test_init_function_counts_where_it_fills_something(make: Any) -> None:
    two, three = make(init_function=factor_two), make(init_function=factor_three)
    assert two.submit(given, 5).result() == 10
    assert three.submit(given, 5).result() == 15
    assert make(init_function=factor_two).submit(given, 5).cached
    plain = make().submit(given, 5, 7)
    assert plain.result() == 35
    spelled_out = [two.submit(given, 5, 7), three.submit(given, 5, factor=7)]
    assert all(future.cached and future.key == plain.key for future in spelled_out)


def test_initializer_and_its_arguments_count(make: Any) -> None:
    fast, slow = (make(initializer=set_mode, initargs=(mode,)) for mode in ("fast", "slow"))
    assert fast.submit(environment, "CALLYARD_TEST_MODE").result() == "fast"
    assert slow.submit(environment, "CALLYARD_TEST_MODE").result() == "slow"
    assert make(initializer=set_mode, initargs=("slow",)).submit(environment, "CALLYARD_TEST_MODE").result() == "slow"
    assert not make().submit(environment, "CALLYARD_TEST_MODE").cached


def test_an_initializer_without_a_meaning(results: Path) -> None:
    with open(os.devnull) as file, pytest.raises(CacheError, match="initializer"):
        Executor(1, cache=results, initializer=print, initargs=(file,))


def test_the_environment_counts(ex: Executor) -> None:
    values = []
    for value in ("1", "2", "1"):
        future = ex.submit(environment, "LEVEL", resource_dict={"env": {"LEVEL": value}})
        values.append((future.result(), bool(future.cached)))
    assert values == [("1", False), ("2", False), ("1", True)]


def test_other_resources_do_not_count(make: Any, journal: str, tmp_path: Path) -> None:
    ex = make(2)
    ex.submit(calls.square, journal, 3).result()
    others: list[dict[str, Any]] = [
        {"cores_per_rank": 2}, {"memory": 0.5}, {"run_time": 100}, {"cwd": tmp_path}, {"priority": 3},
        {"restart_limit": 1}, {"error_log_file": tmp_path / "log"},
    ]  # fmt: skip
    for resources in others:
        assert ex.with_resources(**resources).submit(calls.square, journal, 3).cached
    assert noted(journal) == ["square 3"]


def test_impossible_resources_are_refused_whether_remembered_or_not(ex: Executor) -> None:
    with pytest.raises(ResourceError, match="cores"):
        ex.submit(calls.pair, 1, 2, resource_dict={"cores_per_rank": 10_000})
    assert ex.submit(calls.pair, 1, 2).result() == (1, 2)


# ------------------------------------------------------------------ keys and places of the user's own


def test_a_key_of_the_users_own(ex: Executor, journal: str, results: Path) -> None:
    mine = ex.with_resources(cache_key="step-1")
    assert mine.submit(calls.square, journal, 3).result() == 9
    other = mine.submit(calls.square, journal, 4)  # another call by meaning: the key is theirs to choose
    assert (other.key, other.cached, other.result()) == ("step-1", True, 9)
    assert Cache(results)["step-1"].output == 9
    assert not ex.submit(calls.square, journal, 3).cached


def test_several_calls_do_not_share_a_key(ex: Executor, journal: str, results: Path) -> None:
    with pytest.raises(ResourceError, match="'step-1' is the key of one call, and map"):
        ex.with_resources(cache_key="step-1").map(calls.square, [journal] * 2, [3, 4])
    assert len(Cache(results)) == 0


def test_with_a_key_of_ones_own_anything_may_be_an_argument(make: Any, gate: Any) -> None:
    ex = make()
    mine = ex.with_resources(cache_key="generated")
    odd = (number for number in range(3))
    with pytest.raises(Exception, match="generator"):  # refused where it is sent, not where it is keyed
        mine.submit(calls.pair, odd, 1).result()
    first = ex.submit(calls.pair, 1, 2)
    assert mine.submit(calls.pair, first, 3).result() == ((1, 2), 3)
    assert mine.submit(calls.pair, odd, 1).cached


@pytest.mark.parametrize("key", ["", "a/b", "..", ".hidden", "a" * 300, "a\0b", "a\nb"])
def test_a_key_that_is_no_name(ex: Executor, results: Path, key: str) -> None:
    with pytest.raises((CacheError, ResourceError), match="key"):
        ex.submit(calls.pair, 1, 2, resource_dict={"cache_key": key})
    assert len(Cache(results)) == 0


def test_another_directory_for_a_call(ex: Executor, journal: str, tmp_path: Path, results: Path) -> None:
    other = ex.with_resources(cache_directory=tmp_path / "other")
    first = other.submit(calls.square, journal, 3)
    assert first.result() == 9
    assert other.submit(calls.square, journal, 3).cached
    here = ex.submit(calls.square, journal, 3)
    assert (here.cached, here.key) == (False, first.key)
    here.result()
    assert noted(journal) == ["square 3"] * 2
    assert [len(Cache(path)) for path in (results, tmp_path / "other")] == [1, 1]
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_cannot_be_used(ex: Executor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="file"):
        ex.submit(calls.pair, 1, 2, resource_dict={"cache_directory": tmp_path / "file"})
    assert ex.submit(calls.pair, 1, 2).result() == (1, 2)


@pytest.mark.parametrize("resource", ["cache_key", "cache_directory"])
def test_they_need_a_cache(resource: str) -> None:
    with Executor(1) as ex, pytest.raises(ResourceError, match=f"{resource} is for a cache"):
        ex.submit(abs, -1, resource_dict={resource: "x"})


# ------------------------------------------------------------------ what the user says of a function


def test_a_version_instead_of_the_code(ex: Executor, journal: str) -> None:
    def made(step: int, version: int) -> Callable[[str], int]:
        @keyed(version=version)
        def work(journal: str) -> int:
            calls.note(journal, f"step {step}")
            return step

        return work

    assert ex.submit(made(1, version=1), journal).result() == 1
    assert ex.submit(made(2, version=1), journal).result() == 1
    assert ex.submit(made(3, version=2), journal).result() == 3
    assert noted(journal) == ["step 1", "step 3"]


@keyed(ignore=["verbose", "log"])
def quiet(x: int, verbose: bool = False, log: Any = None) -> int:
    return x + verbose


def test_parameters_that_are_ignored(ex: Executor) -> None:
    assert ex.submit(quiet, 1).result() == 1
    again = ex.submit(quiet, 1, verbose=True)
    assert again.cached
    assert again.result() == 1
    assert ex.submit(quiet, 1, True, log=io.StringIO()).cached
    assert not ex.submit(quiet, 2).cached


def test_an_ignored_parameter_that_is_not_there() -> None:
    with pytest.raises(CacheError, match="'nothing' is no parameter"):
        keyed(ignore=["nothing"])(calls.pair)


# ------------------------------------------------------------------ what has no meaning


class Handle:
    """Refuses to say what it is."""

    def __reduce__(self) -> Any:
        raise TypeError("a handle stays here")

    def method(self) -> None: ...


def test_an_argument_without_a_meaning(ex: Executor, results: Path) -> None:
    with pytest.raises(CacheError, match=r"argument 'other' of 'pair'.*other\[1\]\['deep'\] is a Handle"):
        ex.submit(calls.pair, 1, other=[0, {"deep": Handle()}])
    assert ex.submit(calls.pair, 1, 2).result() == (1, 2)
    assert len(Cache(results)) == 1


def test_a_function_without_a_meaning(ex: Executor) -> None:
    with pytest.raises(CacheError, match="the function 'method' cannot be cached: it holds a Handle"):
        ex.submit(Handle().method)


def test_what_a_function_reaches_without_a_meaning(ex: Executor) -> None:
    calls_made: Any = threading.Lock()
    with pytest.warns(UserWarning, match="whatever .*calls_made holds"):
        future = ex.submit(lambda x: x + (1 if calls_made is None else 0), 1)
    with pytest.raises(UnpicklableCall):
        future.result()


def test_a_type_that_is_taught(ex: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    from callyard.hashing import encoder

    monkeypatch.setattr(encoder, "_registered", {**encoder._registered})

    class Door:
        def __init__(self, number: int) -> None:
            self.number, self.visitors = number, [number] * 3

    Cache.register(Door, lambda door: door.number)
    door = Door(1)
    assert ex.submit(lambda door: door.number, door).result() == 1
    door.visitors.append(4)
    assert ex.submit(lambda door: door.number, door).cached
    assert not ex.submit(lambda door: door.number, Door(2)).cached


# ------------------------------------------------------------------ the rest of the executor


def test_map(ex: Executor, make: Any, journal: str) -> None:
    assert list(ex.map(calls.square, [journal] * 4, range(4))) == [0, 1, 4, 9]
    again = make()
    assert list(again.map(calls.square, [journal] * 6, range(6))) == [0, 1, 4, 9, 16, 25]
    assert again.submit(calls.square, journal, 5).cached
    assert sorted(noted(journal)) == [f"square {i}" for i in range(6)]


def test_map_in_chunks(ex: Executor, make: Any, journal: str) -> None:
    for _ in range(2):
        assert list(ex.map(calls.square, [journal] * 4, range(4), chunksize=3)) == [0, 1, 4, 9]
    assert sorted(noted(journal)) == [f"square {i}" for i in range(4)]
    assert not ex.submit(calls.square, journal, 1).cached  # a chunk is one call
    with make(init_function=factor_three) as three:
        assert list(three.map(given, range(3), chunksize=2)) == [0, 3, 6]
    with make(init_function=factor_two) as two:
        assert list(two.map(given, range(3), chunksize=2)) == [0, 2, 4]


def test_other_faces_share_the_memory(ex: Executor, journal: str) -> None:
    other = ex.with_resources(memory=0.5)
    assert other.submit(calls.square, journal, 3).result() == 9
    assert ex.submit(calls.square, journal, 3).cached
    other.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.submit(calls.square, journal, 3)


def test_no_calls_after_shutdown_not_even_remembered_ones(ex: Executor, journal: str) -> None:
    ex.submit(calls.square, journal, 3).result()
    ex.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.submit(calls.square, journal, 3)


def test_one_that_only_answers_starts_no_worker(make: Any, journal: str) -> None:
    with make() as first:
        first.submit(calls.square, journal, 3).result()
    with make() as second:
        before = psutil.Process().children()
        assert second.submit(calls.square, journal, 3).result() == 9
        assert psutil.Process().children() == before


def test_repr(make: Any, results: Path) -> None:
    assert f"cache in {results}>" in repr(make())
    assert f"cache in {results} (refresh)" in repr(make(cache=Cache(results, mode="refresh")))


def test_methods_and_classes(ex: Executor) -> None:
    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def run(self, x: int) -> int:
            return self.factor * x

    assert ex.submit(Model(2).run, 3).result() == 6
    assert ex.submit(Model(2).run, 3).cached
    assert ex.submit(Model(3).run, 3).result() == 9
    made = ex.submit(Model, 4)
    assert made.result().run(2) == 8
    assert ex.submit(Model, factor=4).cached
    assert type(ex.submit(Model, 4).result()) is Model


def test_what_is_not_a_function(ex: Executor) -> None:
    assert ex.submit(max, [1, 5, 2]).result() == 5
    assert ex.submit(max, [1, 5, 2]).cached
    assert isinstance(test_repr, FunctionType)
    for nothing in (3, None, "max"):
        with pytest.raises(TypeError, match="not callable"):
            ex.submit(nothing).result()  # type: ignore[arg-type]
