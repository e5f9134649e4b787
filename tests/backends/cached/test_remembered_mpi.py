"""Calls of several ranks: remembered as the list of the ranks' results."""

from __future__ import annotations

import concurrent.futures as standard
from pathlib import Path
from typing import Any

import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, Executor, Local

pytestmark = pytest.mark.needs("mpi")


@pytest.fixture
def pair(make: Any) -> Executor:
    """Calls of two ranks, with room for two of them."""
    executor: Executor = make(None, backend=Local(cores=4, memory=8))
    return executor.with_resources(ranks=2)


def rank_of(journal: str, x: Any) -> tuple[int, int, Any]:
    from mpi4py import MPI

    calls.note(journal, f"rank {MPI.COMM_WORLD.rank}")
    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, x


def held_ranks(journal: str, place: str) -> int:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.rank == 0:
        calls.note(journal, "held")
        calls.hold(place)
    comm.Barrier()
    return int(comm.rank)


def failing_rank(journal: str) -> int:
    from mpi4py import MPI

    calls.note(journal, f"rank {MPI.COMM_WORLD.rank}")
    MPI.COMM_WORLD.Barrier()  # the first failure ends the other rank, which is to have noted by then
    if MPI.COMM_WORLD.rank == 1:
        raise ValueError("not on this rank")
    return 0


def test_the_ranks_results_are_remembered(pair: Executor, make: Any, journal: str, results: Path) -> None:
    first = pair.submit(rank_of, journal, 5)
    assert first.result() == [(0, 2, 5), (1, 2, 5)]
    again = pair.submit(rank_of, journal, x=5)
    assert (again.cached, again.key, again.result()) == (True, first.key, [(0, 2, 5), (1, 2, 5)])
    assert sorted(noted(journal)) == ["rank 0", "rank 1"]
    entry = Cache(results)[first.key]
    assert (entry.output, entry.args) == ([(0, 2, 5), (1, 2, 5)], (journal, 5))
    alone = make(1).submit(rank_of, journal, 5)  # ranks count
    assert (alone.key == first.key, alone.cached) == (False, False)
    assert alone.result() == (0, 1, 5)


def test_dependents_of_ranks(pair: Executor, journal: str, results: Path) -> None:
    first = pair.submit(rank_of, journal, 1)
    second = pair.submit(rank_of, journal, first)
    ranks = [(0, 2, 1), (1, 2, 1)]
    assert second.result() == [(0, 2, ranks), (1, 2, ranks)]
    assert Cache(results)[second.key].args == (journal, ranks)
    assert pair.submit(rank_of, journal, ranks).cached
    late: standard.Future[Any] = standard.Future()
    waiting = pair.submit(rank_of, journal, late)
    late.set_result(1)
    assert waiting.result() == ranks
    assert waiting.key == first.key
    assert len(noted(journal)) == 4


def test_identical_calls_of_several_ranks_run_once(
    pair: Executor, make: Any, journal: str, gate: Any, place: str, messages: Any, results: Path
) -> None:
    first, second = (pair.submit(held_ranks, journal, place) for _ in range(2))
    gate.arrived()
    assert [key for key, _ in Cache(results)._claims.running()] == [first.key]
    other = make(None, backend=Local(cores=4, memory=8)).with_resources(ranks=2)
    third = other.submit(held_ranks, journal, place)
    messages.wait("waiting for its result")
    gate.open()
    assert [future.result() for future in (first, second, third)] == [[0, 1]] * 3
    assert noted(journal) == ["held"]
    assert list(Cache(results)._claims.running()) == []


def test_a_rank_that_fails(pair: Executor, journal: str, results: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="not on this rank"):
            pair.submit(failing_rank, journal).result()
    assert noted(journal).count("rank 1") == 2  # the other may have been ended before it noted anything
    assert [entry.state for entry in Cache(results)] == ["failed"]
    assert list(Cache(results)._claims.running()) == []


def test_a_failure_of_a_rank_is_kept(make: Any, journal: str, results: Path) -> None:
    cache = Cache(results, failures=True)
    for cached in (False, True):
        ex = make(None, backend=Local(cores=4, memory=8), cache=cache).with_resources(ranks=2)
        future = ex.submit(failing_rank, journal)
        error = future.exception()
        assert isinstance(error, ValueError)
        assert "in failing_rank" in str(error.__cause__)
        assert future.cached is cached
    assert sorted(noted(journal)) == ["rank 0", "rank 1"]


def test_modes(pair: Executor, make: Any, journal: str, results: Path) -> None:
    pair.submit(rank_of, journal, 1).result()
    for mode, runs in (("read-only", 1), ("refresh", 2)):
        ex = make(None, backend=Local(cores=4, memory=8), cache=Cache(results, mode=mode)).with_resources(ranks=2)
        assert ex.submit(rank_of, journal, 1).result() == [(0, 2, 1), (1, 2, 1)]
        assert len(noted(journal)) == 2 * runs
    reading = make(None, backend=Local(cores=4, memory=8), cache=Cache(results, mode="read-only"))
    assert reading.submit(rank_of, journal, 2, resource_dict={"ranks": 2}).result() == [(0, 2, 2), (1, 2, 2)]
    assert len(Cache(results)) == 1


def test_a_key_of_the_users_own(pair: Executor, journal: str, results: Path) -> None:
    mine = pair.with_resources(cache_key="both")
    assert mine.submit(rank_of, journal, 1).result() == [(0, 2, 1), (1, 2, 1)]
    assert mine.submit(rank_of, journal, 2).cached
    assert Cache(results).keys() == ["both"]
