"""The process of a job that waits for the one that makes a call."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from limited_calls import LimitedCalls

from callyard.errors import NodeFailure, SchedulerError
from callyard.jobs.batch import CallAgain, CallOutcome
from callyard.resources import Resources
from callyard.schedulers.slurm.scheduler import SlurmScheduler
from callyard.system.run_clock import RunClock
from callyard.version import VERSION
from callyard.worker import job as job_module
from callyard.worker import job_again
from callyard.worker.current_call import GRACE
from callyard.worker.job import Job
from callyard.worker.job_again import requeue


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
    kept: list[CallAgain] = []
    batch = SimpleNamespace(
        calls_per_job=1,
        log_limit=4096,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        callyard=VERSION,
        restart_limit=0,
        calls=(SimpleNamespace(name="add"),),
    )
    folder: Any = SimpleNamespace(
        batch=batch, begun=lambda number: begun[0], log=lambda number: "0.log",
        again=lambda number: kept[-1] if kept else None, run_again=lambda number, again: kept.append(again),
    )  # fmt: skip
    job = make_job(folder)
    assert job._refusal(0) is None
    begun[0] = object()
    refusal = job._refusal(0)
    assert isinstance(refusal, NodeFailure)
    assert "was lost once, which is more than its restart_limit of 0" in str(refusal)
    batch.restart_limit = 2
    for _ in range(2):  # the second time it counts no loss twice
        assert job._refusal(0) is None
        assert kept == [CallAgain(1, 1, b"", losses=1)], "for a job that the call moves to"
    kept[:] = [CallAgain(3, 0, b"", losses=2)]
    assert "was lost 3 times" in str(job._refusal(0)), "twice with its process"


def test_another_attempt_begins_in_a_job_with_the_time_for_it(
    monkeypatch: pytest.MonkeyPatch, make_job: Callable[[Any], Job]
) -> None:
    asked: list[int] = []

    def end_job() -> None:
        raise SystemExit

    monkeypatch.setattr(job_module.time, "time", lambda: 100.0)
    monkeypatch.setattr(job_module, "current_job", lambda: SimpleNamespace(ends=150.0))
    monkeypatch.setattr(job_again, "expect_restart", lambda folder, number: asked.append(number))
    monkeypatch.setattr(job_again, "requeue", end_job)
    job = make_job(SimpleNamespace(batch=SimpleNamespace(calls_per_job=1, log_limit=1 << 20)))
    assert job._goes_on_here(3, 50.0, True)
    assert asked == []
    with pytest.raises(SystemExit):
        job._goes_on_here(3, 51.0, True)
    assert asked == [3]


@pytest.mark.parametrize(("losses", "least"), [(0, 0.0), (1, 60.0)])
def test_a_lost_rank_runs_again_in_the_time_that_a_lost_process_needs(
    monkeypatch: pytest.MonkeyPatch, make_job: Callable[[Any], Job], losses: int, least: float
) -> None:
    """The process of a call that has lost a rank ends as after `Again`: it has written down the next attempt."""
    kept: list[CallAgain] = []
    ended = [None, CallOutcome("moved")]
    folder: Any = SimpleNamespace(
        batch=SimpleNamespace(calls_per_job=1, log_limit=4096), call=lambda number: b"",
        again=lambda number: kept[-1] if kept else None, ended=lambda number: ended.pop(0),
    )  # fmt: skip
    job, asked = make_job(folder), list[tuple[float, bool]]()

    def run(number: int, call_file: Any) -> tuple[None, int]:
        kept.append(CallAgain(2, 0, b"", losses))
        return None, 0

    monkeypatch.setattr(job, "_refusal", lambda number: None)
    monkeypatch.setattr(job, "_run", run)
    monkeypatch.setattr(job, "_goes_on_here", lambda number, least, lost: asked.append((least, lost)))
    monkeypatch.setattr(job_module, "load_for", lambda call_file: None)
    monkeypatch.setattr(job_module.CallFile, "load", lambda data: SimpleNamespace(run_time=60.0))
    assert job._make(0).state == "moved"
    assert asked == [(least, losses > 0)]


@pytest.mark.parametrize(
    ("lost", "words"),
    [(True, "lost a process and was to be run again, and its"), (False, "asked to be run again, and its")],
)
def test_an_attempt_that_no_job_makes(
    monkeypatch: pytest.MonkeyPatch, make_job: Callable[[Any], Job], tmp_path: Path, lost: bool, words: str
) -> None:
    def refuse() -> None:
        raise SchedulerError("its scheduler is not there")

    spool = LimitedCalls(tmp_path / "cache", Resources())
    spool.run(spool.folder)
    monkeypatch.setattr(job_module, "current_job", lambda: SimpleNamespace(ends=0.0))
    monkeypatch.setattr(job_again, "requeue", refuse)
    job = make_job(spool.folder)
    assert not job._goes_on_here(0, 0.0, lost)
    outcome = spool.folder.ended(0)
    assert outcome is not None
    assert words in str(outcome.error()[0])


# -- limits ----------------------------------------------------------------------------------------------


def test_a_call_that_ends_itself_at_its_deadline_ran_too_long(
    monkeypatch: pytest.MonkeyPatch, make_job: Callable[[Any], Job]
) -> None:
    """It may do so before this process has looked at the limits."""
    job = make_job(SimpleNamespace(batch=SimpleNamespace(calls_per_job=1, log_limit=1 << 20)))
    times = iter([100.0, 104.9, 105.0])
    asked: list[float] = []

    def clock() -> float:
        return next(times)

    monkeypatch.setattr(job, "clock", clock)
    monkeypatch.setattr(job, "_share_clock", lambda: None)
    monkeypatch.setattr(job, "_limit", lambda call_file, deadline: None)
    monkeypatch.setattr(job, "_wait", lambda: (None, -signal.SIGTERM))
    monkeypatch.setattr(job_module, "end_children", lambda patience: None)  # they would be those of the tests
    monkeypatch.setattr(job.signals, "fork", lambda options, run_time: 1 << 30)
    monkeypatch.setattr(job.signals, "await_stop", asked.append)
    call_file: Any = SimpleNamespace(run_time=5.0, memory=None, options={})
    assert job._run(0, call_file) == (None, -signal.SIGTERM)  # 0.1 s before the deadline
    times = iter([100.0, 105.0])
    assert job._run(0, call_file) == ("run_time", -signal.SIGTERM)
    assert len(asked) == 1


def test_the_grace_counts_where_nothing_else_reads_the_clock(
    monkeypatch: pytest.MonkeyPatch, make_job: Callable[[Any], Job]
) -> None:
    """The clock counts a second at most between two readings."""
    now = [0.0]
    killed: list[float] = []

    def wait(*arguments: Any) -> None:
        now[0] += arguments[-1]

    job = make_job(SimpleNamespace(batch=SimpleNamespace(calls_per_job=1, log_limit=1 << 20)))
    job.clock = job.signals._clock = RunClock(lambda: now[0])
    job.runs = 0, SimpleNamespace(wait=60.0, private=True)  # type: ignore[assignment]
    job.folder = SimpleNamespace(beat=lambda number: None, stop=lambda element: None)  # type: ignore[assignment]
    job.pid = 1 << 30
    monkeypatch.setattr(job_module.select, "select", wait)
    monkeypatch.setattr(job_module, "watch_end", lambda pid: None)
    monkeypatch.setattr(job_module, "_LOOKING", float("inf"))
    monkeypatch.setattr(job_module, "status_of_ended", lambda pid: signal.SIGKILL if killed else None)
    monkeypatch.setattr(job_module, "kill_group", lambda pid, signum: killed.append(now[0]))
    job.signals._options = {GRACE: 10.0}
    job.signals._pid = job.pid
    job.signals._stop(signal.SIGTERM, None)
    assert job._wait() == (None, -signal.SIGKILL)
    assert killed == [pytest.approx(10.0)]


# -- calls that cannot be made ---------------------------------------------------------------------------

FAULTS = """
import os, signal, sys
from types import SimpleNamespace
from callyard.errors import CacheError
from callyard.worker import job as job_module
from callyard.worker.job import Job

def end(number, outcome):
    with open(f"{sys.argv[1]}/{number}", "xb") as file:
        file.write(outcome.failure)

def ended(number):
    return SimpleNamespace(state="failed") if os.path.exists(f"{sys.argv[1]}/{number}") else None

def call(number):
    if number == 0:
        raise CacheError("calls is damaged")
    return number

def become(job, *arguments):
    raise OSError(28, "No space left on device")

def no_fork():
    raise BlockingIOError(11, "no more processes")

batch = SimpleNamespace(calls_per_job=4, log_limit=1 << 20, calls=[SimpleNamespace(name=f"call{i}") for i in range(4)])
folder = SimpleNamespace(batch=batch, call=call, end=end, ended=ended, log=lambda number: f"{sys.argv[1]}/{number}.log")
job_module.CallFile = SimpleNamespace(load=lambda packed: SimpleNamespace(
    wait=60.0, private=True, run_time=None, memory=None, options={}))
job_module.load_for = lambda call_file: None
Job._become_call = become
Job._refusal = lambda job, number: None
job = Job(folder)
print(job.make(0).state)
print(job.make(1).state)
fork, os.fork = os.fork, no_fork
print(job.make(2).state, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
os.fork = fork
print(job.make(3).state)
"""


def test_a_call_that_cannot_be_made_ends_no_other_call_of_its_job(tmp_path: Path) -> None:
    """A damaged file, a full disk in the call's process, and no process for the call."""
    run = subprocess.run([sys.executable, "-c", FAULTS, tmp_path], capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == ["failed", "failed", "failed set()", "failed"], run.stderr
    words = ["calls is damaged", "No space left on device", "no more processes", "No space left on device"]
    for number, why in enumerate(words):
        error, _ = pickle.loads((tmp_path / str(number)).read_bytes())
        assert f"'call{number}'" in str(error)
        assert why in str(error)


def test_a_scheduler_that_does_not_answer_has_not_requeued_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(argv: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(argv, options["timeout"])

    names = SlurmScheduler().site().job_variables.environment()
    for variable, value in {**names, "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(SchedulerError, match="scontrol has not requeued it within 60 s"):
        requeue()
