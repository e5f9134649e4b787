"""Whoever submits is killed, at any instant; whoever submits the same after that gets all results, of one run each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import noted_calls as calls
import pytest
from cluster import Cluster
from drivers import QUICK, Driver, executor
from failing_calls import refuse_arrays
from gate import Gate
from noted_calls import runs
from this_machine import until

from callyard import Executor, JobCancelled, JobLost, WorkerLost
from callyard.backends.batch import scheduler_client

Make = Callable[..., Executor]
Drive = Callable[..., Driver]


def has_run(journal: str, word: str) -> None:
    until(lambda: word in runs(journal))


# ------------------------------------------------------------------ every step

AT_ONCE = 16  # processes that are killed side by side
WORDS = ("first", "other", "second")

DIES = """
    from steps import die_at
    die_at(step, results)
    with executor(results) as ex:
        first = ex.submit(calls.noted, journal, "first")
        other = ex.submit(calls.noted, journal, "other")
        ex.submit(calls.noted, journal, "second", first, other).result()
"""


class Attempt:
    """A driver that is to die at a step, with a cache and a journal of its own."""

    def __init__(self, directory: Path, step: int, driver: Drive) -> None:
        self.results, self.journal = directory / f"results{step}", str(directory / f"journal{step}")
        self.driver = driver(DIES, step=step, results=str(self.results), journal=self.journal)

    def survives(self) -> bool:
        code, self.said = self.driver.finish()
        assert code in (0, -signal.SIGKILL), self.said
        return code == 0

    def submit_again(self) -> None:
        self.ex = executor(self.results)
        first, other = (self.ex.submit(calls.noted, self.journal, word) for word in ("first", "other"))
        self.last = self.ex.submit(calls.noted, self.journal, "second", first, other)

    def check(self) -> None:
        assert self.last.result(200) == "second+first+other", self.said
        self.ex.shutdown()
        assert os.listdir(self.results / "jobs") == [], self.said

    def check_journal(self) -> None:
        assert runs(self.journal) == dict.fromkeys(WORDS, 1), self.said


@pytest.mark.once
@pytest.mark.timeout(900)  # a hundred drivers, each with jobs
@pytest.mark.parametrize("taken", ["whole", "in parts"])
def test_killed_at_every_step(
    taken: str, driver: Drive, slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if taken == "in parts":
        refuse_arrays(tmp_path / "bin", monkeypatch, 1)
    step, over, tried = 1, False, []
    while not over:
        attempts = [Attempt(tmp_path, number, driver) for number in range(step, step + AT_ONCE)]
        survivors = [attempt for attempt in attempts if attempt.survives()]
        over = bool(survivors)
        for attempt in attempts:
            attempt.submit_again()
        for attempt in attempts:
            attempt.check()
        step += AT_ONCE
        tried += attempts
    until(lambda: not slurm.jobs())
    for attempt in tried:
        attempt.check_journal()
    kinds = {attempt.said.split()[2] for attempt in tried if attempt.said}
    assert kinds >= {"open", "os.mkdir", "os.rename", "os.remove", "subprocess.Popen"}


# ------------------------------------------------------------------ while a command runs


class Wrapped:
    """A program that stands before `sbatch`. `real` in its text is the true one's path, `$PPID` who has called it."""

    def __init__(self, directory: Path, slurm: Cluster, text: str) -> None:
        directory.mkdir()
        self.mark, self.go = directory / "mark", directory / "go"
        real = shutil.which("sbatch", path=slurm.environment["PATH"])
        file = directory / "sbatch"
        file.write_text(f"#!/bin/bash\nreal={real} mark={self.mark} go={self.go} test={os.getpid()}\n{text}\n")
        file.chmod(0o700)
        self.environment = {"PATH": f"{directory}:{slurm.environment['PATH']}"}


SUBMITS = """
    ex = executor(results)
    futures = [ex.submit(calls.noted, journal, word) for word in ("one", "two")]
    wait(futures)
"""


def submit_both(ex: Executor, journal: str) -> list[str]:
    return [future.result() for future in [ex.submit(calls.noted, journal, word) for word in ("one", "two")]]


def test_killed_before_the_scheduler_has_answered(
    driver: Drive, make: Make, slurm: Cluster, journal: str, results: Path, tmp_path: Path
) -> None:
    sbatch = Wrapped(tmp_path / "bin", slurm, '$real "$@"; kill -9 $PPID')
    driver(SUBMITS, sbatch.environment).finish()
    ex = make()
    assert submit_both(ex, journal) == ["one", "two"]
    ex.shutdown()
    assert slurm.commands()["sbatch"] == 1
    assert runs(journal) == {"one": 1, "two": 1}
    assert os.listdir(results / "jobs") == []


def test_a_submission_that_arrives_after_all(
    driver: Drive, make: Make, slurm: Cluster, journal: str, gate: Gate, results: Path, tmp_path: Path
) -> None:
    """Its driver was killed, and another has not found it and has submitted the batch too: there are two jobs of it."""
    sbatch = Wrapped(
        tmp_path / "bin",
        slurm,
        'kill -9 $PPID; while [ ! -e $go ]; do kill -0 $test || exit; sleep 0.02; done; exec $real "$@"',
    )
    driver(
        """
        ex = executor(results)
        wait([ex.submit(calls.held, journal, gate, "call"), ex.submit(calls.failing_late, journal, gate, "bad")])
        """,
        sbatch.environment,
    ).finish()
    ex = make()
    good = ex.submit(calls.held, journal, gate, "call")
    bad = ex.submit(calls.failing_late, journal, gate, "bad")
    has_run(journal, "call")
    has_run(journal, "bad")
    sbatch.go.touch()
    until(lambda: list(slurm.jobs().values()).count("RUNNING") == 4)
    gate.open(2)
    assert good.result() == "call"
    with pytest.raises(ValueError, match="bad"):
        bad.result()
    ex.shutdown()
    until(lambda: not slurm.jobs())
    assert runs(journal) == {"call": 1, "bad": 1}


def test_two_find_what_was_not_submitted(
    driver: Drive, make: Make, slurm: Cluster, journal: str, results: Path, tmp_path: Path
) -> None:
    sbatch = Wrapped(tmp_path / "bin", slurm, "kill -9 $PPID")
    driver(SUBMITS, sbatch.environment).finish()
    executors = [make() for _ in range(4)]
    futures = [ex.submit(calls.noted, journal, word) for ex in executors for word in ("one", "two")]
    assert [future.result() for future in futures] == ["one", "two"] * 4
    for ex in executors:
        ex.shutdown()
    assert slurm.commands()["sbatch"] == 1
    assert runs(journal) == {"one": 1, "two": 1}
    assert os.listdir(results / "jobs") == []


def test_the_command_is_killed_after_it_has_submitted(
    make: Make, slurm: Cluster, journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = Wrapped(tmp_path / "bin", slurm, '[ -e $mark ] && exec $real "$@"; touch $mark; $real "$@"; kill -9 $$')
    monkeypatch.setenv("PATH", sbatch.environment["PATH"])
    assert submit_both(make(), journal) == ["one", "two"]
    assert slurm.commands()["sbatch"] == 1
    assert runs(journal) == {"one": 1, "two": 1}


def test_the_command_hangs_after_it_has_submitted(
    make: Make, slurm: Cluster, journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = Wrapped(tmp_path / "bin", slurm, '[ -e $mark ] && exec $real "$@"; touch $mark; $real "$@"; sleep 1000')
    monkeypatch.setenv("PATH", sbatch.environment["PATH"])
    monkeypatch.setattr(scheduler_client, "_TIME_LIMIT", 1)
    assert submit_both(make(), journal) == ["one", "two"]
    assert slurm.commands()["sbatch"] == 1
    assert runs(journal) == {"one": 1, "two": 1}


def test_the_name_of_a_job_is_lost(driver: Drive, make: Make, slurm: Cluster, journal: str, results: Path) -> None:
    old = driver("""
        ex = executor(results)
        ids(call=ex.submit(calls.noted, journal, "call", resource_dict={"slurm_cmd_args": ["--hold"]}))
        signal.pause()
    """)
    job = old.jobs()["call"]
    old.kill()
    (name,) = results.glob("jobs/*/job")
    name.unlink()
    future = make().submit(calls.noted, journal, "call")
    until(lambda: future.job_id == job)
    slurm.run("scontrol", "release", job)
    assert future.result() == "call"
    assert runs(journal) == {"call": 1}


# ------------------------------------------------------------------ while jobs run


HOLDS = """
    ex = executor(results)
    good, bad = ex.submit(calls.held, journal, gate, "good"), ex.submit(calls.failing_late, journal, gate, "bad")
    after = ex.submit(calls.noted, journal, "after", good)
    ids(good=good, bad=bad, after=after)
    signal.pause()
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_killed_before_results_are_delivered(
    sign: signal.Signals, driver: Drive, make: Make, gate: Gate, slurm: Cluster, journal: str, results: Path
) -> None:
    """Either before the calls have ended, or after that but before it has noticed."""
    old = driver(HOLDS)
    old.jobs()
    has_run(journal, "good")
    has_run(journal, "bad")
    old.process.send_signal(sign)
    gate.open(2)
    until(lambda: not slurm.jobs())
    old.kill()
    ex = make()
    good = ex.submit(calls.held, journal, gate, "good")
    assert ex.submit(calls.noted, journal, "after", good).result() == "after+good"
    with pytest.raises(ValueError, match="bad"):
        ex.submit(calls.failing_late, journal, gate, "bad").result()
    ex.shutdown()
    assert runs(journal) == {"good": 1, "bad": 1, "after": 1}
    assert len(os.listdir(results / "jobs")) == 1  # what the call that failed has printed


def test_all_that_was_remembered_leaves_nothing(
    driver: Drive, make: Make, slurm: Cluster, journal: str, results: Path
) -> None:
    """Who finds everything in the cache tidies up after those who submitted it."""
    driver(SUBMITS.replace("wait(futures)", "ids(one=futures[0], two=futures[1]); os._exit(0)")).finish()
    until(lambda: not slurm.jobs())
    assert os.listdir(results / "jobs") != []
    ex = make()
    assert submit_both(ex, journal) == ["one", "two"]
    ex.shutdown()
    assert os.listdir(results / "jobs") == []
    assert runs(journal) == {"one": 1, "two": 1}


@pytest.mark.parametrize("whom", ["call", "keeper"])
@pytest.mark.parametrize("watched", [True, False])
def test_a_process_of_a_job_is_killed(
    whom: str, watched: bool, driver: Drive, make: Make, gate: Gate, slurm: Cluster, journal: str
) -> None:
    old = driver("""
        ex = executor(results)
        future = ex.submit(calls.processes, journal, gate, "call")
        print("ended with", repr(future.exception()), flush=True)
        signal.pause()
    """)
    until(lambda: bool(runs(journal)))
    (pids,) = runs(journal)
    if not watched:
        old.kill()
    os.kill(int(pids.split(",")[whom == "keeper"]), signal.SIGKILL)
    if watched:
        assert "WorkerLost" in old.wait_for("ended with")
    until(lambda: not slurm.jobs())
    ex = make()
    if not watched:  # then it is told to who comes next, once
        with pytest.raises(WorkerLost, match=r"signal 9|SIGKILL"):
            ex.submit(calls.processes, journal, gate, "call").result()
    gate.open()
    assert ex.submit(calls.processes, journal, gate, "call").result() == "call"
    assert len(runs(journal)) == 2


def test_the_directory_of_a_batch_is_gone(
    driver: Drive, make: Make, slurm: Cluster, journal: str, results: Path
) -> None:
    old = driver("""
        ex = executor(results)
        ids(call=ex.submit(calls.noted, journal, "call", resource_dict={"slurm_cmd_args": ["--hold"]}))
        signal.pause()
    """)
    job = old.jobs()["call"]
    old.kill()
    shutil.rmtree(results / "jobs")
    slurm.run("scontrol", "release", job)
    assert slurm.wait_for(job, "FAILED", "COMPLETED") == "FAILED"
    assert not runs(journal)
    assert make().submit(calls.noted, journal, "call").result() == "call"
    assert runs(journal) == {"call": 1}


def test_the_directory_vanishes_while_it_is_waited_for(make: Make, slurm: Cluster, journal: str, results: Path) -> None:
    future = make().submit(calls.noted, journal, "call", resource_dict={"slurm_cmd_args": ["--hold"]})
    until(lambda: bool(future.job_id))
    shutil.rmtree(results / "jobs")
    with pytest.raises(JobLost, match="was removed while it was waited for"):
        future.result()
    slurm.cancel_all()


# ------------------------------------------------------------------ claims


def test_a_job_waits_for_who_has_claimed_its_call(
    make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path
) -> None:
    with Executor(1, cache=results) as local:
        first = local.submit(calls.held, journal, gate, "call")
        has_run(journal, "call")
        second = make().submit(calls.held, journal, gate, "call")
        until(lambda: bool(list(results.glob("jobs/*/*.begun"))))
        gate.open()
        assert (first.result(), second.result()) == ("call", "call")
    assert runs(journal) == {"call": 1}


def test_a_worker_waits_for_a_job_that_has_claimed_its_call(
    make: Make, gate: Gate, journal: str, results: Path
) -> None:
    first = make().submit(calls.held, journal, gate, "call")
    has_run(journal, "call")
    with Executor(1, cache=results) as local:
        second = local.submit(calls.held, journal, gate, "call")
        gate.open()
        assert (first.result(), second.result()) == ("call", "call")
    assert runs(journal) == {"call": 1}


def can_be_another_host() -> bool:
    return subprocess.run(["unshare", "--uts", "hostname", "other"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_a_job_on_another_host_leaves_no_claim(
    how: str, gate: Gate, journal: str, slurm: Cluster, results: Path
) -> None:
    """Its own process removes it, as from elsewhere nobody could prove that a process there is gone."""
    if not can_be_another_host():
        pytest.skip("no right to pretend to be another host")
    launcher = ("unshare", "--uts", "sh", "-c", 'hostname other; exec "$@"', "sh")
    with Executor(backend=replace(QUICK, launcher=launcher), cache=results) as ex:
        future = ex.submit(calls.processes, journal, gate, "call")
        until(lambda: bool(runs(journal)))
        (claim,) = (results / "claims").glob("*")
        assert json.loads(claim.read_text())["host"] == "other"
        if how == "cancel":
            slurm.run("scancel", str(future.job_id))
        else:
            (pids,) = runs(journal)
            os.kill(int(pids.split(",")[0]), signal.SIGKILL)
        with pytest.raises((JobCancelled, WorkerLost)):
            future.result()
        assert list((results / "claims").glob("*")) == []
        gate.open()
        assert ex.submit(calls.processes, journal, gate, "call").result() == "call"
