"""A scheduler of another package runs calls: it is found by its name, and names the variables of its jobs itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yard

from callyard import Executor, Jobs
from callyard.errors import ResourceError
from callyard.schedulers.base import JobId, Scheduler
from callyard.schedulers.job_environment import current_job
from callyard.schedulers.registry import open_scheduler
from callyard.testing.scheduler_contract import SchedulerContract

pytestmark = [pytest.mark.needs("linux"), pytest.mark.wide]


def _from_the_page() -> Scheduler:
    found: dict[str, Any] = {}
    exec(compile(yard.documented(), str(yard.PAGE), "exec"), found)
    scheduler: Scheduler = found["YardScheduler"]()
    return scheduler


class TestContract(SchedulerContract):
    scheduler = _from_the_page()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package and its program `yard`, as pip would install them."""
    about = tmp_path / "site" / "yard-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: yard\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[callyard.schedulers]\nYard = documented_yard:YardScheduler\n")
    (tmp_path / "site" / "documented_yard.py").write_text(yard.documented())
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
    with Executor(backend=Jobs("yard", poll=(0.1, 0.5)), cache=tmp_path / "cache") as ex:
        future = ex.submit(where)
        assert future.result() == ("Yard", "1", "siding-1")
        assert future.job_id == "1"


def test_its_name_is_enough(installed: Path, tmp_path: Path) -> None:
    with Executor(backend="yard", cache=tmp_path / "cache", resource_dict={"queue": "north"}) as ex:
        assert ex.submit(where).result()[0] == "Yard"
    assert (installed / "1" / "queue").read_text() == "north"


def test_what_the_page_says_of_its_answers() -> None:
    scheduler = _from_the_page()
    found = scheduler.status([]).read("7 waits\n8_1 over\n8_2 cancelled\n")
    assert {str(job): status.phase for job, status in found.items()} == {
        "7": "waiting", "8_1": "ended", "8_2": "ended",
    }  # fmt: skip
    assert found[JobId("8", 1)].exit_code == 0


def test_a_job_neither_loads_its_scheduler_nor_looks_for_it(installed: Path) -> None:
    names = open_scheduler("Yard").site().job_variables.environment()
    code = "import sys; from callyard.worker.job_outcome import job_id; print(job_id(), *sys.modules)"
    environ = {**os.environ, **names, "YARD_JOB": "7_1", "YARD_ARRAY": "7", "YARD_TRACK": "1"}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environ)
    job, *modules = run.stdout.split()
    assert job == "7_1"
    assert not {"documented_yard", "importlib.metadata", "callyard.schedulers.registry"} & set(modules)


def test_calls_are_an_array(installed: Path, tmp_path: Path) -> None:
    with Executor(backend=Jobs("yard", poll=(0.1, 0.5)), cache=tmp_path / "cache") as ex:
        assert list(ex.map(pow, [2, 3, 4], [5, 5, 5])) == [32, 243, 1024]
    assert sum(1 for job in installed.iterdir() for each in job.iterdir() if each.name not in ("token", "queue")) == 3


def test_a_graph_is_jobs_that_wait_for_each_other(installed: Path, tmp_path: Path) -> None:
    with Executor(backend=Jobs("yard", poll=(0.1, 0.5)), cache=tmp_path / "cache") as ex:
        first = [ex.submit(pow, 2, number) for number in (3, 4)]
        assert ex.submit(sum, first).result() == 24


def test_what_it_cannot_do_is_refused(installed: Path, tmp_path: Path) -> None:
    with Executor(backend="yard", cache=tmp_path / "cache") as ex:
        with pytest.raises(ResourceError, match="partition means nothing to Yard: Yard calls it queue="):
            ex.submit(pow, 2, 3, resource_dict={"partition": "north"})


def test_a_job_that_is_gone(installed: Path, tmp_path: Path) -> None:
    with Executor(backend=Jobs("yard", poll=(0.1, 0.5)), cache=tmp_path / "cache") as ex:
        error = ex.submit(fail).exception()
    assert error is not None
    assert "job 1 on siding-1" in str(error)
