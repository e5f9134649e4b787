"""Futures as arguments of remembered calls: they count as their results, which nobody has to load."""

from __future__ import annotations

import concurrent.futures as standard
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, CacheError, Executor, Future, batched, item, keyed, unzip
from callyard.cache.format.record_file import Stored


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """From now on nothing can be loaded from the cache."""

    def refuse(self: Stored) -> Any:
        raise AssertionError("a result was loaded")

    monkeypatch.setattr(Stored, "output", refuse)
    return monkeypatch


@dataclass
class Job:
    name: str
    inputs: list[Any]


def total(journal: str, job: Job, more: dict[str, Any]) -> int:
    calls.note(journal, "total")
    return sum(job.inputs) + sum(more["values"])


def numbers(journal: str) -> tuple[int, list[int]]:
    calls.note(journal, "numbers")
    return 1, [2, 3]


class Door:
    """Has no meaning, but can be pickled, by protocols that are newer than the one that keys ask for."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        if protocol < 5:
            raise TypeError("a door means nothing")
        return Door, ()


def door(journal: str) -> Door:
    calls.note(journal, "door")
    return Door()


def kind(value: Any) -> str:
    return type(value).__name__


# ------------------------------------------------------------------ keys


def test_a_future_and_its_value_are_the_same(ex: Executor, journal: str) -> None:
    four = ex.submit(calls.square, journal, 2)
    dependent = ex.submit(calls.square, journal, four)
    assert dependent.result() == 16
    plain = ex.submit(calls.square, journal, 4)
    assert plain.cached
    assert plain.key == dependent.key
    assert noted(journal) == ["square 2", "square 4"]


def test_a_chain_is_answered_at_submit(make: Any, journal: str, unloadable: pytest.MonkeyPatch) -> None:
    with unloadable.context() as normally, make() as first:
        normally.undo()
        future: Any = 2
        for _ in range(3):
            future = first.submit(calls.square, journal, future)
        assert future.result() == 256
    unloadable.setattr(Stored, "output", lambda self: pytest.fail("a result was loaded"))
    with make() as second:
        chain: list[Future[Any]] = []
        future = 2
        for _ in range(3):
            future = second.submit(calls.square, journal, future)
            assert future.done()
            assert future.cached
            chain.append(future)
        unloadable.undo()
        assert [future.result() for future in chain] == [4, 16, 256]
    assert noted(journal) == ["square 2", "square 4", "square 16"]


def test_futures_inside_other_things(ex: Executor, make: Any, journal: str) -> None:
    def submit(one: Any, two: Any, ex: Executor = ex) -> Any:
        return ex.submit(total, journal, Job("a", [one, 10]), more={"values": (two, one), "none": {}})

    one, two = ex.submit(calls.square, journal, 1), ex.submit(calls.square, journal, 2)
    future = submit(one, two)
    assert future.result() == 16
    assert submit(1, 4).cached
    assert submit(one, 4).cached
    assert submit(one, 4, make()).cached
    assert not submit(two, two).cached


@dataclass(frozen=True)
class Place:
    number: Any


UNORDERED: dict[str, Callable[[Any], Any]] = {
    "set": lambda two: {two, 1, 3},
    "frozenset": lambda two: frozenset([two, 4]),
    "keys": lambda two: {two: 1, 1: 2, 3: 3},
    "tuples": lambda two: {(two, 1), (1, 2), (3,)},
    "dataclasses": lambda two: {Place(1), Place(two), Place(3)},
}


@pytest.mark.parametrize("name", UNORDERED)
def test_futures_where_the_order_does_not_count(make: Any, journal: str, tmp_path: Path, name: str) -> None:
    """Their keys are the same before and after the end of the future, and wherever the call runs."""
    put, ex, threads = UNORDERED[name], make(), standard.ThreadPoolExecutor(1)
    pending: standard.Future[int] = standard.Future()
    early = ex.submit(kind, put(pending))
    pending.set_result(2)
    remembered = ex.submit(calls.plus, journal, 1, 1)
    assert remembered.result() == 2
    with threads, Executor(backend=threads, cache=tmp_path / "others") as other:
        late = [executor.submit(kind, put(remembered)) for executor in (ex, other)]
        assert [future.result() for future in (early, *late)] == [kind(put(2))] * 3
        known = [executor.submit(kind, put(2)) for executor in (ex, other)]
        assert {future.key for future in (*late, *known)} == {early.key}
        assert all(future.cached for future in known)


def test_futures_of_others(make: Any, ex: Executor, journal: str) -> None:
    done: standard.Future[int] = standard.Future()
    done.set_result(4)
    pending: standard.Future[int] = standard.Future()
    with Executor(1) as plain:
        from_another = plain.submit(calls.square, journal, 2)
        from_another.result()
        first = ex.submit(calls.square, journal, done)
        waiting = ex.submit(calls.square, journal, pending)
        assert waiting.key is None
        pending.set_result(4)
        assert first.result() == waiting.result() == 16
        assert first.key == waiting.key
        assert ex.submit(calls.square, journal, from_another).cached
        remembered = make().submit(calls.square, journal, 2)
        assert plain.submit(calls.square, journal, remembered).result() == 16  # and the other way round
    assert noted(journal).count("square 4") == 2


class Foreign:
    """A future of no library that is known."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def result(self, timeout: float | None = None) -> Any:
        return self.value

    def exception(self, timeout: float | None = None) -> None:
        return None

    def add_done_callback(self, fn: Any) -> None:
        fn(self)


def test_a_future_of_no_known_library(ex: Executor, journal: str) -> None:
    assert ex.submit(calls.square, journal, Foreign(3)).result() == 9
    assert ex.submit(calls.square, journal, 3).cached


def test_parts_of_results(ex: Executor, make: Any, journal: str) -> None:
    for executor, cached in ((ex, False), (make(), True)):
        both = executor.submit(numbers, journal)
        one, rest = unzip(both, 2)
        futures = [
            executor.submit(calls.pair, item(both, 0), item(item(both, 1), 1)),
            executor.submit(calls.pair, rest, one),
            *(executor.submit(calls.pair, batch, 0) for batch in batched([both, both], 2)),
        ]
        whole = (1, [2, 3])
        assert [future.result() for future in futures] == [(1, 3), ([2, 3], 1), ((whole, whole), 0)]
        assert [bool(future.cached) for future in futures] == [cached] * 3
    assert ex.submit(calls.pair, 1, 3).cached
    assert noted(journal) == ["numbers"]


def test_a_result_without_a_meaning_counts_as_its_call(ex: Executor, make: Any, journal: str) -> None:
    made = ex.submit(door, journal)
    first = ex.submit(kind, made)
    assert first.result() == "Door"
    with pytest.raises(CacheError, match="a door means nothing"):
        ex.submit(kind, made.result())
    other = make()
    again = other.submit(kind, other.submit(door, journal))
    assert again.cached
    assert again.key == first.key


# ------------------------------------------------------------------ computed again


def test_the_same_result_again_does_not_recompute_what_follows(ex: Executor, make: Any, journal: str) -> None:
    def made(version: int) -> Any:
        @keyed(version=version)
        def work(journal: str) -> list[int]:
            calls.note(journal, f"work {version}")
            return [1, 2, 3]

        return work

    for version in (1, 2):
        for executor in (ex, make()):
            first = executor.submit(made(version), journal)
            assert executor.submit(calls.consume, journal, first).result() == 6
    assert noted(journal) == ["work 1", "consume", "work 2"]


def test_a_damaged_dependency_is_made_again_alone(ex: Executor, make: Any, journal: str, results: Path) -> None:
    first = ex.submit(calls.square, journal, 2)
    assert ex.submit(calls.square, journal, first).result() == 16
    path = Path(Cache(results)._directory.record(first.key))
    path.write_bytes(path.read_bytes()[:-10])
    other = make()
    with pytest.warns(UserWarning, match="the call runs again"):
        again = other.submit(calls.square, journal, 2)
    dependent = other.submit(calls.square, journal, again)
    assert dependent.result() == 16
    assert noted(journal) == ["square 2", "square 4", "square 2"]


# ------------------------------------------------------------------ failures


@pytest.fixture(params=["pending", "done"])
def failing(request: pytest.FixtureRequest, ex: Executor, journal: str) -> Future[Any]:
    future = ex.submit(calls.failing, journal, 1)
    if request.param == "done":
        future.exception()
    return future


def test_a_dependency_that_fails(ex: Executor, failing: Future[Any], journal: str, results: Path) -> None:
    middle = ex.submit(calls.square, journal, [failing])
    last = ex.submit(calls.pair, 0, {"x": middle})
    error = last.exception()
    assert isinstance(error, ValueError)
    assert error.args == ("the user's own", 1)
    assert error.__notes__ == ["callyard: pair <- square <- failing"]  # type: ignore[attr-defined]
    assert (last.key, last.cached) == (None, None)
    assert [entry.function for entry in Cache(results)] == ["failing"]
    assert noted(journal) == ["failing 1"]


def test_a_part_that_is_not_there(ex: Executor, journal: str) -> None:
    short = ex.submit(numbers, journal)
    short.result()
    for part in (item(short, 7), unzip(short, 3)[0]):
        with pytest.raises((IndexError, ValueError)):
            ex.submit(calls.pair, part, 1).result()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dependency_that_is_cancelled(ex: Executor, when: str, journal: str) -> None:
    never: standard.Future[int] = standard.Future()
    if when == "before":
        never.cancel()
    dependent = ex.submit(calls.square, journal, never)
    last = ex.submit(calls.square, journal, dependent)
    never.cancel()
    assert dependent.cancelled()
    assert last.cancelled()
    assert noted(journal) == []


def test_a_value_without_a_meaning_that_comes_late(ex: Executor, journal: str) -> None:
    late: standard.Future[Any] = standard.Future()
    dependent = ex.submit(calls.pair, late, 1)
    late.set_result({"there": [Door()]})
    with pytest.raises(CacheError, match=r"argument 'one' of 'pair' cannot be cached: one\['there'\]\[0\]"):
        dependent.result()
    assert ex.submit(calls.square, journal, 2).result() == 4


def test_a_dependent_that_waits_is_found_in_the_cache(ex: Executor, make: Any, journal: str) -> None:
    """What is remembered is found when the arguments are known, and no worker is asked."""
    ex.submit(calls.square, journal, 3).result()
    late: standard.Future[int] = standard.Future()
    dependents = [make().submit(calls.square, journal, late) for _ in range(2)]
    late.set_result(3)
    assert [dependent.result() for dependent in dependents] == [9, 9]
    assert [dependent.cached for dependent in dependents] == [False, False]
    assert noted(journal) == ["square 3"]


def test_dependents_with_equal_values_share_one_run(ex: Executor, journal: str) -> None:
    values: list[standard.Future[int]] = [standard.Future() for _ in range(3)]
    dependents = [ex.submit(calls.square, journal, value) for value in values]
    for value in values:
        value.set_result(5)
    assert {dependent.result() for dependent in dependents} == {25}
    assert len({dependent.key for dependent in dependents}) == 1
    assert noted(journal) == ["square 5"]
