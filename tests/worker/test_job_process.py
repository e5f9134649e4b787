"""The process of a job that waits for the one that makes a call."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from callyard.errors import NodeFailure
from callyard.schedulers.slurm.scheduler import SlurmScheduler
from callyard.version import VERSION
from callyard.worker.job import Job


@pytest.fixture
def make_job() -> Iterator[Callable[[Any], Job]]:
    """Make jobs in this process, and close the pipes of their signals."""
    jobs: list[Job] = []

    def make(folder: Any) -> Job:
        jobs.append(Job(folder))
        return jobs[-1]

    yield make
    for job in jobs:
        os.close(job.signals.wakes)
        os.close(job.signals._wake)
        job.log.close()


@pytest.mark.parametrize("error", [None, PermissionError(), AttributeError()])
def test_the_end_of_a_call_is_seen_without_a_pidfd(
    monkeypatch: pytest.MonkeyPatch, make_job: Callable[[Any], Job], error: Exception | None
) -> None:
    """Kernels before 5.3 know none, and a sandbox may refuse it."""

    def refuse(pid: int) -> int:
        assert error is not None
        raise error

    if error is not None:
        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    folder: Any = SimpleNamespace(batch=SimpleNamespace(calls_per_job=1, log_limit=4096))
    call_file: Any = SimpleNamespace(wait=60.0, private=True)
    job = make_job(folder)
    job.runs = 0, call_file
    job.pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "raise SystemExit(3)"], os.environ)
    assert job._wait() == (None, 3)


JOB = """
import os, signal, sys, time
from types import SimpleNamespace
from callyard.system.processes import become_subreaper
from callyard.worker.job import Job

def daemon():
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, b"%d" % os.getpid())
            time.sleep(1000)
        os._exit(0)
    os.wait()
    return int(os.read(read, 20))

def call(job, parent, number, call_file, deadline):
    os.setsid()
    ended = daemon()
    os.kill(ended, signal.SIGKILL)
    while os.path.exists(f"/proc/{ended}"):
        time.sleep(0.001)
    os.write(1, b"%d\\n" % daemon())
    os._exit(3)

Job._become_call = call
become_subreaper()
job = Job(SimpleNamespace(batch=SimpleNamespace(calls_per_job=1, log_limit=4096)))
signal.signal(signal.SIGCHLD, job.reap_others)
call_file = SimpleNamespace(wait=60.0, private=True, run_time=None, memory=None, options={})
print(*job._run(0, call_file), len(os.listdir("/proc/self/fd")) < 14)  # eight are pipes of its own
try:
    os.wait()
except ChildProcessError:
    print("no children")
"""


@pytest.mark.needs("linux")
def test_daemons_of_a_call_are_reaped_while_it_runs_and_end_with_it() -> None:
    run = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, check=True)
    pid, *said = run.stdout.splitlines()
    assert said == ["None 3 True", "no children"]
    assert not os.path.exists(f"/proc/{pid}")


def test_a_job_that_was_started_again_before_its_call_had_begun_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, make_job: Callable[[Any], Job]
) -> None:
    """Slurm does that where a node was gone without its knowing, whatever it was told."""
    names = SlurmScheduler().site().job_variables.environment()
    for variable, value in {**names, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(variable, value)
    begun: list[Any] = [None]
    batch = SimpleNamespace(
        calls_per_job=1,
        log_limit=4096,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        callyard=VERSION,
        restart_limit=0,
        calls=(SimpleNamespace(name="add"),),
    )
    folder: Any = SimpleNamespace(
        batch=batch, begun=lambda number: begun[0], again=lambda number: None, log=lambda number: "0.log"
    )
    job = make_job(folder)
    assert job._refusal(0) is None
    begun[0] = object()
    assert isinstance(job._refusal(0), NodeFailure)
