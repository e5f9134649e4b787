"""Calls with a list of limits: one that goes beyond a limit moves to a job with the next one; dependents follow."""

from __future__ import annotations

import json
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from drivers import Driver
from local_daemons import TestedDaemon
from noted_calls import note, runs
from this_machine import until

import callyard
from callyard import Cache, Executor, Flux, GridEngine, Local, OutOfMemory, ResourceError, SchedulerError, Slurm
from callyard.cache.claims import Claims
from callyard.cache.directory import CacheDirectory
from callyard.cli import main
from callyard.jobs.find_batches import folders

pytestmark = pytest.mark.once

SHORT = 4  # s of `run_time`; on a busy machine a call may begin only after that
LITTLE, MUCH = 0.15, 1.5  # GiB
QUICK = {"poll": (0.2, 1), "result_grace": 2}
BACKENDS = {
    "slurm": Slurm(**QUICK, detached=True),  # type: ignore[arg-type]
    "daemon": Local(cores=2, detached=True),
    "flux": Flux(**QUICK, detached=True),  # type: ignore[arg-type]
    "gridengine": GridEngine(**QUICK, parallel_environment="smp"),  # type: ignore[arg-type]
}


def allocate(journal: str, gib: float) -> tuple[int, float | None]:
    """Take memory at once; return the number of the attempt and its limit."""
    note(journal, "allocate")
    print("allocates", flush=True)
    block = bytearray(int(gib * (1 << 30)))
    call = callyard.current()
    assert call is not None
    assert block
    return call.attempt, call.memory


def take_shared(journal: str, mib: int) -> int:
    """Take memory that no data limit counts, so that the call is killed for it."""
    note(journal, "take_shared")
    block = mmap.mmap(-1, mib << 20)
    for _ in range(mib):
        block.write(bytes(1 << 20))
    call = callyard.current()
    assert call is not None
    if call.memory is not None and call.memory < MUCH:
        signal.pause()  # until it is killed
    return call.attempt


def stay_if_short(journal: str, enough: float) -> int:
    """Stay for as long as the call may, unless it may long enough; return the number of the attempt."""
    note(journal, "stay")
    call = callyard.current()
    assert call is not None
    left = call.time_left()
    assert left is not None
    while left < enough:
        signal.pause()  # until it is told to end
    return call.attempt


CLUSTERS = {"slurm": "cluster", "daemon": "running_daemon", "flux": "instance", "gridengine": "grid"}


@pytest.fixture(scope="session", params=[pytest.param(name, marks=pytest.mark.needs(name)) for name in BACKENDS])
def scheduler(request: pytest.FixtureRequest) -> str:
    """The name of each scheduler there is; it is started here, before the tests."""
    request.getfixturevalue(CLUSTERS[request.param])
    return str(request.param)


@pytest.fixture
def any_ex(request: pytest.FixtureRequest, scheduler: str, results: Path) -> Iterator[Executor]:
    """An executor whose calls are jobs, for each scheduler."""
    request.getfixturevalue(scheduler)
    with Executor(backend=BACKENDS[scheduler], cache=results) as made:
        yield made
        made.kill_workers()


# ------------------------------------------------------------------ on every scheduler


def test_the_next_limits(any_ex: Executor, results: Path, journal: str) -> None:
    at_once = any_ex.submit(allocate, journal, 0.5, resource_dict={"memory": [LITTLE, MUCH]})
    killed = any_ex.submit(take_shared, journal, 300, resource_dict={"memory": [LITTLE, MUCH]})
    slow = any_ex.submit(stay_if_short, journal, 100, resource_dict={"run_time": [SHORT, "1h"], "grace": 0.5})
    dependent = any_ex.submit(repr, at_once)
    last = any_ex.submit(sum, [killed, slow])
    assert at_once.result() == (2, MUCH)
    assert (killed.result(), slow.result()) == (2, slow.attempts)
    assert dependent.result() == repr((2, MUCH))
    assert last.result() == 2 + slow.attempts
    assert [future.attempts for future in (at_once, killed, dependent, last)] == [2, 2, 1, 1]
    ran = runs(journal)
    assert (ran["allocate"], ran["take_shared"]) == (2, 2)
    assert 1 <= ran["stay"] <= slow.attempts <= 2, "on a busy machine the first attempt may not have come to its begin"
    assert any_ex.submit(allocate, journal, 0.5, resource_dict={"memory": 0.1}).cached
    assert not list(Claims(CacheDirectory.open(results)).running())


def test_the_last_limit(any_ex: Executor, results: Path, journal: str, capsys: pytest.CaptureFixture[str]) -> None:
    large = any_ex.submit(allocate, journal, 4, resource_dict={"memory": [LITTLE, 2 * LITTLE]})
    dependent = any_ex.submit(repr, large)
    error = large.exception()
    assert type(error) is OutOfMemory
    assert f"memory of {2 * LITTLE:g} GiB" in str(error)
    assert f"; earlier attempts had memory={LITTLE:g} GiB" in str(error)
    logs = list((results / "jobs").glob("*/*.log"))
    until(lambda: any(log.read_text().count("allocates") == 2 for log in logs))  # of both; Flux writes it late
    assert (large.attempts, runs(journal)) == (2, {"allocate": 2})
    assert str(dependent.exception()) == str(error)
    assert main(["list", "--json", str(results)]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["function"] == "allocate"]
    assert [row["state"] for row in rows] == ["failed"]


# ------------------------------------------------------------------ on Slurm


def test_a_limit_kept_by_the_scheduler(ex: Executor, slurm: Cluster, journal: str) -> None:
    future = ex.submit(stay_if_short, journal, 1000, resource_dict={"run_time": [600, 3600], "grace": 0.5})
    dependent = ex.submit(repr, future)
    until(lambda: runs(journal)["stay"] == 1)
    slurm.run("scontrol", "update", f"jobid={future.job_id}", "EndTime=now")
    assert dependent.result() == "2"
    assert future.attempts == 2


@pytest.mark.needs("daemon")
def test_failures_are_kept_of_the_last_attempt(daemon: TestedDaemon, results: Path, journal: str) -> None:
    with Executor(backend=BACKENDS["daemon"], cache=Cache(results, failures=True)) as ex:
        enough = ex.submit(allocate, journal, 0.5, resource_dict={"memory": [LITTLE, MUCH]})
        large = ex.submit(allocate, journal, 4, resource_dict={"memory": [LITTLE, 2 * LITTLE]})
        assert enough.result() == (2, MUCH)
        assert isinstance(large.exception(), OutOfMemory)
    assert runs(journal) == {"allocate": 4}
    kept = sorted((entry.state, entry.resources["memory"]) for entry in Cache(results))
    assert kept == [("failed", [LITTLE, 2 * LITTLE]), ("finished", [LITTLE, MUCH])]


@pytest.mark.needs("daemon")
def test_a_limit_that_this_machine_does_not_have(daemon: TestedDaemon, results: Path) -> None:
    with Executor(backend=BACKENDS["daemon"], cache=results) as ex, pytest.raises(ResourceError, match="memory=1e"):
        ex.submit(abs, -1, resource_dict={"memory": [1, 10**6]})


def test_nobody_waits(driver: Callable[..., Driver], ex: Executor, results: Path, journal: str) -> None:
    """The process that has submitted was killed: the job moves its call itself, and `resume` submits that."""
    driven = driver(
        """
        from test_next_limits import stay_if_short
        ex = executor(results)
        future = ex.submit(stay_if_short, journal, 100, resource_dict={"run_time": [4, "1h"], "grace": 0.5})
        dependent = ex.submit(repr, future)
        ids(future=future, dependent=dependent)
        """
    )
    driven.jobs()
    driven.kill()
    home = CacheDirectory.open(results)
    until(lambda: any(folder.batch.limit for folder in folders(home)))
    until(lambda: sum(len(folder.batch.calls) for folder in folders(home) if folder.unsent is not None) == 2)
    assert main(["resume", str(results)]) == 0
    until(lambda: len(Cache(results)) == 2)
    (attempts,) = (entry.output for entry in Cache(results) if entry.function == "stay_if_short")
    assert 1 <= runs(journal)["stay"] <= attempts <= 2, "the first attempt may have ended before its begin"


def test_a_next_limit_that_the_scheduler_refuses(ex: Executor, slurm: Cluster, journal: str) -> None:
    error = ex.submit(allocate, journal, 0.5, resource_dict={"memory": [LITTLE, 10**5]}).exception()
    assert isinstance(error, SchedulerError)
    assert "memory=100000 GiB" in str(error)
    assert runs(journal) == {"allocate": 1}


@pytest.mark.needs("jinja2")
def test_a_template_is_filled_in_with_each_limit(slurm: Cluster, detached: Callable[..., Executor]) -> None:
    template = """#!/bin/bash
#SBATCH --mem={{ memory_mib }}M --time={{ time_minutes }}
export CALLYARD_TRACE="{{ memory }} {{ time_minutes }}"
{{ command }}
"""
    ex = detached(template=template)
    future = ex.submit(trace_if, 0.75, resource_dict={"memory": [0.5, 0.75], "run_time": [600, 3600]})
    assert future.result() == "0.75 11"


def trace_if(memory: float) -> str:
    call = callyard.current()
    assert call is not None
    if call.memory != memory:
        raise MemoryError
    return os.environ["CALLYARD_TRACE"]
