"""The driver, the daemon, a keeper or a job is killed, at any instant: nothing is lost, and nothing runs twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import local_calls as calls
import noted_calls
import psutil
import pytest
from drivers import Driver
from dying import start_dying
from gate import Gate
from local_calls import executor
from local_daemons import TestedDaemon
from noted_calls import runs
from this_machine import running, until

from callyard import Executor, JobCancelled, WorkerLost
from callyard.backends.batch.scheduler_client import client_of
from callyard.hosts.daemon import make_directory
from callyard.schedulers.base import Status

pytestmark = [pytest.mark.once, pytest.mark.needs("daemon")]

Jobs = Callable[[], Executor]


@pytest.fixture
def jobs(own_daemon: TestedDaemon, results: Path) -> Iterator[Jobs]:
    """Make executors of one cache; their jobs end with the test."""
    made: list[Executor] = []

    def create() -> Executor:
        made.append(executor(results))
        return made[-1]

    yield create
    for each in made:
        each.kill_workers()
        each.shutdown()


def graph(ex: Executor, journal: str) -> Any:
    """Submit two calls, and one of both."""
    first = [ex.submit(noted_calls.noted, journal, word) for word in ("one", "two")]
    return ex.submit(noted_calls.noted, journal, "last", *first)


def statuses(*names: str | None) -> list[Status]:
    found = client_of("Local").statuses([str(name) for name in names])
    assert found is not None
    return [found[str(name)] for name in names]


# ------------------------------------------------------------------ the daemon


class Attempt:
    """A daemon that is to die at a step, or whose keepers are, with a cache and a journal of its own."""

    def __init__(self, place: Path, who: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.daemon, self.journal = (
            monkeypatch,
            TestedDaemon(place / f"d{step}"),
            str(place / f"{step}"),
        )
        self.daemon.directory.mkdir(mode=0o700)
        self.mark = self.daemon.directory / f"{who}-{step}"
        with self.meant():
            start_dying(self.daemon.directory, who, step)
            self.ex = executor(place / f"results{step}")  # keeps to this daemon

    @contextmanager
    def meant(self) -> Iterator[None]:
        """Let commands of this process go to the daemon of this attempt."""
        with self.monkeypatch.context() as patch:
            patch.setenv("CALLYARD_DAEMON", str(self.daemon.directory))
            yield

    def stop(self) -> None:
        with self.meant():
            self.daemon.stop()

    def end(self) -> None:
        self.ex.shutdown()
        with self.meant():
            self.daemon.end()


@pytest.mark.timeout(300)
def test_the_daemon_is_killed_at_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = [Attempt(tmp_path, "daemon", step, monkeypatch) for step in (*range(1, 19, 2), 20)]
    futures = [graph(attempt.ex, attempt.journal) for attempt in attempts]
    assert [future.result() for future in futures] == ["last+one+two"] * len(attempts)
    for attempt in attempts:
        attempt.ex.shutdown(wait=False)
    for attempt in attempts:
        attempt.end()
        assert runs(attempt.journal) == {"one": 1, "two": 1, "last": 1}
    survivors = [attempt for attempt in attempts if not attempt.mark.exists()]
    assert survivors, "there are more steps"
    died = {attempt.mark.read_text().split()[0] for attempt in attempts if attempt not in survivors}
    assert died >= {"open", "os.mkdir", "os.rename", "os.remove"}


RENAMED = """
import os, sys
here = os.uname()
os.uname = lambda: os.uname_result((here.sysname, "in-another-network", here.release, here.version, here.machine))
from callyard.daemon.run_daemon import main
main()
"""


def test_the_host_gets_another_name(own_daemon: TestedDaemon, jobs: Jobs, journal: str, gate: Gate) -> None:
    """As a laptop does in another network: its jobs stay known, in this daemon and in the next."""
    make_directory(str(own_daemon.directory))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-c", RENAMED, str(own_daemon.directory)]
    subprocess.run(words, env=environment, check=True, start_new_session=True)
    ex = jobs()
    first = ex.submit(noted_calls.held, journal, gate, "first")
    gate.arrived()
    assert str(first.job_id).startswith("in-another-network-")
    second = ex.submit(noted_calls.noted, journal, "second", first)
    until(lambda: second.job_id)
    own_daemon.kill()
    third = ex.submit(noted_calls.noted, journal, "third", second)
    until(lambda: third.job_id)
    assert not str(third.job_id).startswith("in-another-network-")
    assert [status.phase for status in statuses(first.job_id, second.job_id)] == ["running", "waiting"]
    gate.open()
    assert third.result() == "third+second+first"
    assert runs(journal) == {"first": 1, "second": 1, "third": 1}


def test_a_killed_daemon_is_followed_by_another_that_knows_all(
    own_daemon: TestedDaemon, jobs: Jobs, journal: str, gate: Gate
) -> None:
    ex = jobs()
    running = [ex.submit(noted_calls.held, journal, gate, word) for word in ("a", "b")]
    waiting = ex.submit(noted_calls.noted, journal, "c", *running)
    gate.arrived(2)
    until(lambda: waiting.job_id)
    before = own_daemon.pid
    own_daemon.kill()
    gate.open(2)
    assert waiting.result() == "c+a+b"
    assert own_daemon.pid != before
    assert runs(journal) == {"a": 1, "b": 1, "c": 1}
    until(lambda: [status.exit_code for status in statuses(*(each.job_id for each in (*running, waiting)))] == [0] * 3)


def test_queued_jobs_go_on_without_anybody_asking(
    own_daemon: TestedDaemon, results: Path, journal: str, gate: Gate, tmp_path: Path
) -> None:
    """The daemon and the driver are gone; the keeper of the running job sees that another daemon comes."""
    text = """
        from local_calls import executor
        ex = executor(results)
        first = ex.submit(calls.held, journal, gate, "first")
        second = ex.submit(calls.noted, journal, "second", first)
        ids(first=first, second=second)
        wait([second])
    """
    driver = Driver(text, {"results": str(results), "journal": journal, "gate": gate}, tmp_path, **paths())
    driver.jobs()
    gate.arrived()
    own_daemon.kill()
    driver.end()
    gate.open()
    until(lambda: runs(journal) == {"first": 1, "second": 1})
    with executor(results) as ex:
        first = ex.submit(noted_calls.held, journal, gate, "first")
        assert ex.submit(noted_calls.noted, journal, "second", first).result() == "second+first"
    assert runs(journal) == {"first": 1, "second": 1}


def paths() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_a_job_is_cancelled_while_no_daemon_runs(
    own_daemon: TestedDaemon, jobs: Jobs, journal: str, results: Path
) -> None:
    future = jobs().submit(calls.wait_for_end, journal)
    until(lambda: "begun" in runs(journal))
    own_daemon.kill()
    client_of("Local").cancel([str(future.job_id)])
    assert isinstance(future.exception(), JobCancelled)
    assert runs(journal) == {"begun": 1, "SystemExit": 1}


# ------------------------------------------------------------------ keepers and jobs


@pytest.mark.timeout(300)
def test_keepers_are_killed_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = [Attempt(tmp_path, "keeper", step, monkeypatch) for step in range(1, 8)]
    futures = [attempt.ex.submit(noted_calls.noted, attempt.journal, "call") for attempt in attempts]
    for attempt, future in zip(attempts, futures, strict=True):
        until(lambda attempt=attempt, future=future: future.done() or attempt.mark.exists())  # type: ignore[misc]
        if attempt.mark.exists():
            attempt.stop()  # the next one starts keepers that live
    for attempt, future in zip(attempts, futures, strict=True):
        error = future.exception()
        assert error is None or isinstance(error, WorkerLost)
        assert runs(attempt.journal) in ({"call": 1}, {})
        assert error is not None or runs(attempt.journal)
        attempt.end()
    assert attempts[2].mark.exists()
    assert not attempts[-1].mark.exists(), "there are more steps"


@pytest.mark.parametrize("daemon_too", [False, True])
def test_with_a_killed_keeper_all_of_its_job_ends(
    daemon_too: bool, own_daemon: TestedDaemon, jobs: Jobs, journal: str, gate: Gate
) -> None:
    future = jobs().submit(calls.leave_processes, journal, gate)
    gate.arrived()
    pids = [int(pid) for pid in Path(journal).read_text().strip().split(",")]
    (keeper,) = own_daemon.keepers()
    pids += [process.pid for process in keeper.children(recursive=True)]
    if daemon_too:
        own_daemon.kill()
    keeper.kill()
    with pytest.raises(WorkerLost, match="lost the process that keeps it"):
        future.result()
    until(lambda: not any(map(running, pids)))


def test_a_killed_job_is_told_at_once(own_daemon: TestedDaemon, jobs: Jobs, journal: str, gate: Gate) -> None:
    future = jobs().submit(noted_calls.processes, journal, gate, "call")
    gate.arrived()
    _, of_job = map(int, Path(journal).read_text().strip().split(","))
    os.kill(of_job, signal.SIGKILL)
    assert isinstance(future.exception(), WorkerLost)


# ------------------------------------------------------------------ drivers


def test_nobody_was_told_of_inherited_failures(
    own_daemon: TestedDaemon, results: Path, journal: str, tmp_path: Path
) -> None:
    """Once the input has a result, the calls that take it run: their failures were those of the input."""
    missing = tmp_path / "missing"
    text = """
        from local_calls import executor
        ex = executor(results)
        bad = ex.submit(calls.failing_without, journal, missing, "bad")
        after = ex.submit(calls.noted, journal, "after", bad)
        ids(bad=bad, after=after, last=ex.submit(calls.noted, journal, "last", after))
        os._exit(0)
    """
    driver = Driver(text, {"results": str(results), "journal": journal, "missing": str(missing)}, tmp_path, **paths())
    assert driver.finish() == (0, "")
    until(lambda: len(list(results.glob("jobs/*/*.end"))) == 3)
    with executor(results) as ex, pytest.raises(ValueError, match="bad"):
        ex.submit(noted_calls.failing_without, journal, str(missing), "bad").result()
    missing.touch()
    with executor(results) as ex:
        bad = ex.submit(noted_calls.failing_without, journal, str(missing), "bad")
        after = ex.submit(noted_calls.noted, journal, "after", bad)
        assert ex.submit(noted_calls.noted, journal, "last", after).result() == "last+after+bad"
    assert runs(journal) == {"bad": 2, "after": 1, "last": 1}
    assert os.listdir(results / "jobs") == []


def test_a_logout(own_daemon: TestedDaemon, results: Path, journal: str, gate: Gate, tmp_path: Path) -> None:
    """Hang up all processes of the driver's session: the daemon that it has started lives, and the job goes on."""
    text = """
        from local_calls import executor
        os.setsid()
        ex = executor(results)
        future = ex.submit(calls.held, journal, gate, "call")
        ids(call=future)
        wait([future])
    """
    driver = Driver(text, {"results": str(results), "journal": journal, "gate": gate}, tmp_path, **paths())
    driver.jobs()
    gate.arrived()
    session = driver.process.pid
    for process in psutil.process_iter():
        if belongs_to(process.pid, session):
            with contextlib.suppress(psutil.NoSuchProcess):  # it may end with one that was told before
                process.send_signal(signal.SIGHUP)
    code, _ = driver.finish()
    assert code == -signal.SIGHUP
    driver.end()
    gate.open()
    with executor(results) as ex:
        assert ex.submit(noted_calls.held, journal, gate, "call").result() == "call"
    assert runs(journal) == {"call": 1}


def belongs_to(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False


SUBMITS = """
    from steps import die_at
    from local_calls import executor
    die_at(step, results)
    with executor(results) as ex:
        first = [ex.submit(calls.noted, journal, word) for word in ("one", "two")]
        ex.submit(calls.noted, journal, "last", *first).result()
"""


@pytest.mark.timeout(300)
def test_drivers_are_killed_at_many_steps(own_daemon: TestedDaemon, tmp_path: Path) -> None:
    own_daemon.start()
    steps = range(3, 40, 9)
    attempts = {}
    for step in steps:
        names = {"results": str(tmp_path / f"results{step}"), "journal": str(tmp_path / f"journal{step}"), "step": step}
        attempts[step] = Driver(SUBMITS, names, tmp_path, **paths())
    killed = 0
    for driver in attempts.values():
        code, errors = driver.finish()
        assert code in (0, -signal.SIGKILL), errors
        killed += code != 0
        driver.end()
    assert killed
    later = {step: executor(tmp_path / f"results{step}") for step in steps}
    futures = [graph(ex, str(tmp_path / f"journal{step}")) for step, ex in later.items()]
    assert [future.result() for future in futures] == ["last+one+two"] * len(later)
    for ex in later.values():
        ex.shutdown()
    for step in steps:
        until(lambda step=step: len(runs(tmp_path / f"journal{step}")) == 3)  # type: ignore[misc]
        assert set(runs(tmp_path / f"journal{step}").values()) == {1}


def test_drivers_that_start_at_the_same_time_have_one_daemon(
    own_daemon: TestedDaemon, results: Path, tmp_path: Path
) -> None:
    code = "from callyard.hosts.daemon import *; import sys; d = make_directory(sys.argv[1]); print(start_daemon(d))"
    argv = [sys.executable, "-c", code, str(own_daemon.directory)]
    starters = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, **paths()}) for _ in range(6)
    ]
    assert [process.communicate()[0].strip() for process in starters] == [""] * 6
    lock = str(own_daemon.directory / "lock")
    holders = [p for p in psutil.process_iter() if any(f.path == lock for f in open_files(p))]
    until(lambda: [p.pid for p in holders if p.is_running()] == [own_daemon.pid])


def open_files(process: psutil.Process) -> Any:
    try:
        return process.open_files()
    except psutil.Error:
        return ()
