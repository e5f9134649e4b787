"""A memory in front of other executors: of threads, of processes, and of ones that do as they please."""

from __future__ import annotations

import concurrent.futures as standard
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, CacheError, CallyardError, Executor, ResourceError
from callyard.backends.cached.shared_call import SharedCall

Make = Callable[..., Executor]


def started(pool: standard.Executor) -> standard.Executor:
    """With its worker there: one that starts later would look left behind."""
    pool.submit(calls.pair, 1, 2).result()
    return pool


@pytest.fixture(scope="module")
def process_pool() -> Iterator[standard.Executor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool:
        yield started(pool)


@pytest.fixture(scope="module")
def spawn_pool() -> Iterator[standard.Executor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield started(pool)


@pytest.fixture(scope="module")
def thread_pool() -> Iterator[standard.Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield started(pool)


@pytest.fixture(params=["thread_pool", "process_pool", "spawn_pool"])
def pool(
    request: pytest.FixtureRequest,
    thread_pool: standard.Executor,
    process_pool: standard.Executor,
    spawn_pool: standard.Executor,
) -> standard.Executor:
    return {"thread_pool": thread_pool, "process_pool": process_pool, "spawn_pool": spawn_pool}[request.param]


@pytest.fixture
def other(pool: standard.Executor, make: Make) -> Executor:
    return make(2, backend=pool)


# ------------------------------------------------------------------ every pool


def test_remembers(other: Executor, make: Make, journal: str, results: Path) -> None:
    first = other.submit(calls.square, journal, 3)
    assert first.result() == 9
    again = other.submit(calls.square, journal, 3)
    assert (again.cached, again.key, again.result()) == (True, first.key, 9)
    assert make().submit(calls.square, journal, 3).cached  # whoever ran it
    assert noted(journal) == ["square 3"]
    entry = Cache(results)[first.key]
    assert (entry.output, entry.args) == (9, (journal, 3))


def test_what_others_remember_is_used(other: Executor, make: Make, journal: str) -> None:
    ex = make()
    assert ex.submit(calls.square, journal, 3).result() == 9
    assert other.submit(calls.square, journal, 3).cached
    waiting: standard.Future[int] = standard.Future()
    late = other.submit(calls.square, journal, waiting)
    waiting.set_result(3)
    assert late.result() == 9
    assert noted(journal) == ["square 3"]


def test_identical_calls_run_once(other: Executor, journal: str, gate: Any, place: str) -> None:
    first, second = (other.submit(calls.held, journal, place, 1) for _ in range(2))
    gate.arrived()
    assert first.running()
    assert not second.cancel()
    gate.open()
    assert (first.result(), second.result()) == (1, 1)
    assert noted(journal) == ["held 1"]


def test_waits_for_another_executor(
    other: Executor, make: Make, journal: str, gate: Any, place: str, messages: Any
) -> None:
    ours = make()
    first = ours.submit(calls.held, journal, place, 1)
    gate.arrived()
    second = other.submit(calls.held, journal, place, 1)
    messages.wait("waiting for its result")
    assert "waiting for" in repr(second)
    gate.open()
    assert (first.result(), second.result()) == (1, 1)
    assert noted(journal) == ["held 1"]


def test_dependents(other: Executor, journal: str) -> None:
    four = other.submit(calls.square, journal, 2)
    assert other.submit(calls.square, journal, [four][0]).result() == 16
    assert other.submit(calls.square, journal, 4).cached


def test_failures(other: Executor, make: Make, pool: standard.Executor, journal: str, results: Path) -> None:
    for _ in range(2):
        error = other.submit(calls.failing, journal, 1).exception()
        assert isinstance(error, ValueError)
        assert other.submit(calls.square, journal, other.submit(calls.failing, journal, 2)).exception() is not None
    assert sorted(noted(journal)) == ["failing 1"] * 2 + ["failing 2"] * 2
    keeping = make(2, backend=pool, cache=Cache(results, failures=True))
    for cached in (False, True):
        future = keeping.submit(calls.failing, journal, 3)
        assert isinstance(future.exception(), ValueError)
        assert future.cached is cached
    assert noted(journal).count("failing 3") == 1


def test_arguments_are_stored_as_they_were(other: Executor, results: Path, journal: str) -> None:
    future = other.submit(calls.consume, journal, [1, 2, 3])
    assert future.result() == 6
    assert Cache(results)[future.key].args == (journal, [1, 2, 3])


def test_refresh_and_read_only(pool: standard.Executor, make: Make, results: Path, journal: str) -> None:
    make(2, backend=pool).submit(calls.square, journal, 3).result()
    assert make(2, backend=pool, cache=Cache(results, mode="refresh")).submit(calls.square, journal, 3).result() == 9
    reading = make(2, backend=pool, cache=Cache(results, mode="read-only"))
    assert reading.submit(calls.square, journal, 3).cached
    assert reading.submit(calls.square, journal, 4).result() == 16
    assert noted(journal) == ["square 3", "square 3", "square 4"]
    assert len(Cache(results)) == 1


def test_keys_and_directories_of_the_users_own(other: Executor, tmp_path: Path, journal: str) -> None:
    mine = other.with_resources(cache_key="mine", cache_directory=tmp_path / "mine")
    assert mine.submit(calls.square, journal, 3).result() == 9
    assert mine.submit(calls.square, journal, 4).cached
    assert Cache(tmp_path / "mine")["mine"].output == 9
    assert noted(journal) == ["square 3"]


def test_resources_that_cannot_be_passed_on(other: Executor, make: Make, journal: str) -> None:
    make().submit(calls.square, journal, 5, resource_dict={"memory": 0.5}).result()
    assert other.submit(calls.square, journal, 5, resource_dict={"memory": 0.5}).cached  # nothing runs
    for resource in ({"memory": 0.5}, {"ranks": 2}, {"env": {"A": "b"}}):
        with pytest.raises(ResourceError, match="cannot be passed on"):
            other.submit(calls.square, journal, 6, resource_dict=resource)
    assert other.submit(calls.square, journal, 6).result() == 36


def test_map(other: Executor, make: Make, journal: str) -> None:
    assert list(other.map(calls.square, [journal] * 4, range(4))) == [0, 1, 4, 9]
    assert list(other.map(calls.square, [journal] * 4, range(4), chunksize=2)) == [0, 1, 4, 9]
    assert all(make().submit(calls.square, journal, x).cached for x in range(4))


@pytest.mark.parametrize("how", ["elsewhere", "missing"])
def test_a_runner_that_does_not_see_the_directory(
    other: Executor, how: str, results: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and the result is stored by the process that asked for it."""
    make_order = SharedCall.order

    def order(self: Any) -> Any:
        changes = {"inode": 0} if how == "elsewhere" else {"directory": "/nonexistent/results"}
        return make_order(self).replace(**changes)

    monkeypatch.setattr(SharedCall, "order", order)
    first = other.submit(calls.square, journal, 3)
    assert first.result() == 9
    assert other.submit(calls.square, journal, first).result() == 81
    assert other.submit(calls.square, journal, 3).cached
    assert other.submit(calls.failing, journal, 3).exception() is not None
    assert [(entry.output, entry.args) for entry in Cache(results)] == [(9, (journal, 3)), (81, (journal, 9))]
    assert noted(journal) == ["square 3", "square 9", "failing 3"]


# ------------------------------------------------------------------ threads


def test_threads_get_the_very_object_the_first_time(make: Make) -> None:
    with ThreadPoolExecutor(1) as threads:
        ex = make(1, backend=threads)
        made = ex.submit(list, (1, 2))
        assert made.result() is made.result()
        again = ex.submit(list, (1, 2))
        assert again.cached
        assert again.result() == [1, 2]
        assert again.result() is not made.result()


def test_an_argument_that_cannot_be_stored(make: Make, results: Path, messages: Any) -> None:
    """What cannot be pickled cannot be stored, and the call has its result all the same."""
    lock = threading.Lock()
    with ThreadPoolExecutor(1) as threads:
        ex = make(1, backend=threads).with_resources(cache_key="locked")
        assert ex.submit(calls.pair, lock, 1).result() == (lock, 1)
        messages.wait("was not stored")
    assert len(Cache(results)) == 0


def test_a_dependent_without_a_meaning(make: Make) -> None:
    with ThreadPoolExecutor(1) as threads:
        ex = make(1, backend=threads)
        late: standard.Future[Any] = standard.Future()
        future = ex.submit(calls.pair, late, 1)
        late.set_result([threading.Lock()])
        with pytest.raises(CacheError, match=r"argument 'one' of 'pair' cannot be cached: one\[0\] is a lock"):
            future.result()


def total(journal: str, values: list[int]) -> int:
    calls.note(journal, "total")
    return sum(values) * SCALE


SCALE = 1


@pytest.mark.parametrize("change", ["argument", "global", "result"])
def test_what_is_changed_before_the_call_runs_is_not_stored(
    make: Make, gate: Any, place: str, journal: str, results: Path, messages: Any, change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Threads are given the very objects, so the call is another one then; it runs, as it does without a cache."""
    with ThreadPoolExecutor(1) as threads:
        ex = make(None, backend=threads)
        values = [1, 2]
        made = ex.submit(list, values) if change == "result" else values
        if change == "result":
            values = made.result()
        blocker = ex.submit(calls.held, journal, place, 0)
        gate.arrived()
        future = ex.submit(total, journal, made)
        if change == "global":
            monkeypatch.setattr(sys.modules[__name__], "SCALE", 10)
        else:
            values.append(27)
        gate.open()
        assert "its arguments or its code were changed" in messages.wait("was not stored")
        assert future.result() == 30
        assert blocker.result() == 0
    monkeypatch.undo()
    assert future.key not in Cache(results)
    assert list(Cache(results)._claims.running()) == []
    again = make().submit(total, journal, [1, 2])
    assert (again.key, again.result()) == (future.key, 3)


def test_what_is_changed_before_it_is_sent_is_not_stored(
    process_pool: standard.Executor, make: Make, gate: Any, place: str, journal: str, results: Path, messages: Any
) -> None:
    """Pools of processes pickle a call when a worker is about to be free."""
    values = [1, 2]
    ex = make(None, backend=process_pool)
    ex.submit(calls.held, journal, place, 0)
    gate.arrived()
    others = [ex.submit(calls.pair, number, 0) for number in range(5)]
    future = ex.submit(calls.consume, journal, values)
    values.append(27)
    gate.open()
    messages.wait("was not stored")
    assert future.result() == 30
    assert future.key not in Cache(results)
    standard.wait(others)


def test_what_the_call_itself_changes_is_stored(make: Make, journal: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        ex = make(None, backend=threads)
        assert ex.submit(calls.consume, journal, [1, 2]).result() == 3
        assert ex.submit(calls.consume, journal, [1, 2]).cached


# ------------------------------------------------------------------ processes


def test_a_worker_that_has_another_version(
    process_pool: standard.Executor, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str
) -> None:
    """The pool sends names only, so nothing can be done but to say so."""
    monkeypatch.setattr(calls, "square", calls.square)
    code = calls.square.__code__
    monkeypatch.setattr(calls.square, "__code__", code.replace(co_consts=(*code.co_consts, "another")))
    monkeypatch.setattr(calls, "note", calls.stay)
    ex = make(1, backend=process_pool)
    with pytest.raises(CallyardError, match=r"another version of remembered_calls .* make a new executor"):
        ex.submit(calls.square, journal, 3).result()
    assert noted(journal) == []
    assert ex.submit(calls.pair, 1, 2).result() == (1, 2)


def test_it_is_the_worker_that_stores(process_pool: standard.Executor, make: Make, results: Path) -> None:
    future = make(1, backend=process_pool).submit(os.getpid)
    pid = future.result()
    assert pid != os.getpid()
    assert Cache(results)[future.key].facts["pid"] == pid


SCRIPT = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from callyard import Executor

@dataclass
class Point:
    x: int

def move(point: Point, by: int = 1) -> Point:
    return Point(point.x + by)

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")  # its workers call this script __mp_main__
    with ProcessPoolExecutor(1, spawn) as pool, Executor(backend=pool, cache=sys.argv[1]) as ex:
        first = ex.submit(move, Point(4))
        second = ex.submit(move, first)
        assert type(second.result()) is Point
        assert ex.submit(move, Point(5)).key == second.key
        print(first.cached, second.cached, second.result().x)
"""


def test_classes_of_a_script(tmp_path: Path, results: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", script, results]
    said = [
        subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout for _ in range(2)
    ]
    assert said == ["False False 6\n", "True True 6\n"]


# ------------------------------------------------------------------ an executor of its own kind


class Stubborn(standard.Executor):
    """Runs calls when it is told to, and lets nobody cancel."""

    class Future(standard.Future):  # type: ignore[type-arg]
        def cancel(self) -> bool:
            return False

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future = self.Future()
        self.calls.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        while self.calls:
            future, call = self.calls.pop(0)
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)


def test_calls_that_cannot_be_cancelled(make: Make, journal: str) -> None:
    stubborn = Stubborn()
    ex = make(None, backend=stubborn)
    futures = [ex.submit(calls.square, journal, 3) for _ in range(2)]
    futures.append(ex.submit(calls.square, journal, 4))
    assert len(stubborn.calls) == 2
    assert futures[0].cancel()  # the other still wants it
    assert not futures[1].cancel()
    assert not futures[2].cancel()
    stubborn.run()
    assert [future.result() for future in futures[1:]] == [9, 16]
    assert ex.submit(calls.square, journal, 3).cached
    assert noted(journal) == ["square 3", "square 4"]


def test_results_of_others_arrive_first(make: Make, journal: str) -> None:
    """Stored by another executor while the call lay in the queue: the runner finds it and runs nothing."""
    stubborn = Stubborn()
    ex = make(None, backend=stubborn)
    future = ex.submit(calls.square, journal, 3)
    assert make().submit(calls.square, journal, 3).result() == 9
    stubborn.run()
    assert future.result() == 9
    assert noted(journal) == ["square 3"]


class Refusing(standard.Executor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("closed on Sundays")


def test_an_executor_that_refuses(make: Make, journal: str) -> None:
    ex = make(1, backend=Refusing())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed on Sundays"):
            ex.submit(calls.square, journal, 3).result()
    make().submit(calls.square, journal, 3).result()
    assert ex.submit(calls.square, journal, 3).result() == 9
