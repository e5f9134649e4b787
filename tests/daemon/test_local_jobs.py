"""Calls that are jobs of this machine: what they are given, their ends, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import local_calls as calls
import noted_calls
import psutil
import pytest
from gate import Gate
from local_calls import executor
from local_daemons import TestedDaemon
from noted_calls import runs
from this_machine import running, until

from callyard import (
    CallyardError,
    Executor,
    JobCancelled,
    Local,
    OutOfMemory,
    ResourceError,
    TimeLimitExceeded,
    WorkerLost,
)
from callyard.backends.batch.scheduler_client import client_of
from callyard.cli import main
from callyard.schedulers.base import Status

pytestmark = [pytest.mark.once, pytest.mark.needs("daemon")]

Jobs = Callable[..., Executor]


@pytest.fixture
def jobs(daemon: TestedDaemon, results: Path) -> Iterator[Jobs]:
    """Make executors of one cache; their jobs end with the test."""
    made: list[Executor] = []

    def create(max_workers: int | None = None, **options: Any) -> Executor:
        made.append(executor(results, max_workers, **options))
        return made[-1]

    yield create
    for each in made:
        each.kill_workers()
        each.shutdown()


@pytest.fixture
def ex(jobs: Jobs) -> Executor:
    return jobs()


# ------------------------------------------------------------------ what a job is given


def test_a_job_knows_itself(ex: Executor) -> None:
    future = ex.submit(calls.about_the_job)
    assert future.result() == ("Local", future.job_id, 0)


def test_the_life_of_calls_is_in_the_repr(ex: Executor) -> None:
    assert repr(ex).startswith("<callyard.Executor detached, each call a job of ")
    assert " with 2 cores, " in repr(ex)


def test_a_job_has_a_session_of_its_own_and_no_terminal(ex: Executor) -> None:
    assert ex.submit(calls.about_the_session).result() == (False, False, "/dev/null")


def test_each_job_has_its_gpus(jobs: Jobs, gate: Gate) -> None:
    ex = jobs(gpus=["3", "GPU-x"])
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    assert ex.submit(calls.variables, *names).result() == dict.fromkeys(names, "")
    both = ex.submit(calls.variables, *names, "HOME", resource_dict={"gpus_per_rank": 2})
    assert {**both.result(), "HOME": ""} == {**dict.fromkeys(names, "3,GPU-x"), "HOME": ""}
    with pytest.raises(ResourceError, match="this executor has 2 GPUs"):
        ex.submit(abs, 1, resource_dict={"gpus_per_rank": 3})


def test_the_cores_of_all_executors_are_given_out_once(jobs: Jobs, journal: str) -> None:
    one, other = jobs(), jobs()
    futures = [each.submit(noted_calls.overlapping, journal, n) for n, each in enumerate([one, other] * 4)]
    assert [future.result() for future in futures] == list(range(8))
    assert noted_calls.most_at_once(journal) <= 2


def test_max_workers_holds_over_all_submissions(jobs: Jobs, journal: str) -> None:
    ex = jobs(1)
    first = [ex.submit(noted_calls.overlapping, journal, number) for number in range(2)]
    first[0].result()
    second = [ex.submit(noted_calls.overlapping, journal, number) for number in range(2, 4)]
    assert [future.result() for future in [*first, *second]] == list(range(4))
    assert noted_calls.most_at_once(journal) == 1


def test_a_higher_priority_begins_first(jobs: Jobs, journal: str, gate: Gate) -> None:
    ex = jobs(cores=1)
    held = ex.submit(noted_calls.held, journal, gate, "first")
    gate.arrived()
    late = [
        ex.submit(noted_calls.noted, journal, word, resource_dict={"priority": priority})
        for word, priority in (("low", -1), ("high", 5))
    ]
    until(lambda: all(future.job_id for future in late))
    gate.open()
    assert [held.result(), *(future.result() for future in late)] == ["first", "low", "high"]
    assert Path(journal).read_text().split() == ["first", "high", "low"]


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cores_per_rank": 3}, "this executor has 2 cores"),
        ({"partition": "x"}, r"partition is for a scheduler, and Local\(detached=True\) runs without one"),
        ({"nodes": 2, "ranks": 2}, "this machine is one"),
        ({"begin": "teatime"}, "begin='teatime' is not read"),
    ],
)
def test_what_cannot_be_had_is_refused_at_once(ex: Executor, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        ex.submit(abs, 1, resource_dict=asked)


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(CallyardError, match="max_tasks_per_child is for workers"):
        Executor(backend=Local(detached=True), max_tasks_per_child=1)
    with pytest.raises(ResourceError, match="detached must be True, False or None, not 1"):
        Local(detached=1)  # type: ignore[arg-type]


# ------------------------------------------------------------------ ends


def test_a_call_that_dies(ex: Executor, journal: str) -> None:
    with pytest.raises(WorkerLost, match="SIGKILL"):
        ex.submit(noted_calls.killed, journal, "x").result()


def test_a_call_that_dies_runs_again_as_often_as_its_limit_says(ex: Executor, journal: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    lucky = ex.submit(noted_calls.dying, journal, 2, resource_dict={"restart_limit": 2})
    lost = ex.submit(noted_calls.dying, other, 9, resource_dict={"restart_limit": 1})
    assert ex.submit(pow, lucky, 2).result() == 9
    assert lucky.attempts == 3
    with pytest.raises(WorkerLost, match=r"lost its process \(run 2\), which ended with exit code 7") as caught:
        lost.result()
    assert "restart_limit" not in str(caught.value), "it has been used up"
    assert lost.attempts == 2
    assert runs(other) == {"1": 1, "2": 1}
    with pytest.raises(WorkerLost, match="restart_limit=1 would run such a call again"):
        ex.submit(os._exit, 3).result()


def test_a_call_whose_job_dies_runs_again_in_another(ex: Executor, journal: str, tmp_path: Path) -> None:
    """Losses of the call's process count, too."""
    other = str(tmp_path / "other")
    lucky = ex.submit(noted_calls.killing_its_job, journal, 2, resource_dict={"restart_limit": 2})
    lost = ex.submit(noted_calls.killing_its_job, other, 9, resource_dict={"restart_limit": 1})
    assert ex.submit(pow, lucky, 2).result() == 9
    assert lucky.attempts == 3
    with pytest.raises(WorkerLost):
        lost.result()
    assert runs(other) == {"1": 1, "2": 1}


@pytest.mark.needs("mpi")
def test_a_call_that_loses_a_rank_runs_again(ex: Executor, journal: str) -> None:
    future = ex.submit(noted_calls.dying, journal, 1, 0, resource_dict={"ranks": 2, "restart_limit": 1})
    assert future.result() == [2, 2]
    assert future.attempts == 2


def test_limits_are_kept_as_for_live_calls(ex: Executor, journal: str) -> None:
    late = ex.submit(calls.wait_for_end, journal, resource_dict={"run_time": 1})
    large = ex.submit(bytearray, 1 << 30, resource_dict={"memory": "200MB"})
    with pytest.raises((OutOfMemory, MemoryError)):
        large.result()
    with pytest.raises(TimeLimitExceeded, match="1 s"):
        late.result()


def test_a_cancelled_call_hears_of_its_end(ex: Executor, journal: str, results: Path) -> None:
    future = ex.submit(calls.wait_for_end, journal)
    until(lambda: "begun" in runs(journal))
    assert main(["cancel", str(results), str(future.key)]) == 0
    assert isinstance(future.exception(), JobCancelled)
    until(lambda: "SystemExit" in runs(journal))


def test_what_a_call_leaves_running_ends_with_it(ex: Executor, journal: str, gate: Gate) -> None:
    future = ex.submit(calls.leave_processes, journal, gate)
    gate.arrived()
    pids = [int(pid) for pid in Path(journal).read_text().strip().split(",")]
    gate.open()
    assert future.result() is None
    until(lambda: not any(map(running, pids)))


def test_the_commands_are_those_of_a_cluster(
    ex: Executor, results: Path, journal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done, failed = ex.submit(noted_calls.noted, journal, "done"), ex.submit(noted_calls.failing, journal, "failed")
    assert (done.result(), type(failed.exception())) == ("done", ValueError)
    assert main(["list", str(results), "--json"]) == 0
    states = {row["key"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states == {done.key: "finished", failed.key: "failed"}
    assert main(["logs", str(results), str(failed.key)]) == 0
    assert "about to fail" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    assert "0 waiting" in capsys.readouterr().out
    assert main(["resume", str(results)]) == 0


def test_the_scheduler_waits_for_the_time_to_begin(ex: Executor, journal: str) -> None:
    future = ex.submit(noted_calls.noted, journal, "late", resource_dict={"begin": "now+7days"})
    until(lambda: future.job_id)
    found = client_of("Local").statuses([str(future.job_id)])
    assert found == {future.job_id: Status("waiting", "waits for the time at which it may begin", node=ANY)}
    assert future.cancel()
    until(lambda: client_of("Local").statuses([str(future.job_id)])[future.job_id].error == "JobCancelled")
    assert runs(journal) == {}


def test_hangup_ends_nothing(ex: Executor, daemon: TestedDaemon, journal: str, gate: Gate) -> None:
    future = ex.submit(noted_calls.held, journal, gate, "call")
    gate.arrived()
    for process in [psutil.Process(daemon.pid), *daemon.keepers()]:
        os.kill(process.pid, signal.SIGHUP)
    gate.open()
    assert future.result() == "call"
    assert daemon.is_there


def test_the_status_tells_what_the_jobs_have(ex: Executor, gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    held = ex.submit(gate.hold, resource_dict={"memory": "1GB"})
    gate.arrived()
    assert main(["status"]) == 0
    assert re.search(r"  jobs: 1 running, 0 waiting\n  in use: 1 of \d+ cores, 1 of \S+ GiB", capsys.readouterr().out)
    gate.open()
    held.result()
