"""What a call that is a job hears of its end, and the signals that people send to jobs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import ending_calls as calls
import psutil
import pytest
from cluster import Cluster
from this_machine import until

import callyard
from callyard import Executor, JobCancelled, TimeLimitExceeded, WorkerLost
from callyard.futures import Future
from callyard.system import run_clock

pytestmark = pytest.mark.once

Detached = Callable[..., Executor]
ENOUGH = 4  # s of `run_time` in which a call certainly begins


def begun(path: Path, future: Future[object]) -> str:
    """Wait until the call has begun; return its job."""
    until(lambda: path.exists() and bool(path.stat().st_size))
    return str(future.job_id)


def count_signals(path: Path, name: str) -> str:
    """Return the name of the first signal of this kind."""
    got: list[int] = []
    signal.signal(signal.Signals[name], lambda signum, frame: got.append(signum))
    path.write_text("begun")
    while not got:
        time.sleep(0.01)
    return signal.Signals(got[0]).name


def until_gone(path: Path) -> float:
    """Return how many seconds did not count until a file was removed."""
    call = callyard.current()
    assert call is not None
    began, left = time.monotonic(), call.time_left()
    path.write_text("begun")
    while path.exists():
        time.sleep(0.01)
    now, still_left = time.monotonic(), call.time_left()
    assert left is not None
    assert still_left is not None
    return (now - began) - (left - still_left)


def processes_of(job: str) -> list[psutil.Process]:
    """Return the process of a job and that of its call."""
    found = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("SLURM_JOB_ID") == job]
    return [process for process in found if process.name().startswith(("python", "callyard"))]


def stay(path: Path) -> None:
    path.write_text("begun")
    time.sleep(calls.STAY)


# ------------------------------------------------------------------ its end


def test_a_cancelled_job_cleans_up(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    word = tmp_path / "word"
    future = ex.submit(calls.clean_up, word)
    slurm.run("scancel", begun(word, future))
    with pytest.raises(JobCancelled):
        future.result()
    assert word.read_text() == "ending True"


def test_a_cancelled_job_that_returns_has_returned(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    word = tmp_path / "word"
    future = ex.submit(calls.save_and_return, word)
    slurm.run("scancel", begun(word, future))
    assert future.result() == "saved"
    assert ex.submit(calls.save_and_return, word).cached


def test_a_running_call_that_is_cancelled_cleans_up(ex: Executor, tmp_path: Path) -> None:
    word = tmp_path / "word"
    future = ex.submit(calls.clean_up, word)
    begun(word, future)
    assert future.cancel() or True  # it may count as running, and then only its executor can end it
    ex.kill_workers()
    until(lambda: word.read_text() == "ending True")


def test_the_time_of_a_call_is_over(ex: Executor, tmp_path: Path) -> None:
    word = tmp_path / "word"
    cleaning = ex.submit(calls.clean_up, word, resource_dict={"run_time": ENOUGH})
    saving = ex.submit(calls.save_and_return, tmp_path / "begun", resource_dict={"run_time": ENOUGH})
    failing = ex.submit(calls.raise_another, resource_dict={"run_time": ENOUGH})
    ignoring = ex.submit(calls.ignore_the_end, resource_dict={"run_time": ENOUGH, "grace": 0.5})
    with pytest.raises(TimeLimitExceeded):
        cleaning.result()
    assert word.read_text() == "ending True"
    assert saving.result() == "saved"
    for future in (failing, ignoring):
        with pytest.raises(TimeLimitExceeded):
            future.result()


def test_the_time_in_which_a_job_is_suspended_does_not_count(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    word = tmp_path / "word"
    future = ex.submit(until_gone, word, resource_dict={"run_time": 600})
    job = begun(word, future)
    slurm.run("scontrol", "suspend", job)
    stands_still = {psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP}  # by SIGSTOP, or frozen in its cgroup
    until(lambda: {process.status() for process in processes_of(job)} <= stands_still)
    time.sleep(run_clock.STEP + 2)
    word.unlink()
    slurm.run("scontrol", "resume", job)
    assert future.result() > 1.9


# ------------------------------------------------------------------ signals by hand


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGHUP"])
@pytest.mark.parametrize("how", ["--batch", "--full"])
def test_a_signal_reaches_the_call(ex: Executor, slurm: Cluster, tmp_path: Path, name: str, how: str) -> None:
    word = tmp_path / "word"
    future = ex.submit(count_signals, word, name)
    slurm.run("scancel", f"--signal={name[3:]}", how, begun(word, future))
    assert future.result() == name


def test_a_call_without_a_handler_is_as_any_process(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    """Its job outlives the signal, and makes the next call."""
    ex, word = detached(calls_per_job=2), tmp_path / "word"
    futures = [ex.submit(stay, word), ex.submit(abs, -3)]
    slurm.run("scancel", "--signal=USR1", "--batch", begun(word, futures[0]))
    with pytest.raises(WorkerLost, match="SIGUSR1"):
        futures[0].result()
    assert futures[1].result() == 3


# ------------------------------------------------------------------ the warning


def test_warnings_before_the_end(ex: Executor, slurm: Cluster, detached: Detached) -> None:
    by_time = ex.submit(calls.until_warned, resource_dict={"run_time": 60, "warn_before": 60 - ENOUGH})
    by_signal = ex.submit(
        calls.warned_by, "SIGUSR2", resource_dict={"run_time": 60, "warn_before": 56, "warn_signal": "USR2"}
    )
    by_slurm = detached(walltime=60).submit(calls.until_warned, "by Slurm", resource_dict={"warn_before": 50})
    in_time, left = by_time.result()
    assert in_time
    assert 0 < left < 60
    assert by_signal.result() == "SIGUSR2"
    in_time, left = by_slurm.result()
    assert left is None or 0 < left <= 60


def test_what_a_job_was_given(detached: Detached, slurm: Cluster) -> None:
    ex = detached(walltime=600)
    future = ex.submit(calls.about, resource_dict={"memory": 0.5, "cores_per_rank": 2})
    inner = ex.submit(calls.about_an_executor, resource_dict={"memory": 0.5, "cores_per_rank": 2})
    together = [ex.submit(calls.about, number) for number in range(3)]
    about = future.result()
    assert isinstance(about, callyard.CurrentCall)
    assert (about.attempt, about.key, about.cores, about.gpus, about.memory) == (1, future.key, 2, (), 0.5)
    assert about.name == "about"
    assert "2 cores, 0 GPUs, 0.5 GiB" in inner.result()
    assert [each.result().number for each in together] == [0, 1, 2]


# ------------------------------------------------------------------ run again


def test_a_job_makes_its_call_again(ex: Executor, slurm: Cluster) -> None:
    future = ex.submit(calls.count_down, 3)
    dependent = ex.submit(repr, future)
    assert future.result() == (6, 4)
    assert future.attempts == 4
    assert dependent.result() == "(6, 4)"
    assert ex.submit(calls.count_down, 3).cached, "the key is that of the first arguments"
    assert slurm.commands()["sbatch"] == 2


def test_arguments_that_no_job_can_keep(ex: Executor) -> None:
    with pytest.raises(callyard.UnpicklableCall, match="the arguments of Again, of types generator, cannot be sent"):
        ex.submit(calls.go_on_unpicklable).result()


@pytest.mark.needs("mpi")
def test_ranks_that_ask_to_be_run_again(ex: Executor) -> None:
    future = ex.submit(calls.count_down_on_ranks, 1, resource_dict={"ranks": 2})
    one_rank = ex.submit(calls.ask_on_one_rank, resource_dict={"ranks": 2})
    limited = ex.submit(calls.time_left_on_ranks, resource_dict={"ranks": 2, "run_time": 60})
    assert future.result() == [(0, 1, 2), (1, 2, 2)]
    assert future.attempts == 2
    with pytest.raises(callyard.CallyardError, match="on 1 of its 2 ranks, and returned on the others"):
        one_rank.result()
    # The job itself has more time.
    assert all(left is not None and 0 < left <= 60 for left in limited.result())


@pytest.mark.needs("mpi")
def test_ranks_hear_of_their_end(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    """Each rank does, from the call's process; the grace is the call's, not that of the launcher."""
    words = [[tmp_path / f"{name}{rank}" for rank in range(2)] for name in "ab"]
    warning = {"ranks": 2, "warn_before": 5, "warn_signal": "USR2"}
    warned = ex.submit(calls.warned_on_all_ranks, words[0], resource_dict=warning)
    stopped = ex.submit(calls.save_on_all_ranks, words[1], 2.0, resource_dict={"ranks": 2})
    for word in words[0]:
        job = begun(word, warned)
    slurm.run("scancel", "--signal=USR2", "--batch", job)
    for word in words[1]:
        job = begun(word, stopped)
    slurm.run("scancel", "--signal=TERM", "--batch", job)
    assert [name for _, name in warned.result()] == ["SIGUSR2"] * 2
    assert stopped.result() == ["saved"] * 2


@pytest.mark.needs("mpi")
def test_ranks_go_on_when_their_job_is_started_again(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    word = tmp_path / "word"
    future = ex.submit(calls.ask_on_all_ranks_when_told, word, resource_dict={"ranks": 2, "restart_limit": 1})
    job = begun(word, future)
    slurm.run("scontrol", "requeue", job)
    at_once(slurm, job)
    assert future.result() == [2, 2]


def at_once(slurm: Cluster, job: str) -> None:
    """Slurm holds a job that is started again for two minutes; within the same second its node would refuse it."""
    until(lambda: slurm.state(job) == "PENDING")
    slurm.run("scontrol", "update", f"jobid={job}", "starttime=now+2")


def test_a_call_that_goes_on_when_its_job_is_started_again(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    word = tmp_path / "word"
    future = ex.submit(calls.ask_when_told, word, resource_dict={"restart_limit": 1})
    job = begun(word, future)
    slurm.run("scontrol", "requeue", job)
    at_once(slurm, job)
    assert future.result() == 2
    assert future.attempts == 2


def test_a_call_goes_on_after_a_preemption(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    word = tmp_path / "word"
    future = ex.submit(calls.ask_when_told_there, word, resource_dict={"partition": "low", "restart_limit": 1})
    job = begun(word, future)
    wanted = ["--partition=main", f"--nodelist={word.read_text()}", "--exclusive", "--output=/dev/null"]
    slurm.run("sbatch", *wanted, "--wrap=sleep 600")
    at_once(slurm, job)
    attempt, node = future.result()
    assert attempt == future.attempts == 2
    assert node != word.read_text()
    slurm.cancel_all()


def test_a_call_goes_on_in_another_job_where_its_own_is_not_started_again(
    ex: Executor, slurm: Cluster, tmp_path: Path
) -> None:
    word = tmp_path / "word"
    future = ex.submit(calls.ask_when_told_there, word, resource_dict={"partition": "spare"})
    job = begun(word, future)
    wanted = ["--partition=main", f"--nodelist={word.read_text()}", "--exclusive", "--output=/dev/null"]
    slurm.run("sbatch", *wanted, "--wrap=sleep 600")
    attempt, node = future.result()
    assert attempt == future.attempts == 2
    assert node != word.read_text()
    assert future.job_id != job
    assert ex.submit(calls.ask_when_told_there, word).cached
    slurm.cancel_all()


def test_those_that_wait_for_a_call_follow_it_to_another_job(
    slurm: Cluster, detached: Detached, tmp_path: Path
) -> None:
    """One in a job that waits, some in an array, one behind these, and one that is submitted after the move."""
    word, ex = tmp_path / "word", detached(walltime=600)
    no_scontrol = {"warn_before": 5, "env": {"PATH": str(tmp_path)}}
    future = ex.submit(calls.stop_when_warned, word, resource_dict=no_scontrol)
    texts = [ex.submit(repr, future), *(ex.submit(pow, future, exponent) for exponent in range(3))]
    last = ex.submit(sum, texts[1:])
    slurm.run("scancel", "--signal=USR1", "--batch", begun(word, future))
    until(lambda: future.attempts > 1)
    late = ex.submit(str, future)
    assert [each.result() for each in (*texts, last, late)] == ["1", 1, 1, 1, 3, "1"]
    assert future.result() == 1


def test_a_call_that_goes_on_in_another_job_counts_for_max_workers(
    slurm: Cluster, detached: Detached, tmp_path: Path
) -> None:
    words, ex = [tmp_path / "first", tmp_path / "second"], detached(walltime=600, at_once=1)
    no_scontrol = {"warn_before": 5, "env": {"PATH": str(tmp_path)}}
    future = ex.submit(calls.stop_when_warned, words[0], resource_dict=no_scontrol)
    first = begun(words[0], future)
    other = ex.submit(until_gone, words[1], resource_dict={"run_time": 600})
    until(lambda: other.job_id is not None)
    slurm.run("scancel", "--signal=USR1", "--batch", first)
    running = begun(words[1], other)
    until(lambda: future.job_id != first)
    assert f"Dependency=afterany:{running}" in slurm.run("scontrol", "show", "job", str(future.job_id))
    words[1].unlink()
    assert future.result() == 1


def test_a_call_goes_on_in_another_job_where_its_own_cannot_have_itself_started_again(
    slurm: Cluster, detached: Detached, tmp_path: Path
) -> None:
    word = tmp_path / "word"
    no_scontrol = {"warn_before": 5, "env": {"PATH": str(tmp_path)}}
    future = detached(walltime=600).submit(calls.stop_when_warned, word, resource_dict=no_scontrol)
    job = begun(word, future)
    slurm.run("scancel", "--signal=USR1", "--batch", job)
    assert future.result() == 1
    assert future.attempts == 2
    assert future.job_id != job


def test_a_call_that_is_warned_has_its_job_started_again(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    word = tmp_path / "word"
    future = detached(walltime=600).submit(calls.stop_when_warned, word, resource_dict={"warn_before": 5})
    job = begun(word, future)
    slurm.run("scancel", "--signal=USR1", "--batch", job)
    at_once(slurm, job)
    assert future.result() == 1
    assert future.attempts == 2


def test_a_cancelled_call_is_not_run_again(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    word = tmp_path / "word"
    future = ex.submit(calls.ask_when_told, word)
    slurm.run("scancel", begun(word, future))
    with pytest.raises(JobCancelled):
        future.result()
