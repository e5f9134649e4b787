"""How many calls may run at once, and how many jobs there may be: what goes beyond waits its turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import noted_calls as calls
import pytest
from cluster import Cluster
from clusters import lend
from failing_calls import Detached, add, hold, refuse_arrays, starts
from gate import Gate
from this_machine import until

from callyard import Executor
from callyard.backends.batch import backend
from callyard.cache.directory import CacheDirectory
from callyard.futures import Future
from callyard.jobs.batch import BatchPart
from callyard.jobs.find_batches import folders

pytestmark = pytest.mark.once

Make = Callable[..., Executor]


def dependency(cluster: Cluster, future: Future[object]) -> str:
    """What the controller says that a job waits for."""
    until(lambda: bool(future.job_id))
    found = re.search(r"\bDependency=(\S*)", cluster.run("scontrol", "-o", "show", "job", str(future.job_id)))
    assert found is not None
    return found[1]


# ------------------------------------------------------------------ max_workers


def test_arrays_of_one_executor_share_its_limit(make: Make, slurm: Cluster, gate: Gate, journal: str) -> None:
    ex = make(max_workers=2)
    first = [ex.submit(calls.held, journal, gate, f"first{i}") for i in range(3)]
    other = [ex.submit(calls.held, journal, gate, f"other{i}", resource_dict={"memory": 0.5}) for i in range(3)]
    gate.arrived(2)
    until(lambda: all(future.job_id for future in other))
    assert dependency(slurm, other[0]).startswith(f"afterany:{str(first[0].job_id).partition('_')[0]}")
    assert sorted(set(slurm.jobs().values())) == ["PENDING", "RUNNING"]
    assert sum(future.running() for future in (*first, *other)) <= 2
    gate.open(3)
    gate.arrived(1 + 2)
    until(lambda: all(future.done() for future in first))
    assert not any(future.done() for future in other)
    gate.open(3)
    assert [future.result()[:5] for future in (*first, *other)] == ["first"] * 3 + ["other"] * 3


def test_layers_share_the_limit_too(make: Make, slurm: Cluster, journal: str) -> None:
    """Slurm takes an array that waits for the same one element by element and as a whole."""
    ex = make(max_workers=2)
    first = [ex.submit(calls.overlapping, journal, i) for i in range(5)]
    then = [ex.submit(calls.overlapping, journal, future) for future in first]
    last = ex.submit(sum, then)
    assert {part.partition(":")[0] for part in dependency(slurm, then[0]).split(",")} == {"aftercorr", "afterany"}
    assert last.result() == 10
    assert 1 <= calls.most_at_once(journal) <= 2


def test_narrow_layers_do_not_wait_for_whole_ones(make: Make, slurm: Cluster, gate: Gate, journal: str) -> None:
    ex = make(max_workers=2)
    first = [ex.submit(gate.hold, i) for i in range(2)]
    then = [ex.submit(add, future, 1) for future in first]
    gate.arrived(2)
    assert dependency(slurm, then[0]).startswith("aftercorr")
    gate.open()
    until(lambda: any(future.done() for future in then))
    gate.open()
    assert [future.result() for future in then] == [1, 2]


def test_what_has_ended_is_not_waited_for(make: Make, slurm: Cluster, gate: Gate) -> None:
    ex = make(max_workers=2)
    assert ex.submit(add, 1, 1).result() == 2
    assert ex.submit(add, 1, 2).result() == 3
    held = {"slurm_cmd_args": ["--hold"]}
    one, other, third = (ex.submit(add, i, 3, resource_dict={**held, "job_name": f"job{i}"}) for i in range(3))
    assert dependency(slurm, one) == dependency(slurm, other) == "(null)"
    assert dependency(slurm, third).startswith(f"afterany:{one.job_id}")


# ------------------------------------------------------------------ too many jobs


@pytest.fixture
def small(slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of more than three elements are refused; what is submitted goes out together on a busy machine, too."""
    refuse_arrays(tmp_path / "bin", monkeypatch, 3)
    monkeypatch.setattr(backend, "_QUIET", 0.5)


def parts(results: Path) -> list[list[BatchPart]]:
    found = [folder for folder in folders(CacheDirectory.open(results)) if len(folder.batch.calls) > 1]
    return [folder.parts for folder in sorted(found, key=lambda folder: folder.batch.created)]


@pytest.mark.usefixtures("small")
def test_an_array_that_is_too_large_goes_out_in_parts(
    make: Make, slurm: Cluster, gate: Gate, journal: str, results: Path
) -> None:
    ex = make()
    first = [ex.submit(calls.held, journal, gate, f"first{i}") for i in range(7)]
    then = [ex.submit(calls.noted, journal, f"then{i}", future) for i, future in enumerate(first)]
    last = ex.submit(calls.noted, journal, "last", *then)
    until(lambda: all(future.job_id for future in (*first, *then, last)))
    of_first, of_then = parts(results)
    assert [(part.first, part.end) for part in of_first] == [(0, 3), (3, 6), (6, 7)]
    assert [(part.first, part.end) for part in of_then] == [(0, 3), (3, 6), (6, 7)]
    assert [future.job_id for future in first] == [f"{of_first[i // 3].job}_{i}" for i in range(7)]
    for one, other in zip(of_first, of_then, strict=True):
        assert dependency(slurm, then[other.first]).startswith(f"aftercorr:{one.job}_")
    gate.open(7)
    assert last.result() == "+".join(["last", *(f"then{i}+first{i}" for i in range(7))])
    assert set(calls.runs(journal).values()) == {1}
    ex.shutdown()
    assert list(folders(CacheDirectory.open(results))) == []


@pytest.mark.usefixtures("small")
def test_parts_share_max_workers(make: Make, journal: str, results: Path, gate: Gate) -> None:
    ex = make(max_workers=2)
    futures = [ex.submit(calls.overlapping, journal, i) for i in range(6)]
    assert [future.result() for future in futures] == list(range(6))
    assert calls.most_at_once(journal) <= 2


@pytest.mark.usefixtures("small")
def test_what_is_cancelled_is_not_sent_later(make: Make, slurm: Cluster, journal: str, results: Path) -> None:
    """Of an array of which only a part was taken yet."""
    ex = make()
    ex._running.backend.inner._scheduler._first_pause = 1000  # type: ignore[attr-defined]
    ex._running.backend.inner._scheduler._pauses._pause = 1000  # type: ignore[attr-defined]
    held = {"slurm_cmd_args": ["--hold"]}
    futures = [ex.submit(calls.noted, journal, f"call{i}", resource_dict=held) for i in range(7)]
    until(lambda: all(future.job_id for future in futures[:3]))
    assert [future.job_id for future in futures[3:]] == [None] * 4
    assert all(future.cancel() for future in futures)
    until(lambda: not slurm.jobs())
    ex.shutdown()
    assert list(folders(CacheDirectory.open(results))) == []


@pytest.mark.needs("slurmdbd")
def test_more_elements_than_a_user_may_have(
    tmp_path: Path, short_path: Path, detached: Detached, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cluster in limited(short_path, monkeypatch, 3):
        ex = detached(account="few")
        futures = [ex.submit(hold, str(tmp_path), number) for number in range(8)]
        after = ex.submit(sum, futures)
        until(lambda: len(starts(tmp_path)) == 3)  # half of eight does not fit, half of that does, then one more
        assert len(cluster.jobs()) == 3
        (tmp_path / "go").touch()
        assert after.result() == sum(range(8))
        assert len(starts(tmp_path)) == 8


def limited(directory: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> Iterator[Cluster]:
    """A cluster where a user of the account `few` may have so many jobs."""
    enforced = {"AccountingStorageEnforce": "associations,limits"}
    with (
        Cluster(directory / "b", nodes=1, accounting=True, settings=enforced) as cluster,
        contextmanager(lend)(cluster, monkeypatch),
    ):
        manage = "sacctmgr", "--immediate"
        cluster.run(*manage, "add", "account", "few")
        cluster.run(*manage, "add", "user", cluster.layout.user, "account=few", f"maxsubmitjobs={most}")
        yield cluster
