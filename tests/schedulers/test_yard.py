"""A scheduler of another package runs calls: it is found by its name, and names the variables of its jobs itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yard

from callyard import Executor, Local
from callyard.backends.base import Backend, Settings
from callyard.backends.batch.backend import BatchBackend
from callyard.backends.batch.scheduler_client import SchedulerClient
from callyard.backends.batch.writer import JobSettings
from callyard.hosts.this_machine import open_host
from callyard.pool.zygote_connection import python_command
from callyard.result_cache import Cache
from callyard.schedulers.job_environment import current_job
from callyard.schedulers.registry import open_scheduler
from callyard.testing.scheduler_contract import SchedulerContract

pytestmark = [pytest.mark.needs("linux"), pytest.mark.wide]


class TestContract(SchedulerContract):
    scheduler = yard.YardScheduler()


@dataclass(frozen=True)
class Yard(Local):
    """The backend of that package: each call is a job."""

    def open(self, settings: Settings, cache: Cache | None = None) -> Backend:  # type: ignore[override]
        assert cache is not None
        scheduler = open_scheduler("Yard")
        job_variables = scheduler.site().job_variables
        command = tuple(python_command("callyard.worker.job", "main"))
        jobs = JobSettings("Yard", command, {}, environment=job_variables.environment(), poll=(0.1, 0.5))
        return BatchBackend(SchedulerClient(scheduler, open_host(), 0.1), cache._directory, jobs, settings, False)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package and its program `yard`, as pip would install them."""
    about = tmp_path / "site" / "yard-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: yard\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[callyard.schedulers]\nYard = yard:YardScheduler\n")
    program = tmp_path / "bin" / "yard"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {yard.__file__} "$@"\n')
    program.chmod(0o755)
    jobs = tmp_path / "yard"
    jobs.mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("YARD", str(jobs))
    yield jobs
    shutil.rmtree(jobs)


def where() -> tuple[str, str, str]:
    job = current_job()
    return job.scheduler, job.job_id, job.node


def fail() -> None:
    os._exit(3)


def test_a_call_is_a_job(installed: Path, tmp_path: Path) -> None:
    with Executor(backend=Yard(), cache=tmp_path / "cache") as ex:
        future = ex.submit(where)
        assert future.result() == ("Yard", "1", "siding-1")
        assert future.job_id == "1"


def test_a_job_neither_loads_its_scheduler_nor_looks_for_it(installed: Path) -> None:
    names = open_scheduler("Yard").site().job_variables.environment()
    code = "import sys; from callyard.worker.job_outcome import job_id; print(job_id(), *sys.modules)"
    environ = {**os.environ, **names, "YARD_JOB": "7_1", "YARD_ARRAY": "7", "YARD_TRACK": "1"}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environ)
    job, *modules = run.stdout.split()
    assert job == "7_1"
    assert not {"yard", "importlib.metadata", "callyard.schedulers.registry"} & set(modules)


def test_calls_are_an_array(installed: Path, tmp_path: Path) -> None:
    with Executor(backend=Yard(), cache=tmp_path / "cache") as ex:
        assert list(ex.map(pow, [2, 3, 4], [5, 5, 5])) == [32, 243, 1024]
    assert sum(1 for job in installed.iterdir() for each in job.iterdir() if each.name != "token") == 3


def test_a_job_that_is_gone(installed: Path, tmp_path: Path) -> None:
    with Executor(backend=Yard(), cache=tmp_path / "cache") as ex:
        error = ex.submit(fail).exception()
    assert error is not None
    assert "job 1 on siding-1" in str(error)
