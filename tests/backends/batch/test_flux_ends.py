"""How calls that are jobs of a real Flux end: limits, signals, and processes that they leave behind."""

from __future__ import annotations

import os
from pathlib import Path

import flux_calls as calls
import psutil
import pytest
from instance import Instance
from instances import FluxJobs
from this_machine import until

from callyard import Executor, JobCancelled, TimeLimitExceeded, WorkerLost

pytestmark = [pytest.mark.once, pytest.mark.needs("flux")]


@pytest.fixture
def ex(flux: Instance, flux_jobs: FluxJobs) -> Executor:
    return flux_jobs()


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def test_a_call_has_its_grace_at_the_time_limit_of_its_job(flux: Instance, flux_jobs: FluxJobs, journal: str) -> None:
    """Flux sends SIGALRM, and SIGKILL five seconds later."""
    ex = flux_jobs(walltime=2)
    kept = ex.submit(calls.finish_when_told, journal, resource_dict={"grace": 4})
    assert kept.result() == "told"
    deaf = ex.submit(calls.ignore_the_end, journal, resource_dict={"grace": 0.2})
    with pytest.raises(TimeLimitExceeded, match="reached its time limit"):
        deaf.result()
    until(lambda: not flux.jobs())


def test_a_call_goes_on_in_another_job_after_the_time_limit(flux: Instance, flux_jobs: FluxJobs, journal: str) -> None:
    future = flux_jobs(walltime=2).submit(calls.go_on_when_told, journal, 0)
    assert future.result() == (2, 2)  # the steps, and the attempt
    assert future.attempts == 2


def test_a_background_process_does_not_keep_the_job(ex: Executor, flux: Instance, tmp_path: Path) -> None:
    """Flux would wait until it closes the output."""
    future = ex.submit(calls.leave_behind, str(tmp_path / "pid"), False)
    assert future.result() == "done"
    pid = pid_in(tmp_path / "pid")
    until(lambda: not flux.jobs())
    assert not runs(pid)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_process_in_a_session_of_its_own_ends_with_the_call(
    ex: Executor, flux: Instance, tmp_path: Path, cancelled: bool
) -> None:
    future = ex.submit(calls.leave_behind, str(tmp_path / "pid"), True, cancelled)
    pid = pid_in(tmp_path / "pid")
    if cancelled:
        flux.run("cancel", str(future.job_id))
        with pytest.raises(JobCancelled):
            future.result()
    else:
        assert future.result() == "done"
    until(lambda: not flux.jobs())
    until(lambda: not runs(pid))


def test_a_process_that_is_killed(ex: Executor) -> None:
    with pytest.raises(WorkerLost) as caught:
        ex.submit(os.kill, 0, 9).result()
    assert caught.value.exitcode == -9
