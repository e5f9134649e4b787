"""A job whose call fails in its own way: what the process in it does, and what cannot be sent there or back."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cloudpickle
import pytest
from cluster import Cluster
from failing_calls import (
    Detached,
    Unopenable,
    add,
    another_python,
    failure,
    hold,
    places,
    until_it_runs,
)

import callyard
from callyard import (
    CacheError,
    CallyardError,
    Executor,
    JobCancelled,
    JobLost,
    NodeFailure,
    OutOfMemory,
    TimeLimitExceeded,
    UnpicklableCall,
    VersionMismatch,
    WorkerLost,
)
from callyard.errors import UnreadableCall

# ------------------------------------------------------------------ limits of time and memory


def test_run_time(ex: Executor, tmp_path: Path) -> None:
    # Counted from the fork, so it must be long enough for a busy machine to come as far as the function.
    long = ex.submit(hold, str(tmp_path), resource_dict={"run_time": 4})
    other = ex.submit(add, 1, 2)
    failure(long, TimeLimitExceeded, "run_time of 4 s", until_it_runs(tmp_path))
    assert other.result() == 3


def allocate(gib: float) -> int:
    block = bytearray(int(gib * (1 << 30)))
    for at in range(0, len(block), 4096):
        block[at] = 1
    return len(block)


def test_too_much_memory(ex: Executor) -> None:
    large, other = ex.submit(allocate, 0.6, resource_dict={"memory": 0.25}), ex.submit(add, 1, 2)
    failure(large, OutOfMemory, "0.25 GiB")
    assert other.result() == 3


def test_too_much_memory_for_the_scheduler(ex: Executor, slurm: Cluster) -> None:
    large = ex.submit(allocate, 0.5, resource_dict={"slurm_cmd_args": ["--mem=200"]})
    other = ex.submit(add, 1, 2)
    failure(large, OutOfMemory if slurm.kills_by_memory else WorkerLost)
    assert other.result() == 3


# ------------------------------------------------------------------ the process of a call


def die(by: int) -> None:
    os.kill(os.getpid(), by)


@pytest.mark.parametrize("by", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_call_dies_by_a_signal(ex: Executor, by: signal.Signals) -> None:
    dead, other = ex.submit(die, int(by)), ex.submit(add, 1, 2)
    error = failure(dead, WorkerLost, by.name)
    assert error.exitcode == -by
    assert other.result() == 3


def kill_the_job() -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def test_a_job_dies_by_a_signal(ex: Executor) -> None:
    error = failure(ex.submit(kill_the_job), WorkerLost, "SIGKILL")
    assert error.exitcode == -signal.SIGKILL


def end_the_job_after_the_call() -> None:
    then = f"kill {os.getpid()}; sleep 0.05; kill {os.getppid()}"
    subprocess.Popen(["sh", "-c", then], start_new_session=True).wait()  # `run` kills it when the call is told to end


def test_the_job_is_ended_an_instant_after_the_call(ex: Executor) -> None:
    """So it is the job that was ended: schedulers send signals to one process after the other."""
    failure(ex.submit(end_the_job_after_the_call), WorkerLost, f"exit code {128 + signal.SIGTERM}")


def leave(code: int) -> None:
    os._exit(code)


def test_a_call_leaves_without_a_word(ex: Executor) -> None:
    assert failure(ex.submit(leave, 3), WorkerLost, "exit code 3").exitcode == 3


def test_one_of_several_calls_of_a_job_dies(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    ex = detached(calls_per_job=3)
    futures = [ex.submit(add, 1, 2), ex.submit(die, 9), ex.submit(add, 2, 2)]
    failure(futures[1], WorkerLost, "SIGKILL")
    assert [futures[0].result(), futures[2].result()] == [3, 4]
    assert slurm.commands()["sbatch"] == 1


@pytest.mark.parametrize(
    ("command", "kind", "words"), [("true", JobLost, "without a result"), ("false", WorkerLost, "exit code 1")]
)
def test_a_job_that_never_makes_the_call(
    slurm: Cluster, detached: Detached, tmp_path: Path, command: str, kind: type[CallyardError], words: str
) -> None:
    ex = detached(launcher=(command,))
    failure(ex.submit(add, 1, 2), kind, words)


# ------------------------------------------------------------------ what cannot be sent, opened or stored


def lock() -> object:
    return threading.Lock()


def test_a_result_that_cannot_be_sent(ex: Executor) -> None:
    locked, other = ex.submit(lock), ex.submit(add, 1, 2)
    failure(locked, UnpicklableCall, "of type lock")
    assert other.result() == 3


def first(*values: object) -> object:
    return values[0]


def test_arguments_that_cannot_be_opened_there(ex: Executor) -> None:
    one = ex.submit(add, 1, 2)
    for future in ex.submit(first, Unopenable()), ex.submit(first, one, Unopenable()):
        failure(future, UnreadableCall, "what it needs is not here")
    assert one.result() == 3


def test_a_function_that_cannot_be_opened_there(ex: Executor) -> None:
    thing = Unopenable()
    failure(ex.submit(lambda: thing), UnreadableCall, "what it needs is not here")


def test_a_result_that_does_not_fit(slurm: Cluster, detached: Detached, small_disk: Path) -> None:
    ex = detached(cache=small_disk / "cache")
    large, other = ex.submit(os.urandom, 8 << 20), ex.submit(add, 1, 2)
    failure(large, CacheError, "No space left on device")
    assert other.result() == 3


def test_another_version_of_callyard(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    there = tmp_path / "python"
    patched = "\"import callyard.version as v; v.VERSION = '0.0.7'; $2\""
    there.write_text(f'#!/bin/sh\ncode={patched}\nshift 2\nexec {shlex.quote(sys.executable)} -c "$code" "$@"\n')
    there.chmod(0o755)
    ex = detached(python=there)
    failure(ex.submit(add, 1, 2), VersionMismatch, "callyard 0.0.7", callyard.__version__)


def test_another_python(slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = another_python()
    if python is None:
        pytest.skip("there is no second Python on the PATH")
    library = tmp_path / "library"
    library.mkdir()
    for module in callyard, cloudpickle:
        (library / module.__name__).symlink_to(Path(str(module.__file__)).parent)
    (library / "blake3.py").write_text("blake3 = None")  # what is compiled is for this Python, and not needed
    monkeypatch.setenv("PYTHONPATH", str(library))
    ex = detached(python=python)
    failure(ex.submit(add, 1, 2), VersionMismatch, f"from Python {sys.version_info[0]}.{sys.version_info[1]}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"python": "/nowhere/python"}, "exit code 127"),
        ({"setup": ["exit 3"]}, "exit code 3"),
        ({"setup": ["set -eu", "module load nothing"]}, "exit code 127"),
        ({"launcher": ("/nowhere/apptainer", "exec", "none.sif")}, "exit code 127"),
    ],
    ids=["python", "setup", "module", "container"],
)
def test_a_job_that_cannot_begin_is_not_waited_for(
    slurm: Cluster, detached: Detached, options: dict[str, object], words: str
) -> None:
    """Its script says so itself, and then there is no grace for files that come late."""
    failure(detached(result_grace=3600, **options).submit(add, 1, 2), WorkerLost, words)


def test_a_job_that_is_killed_is_not_waited_for(slurm: Cluster, detached: Detached) -> None:
    error = failure(detached(result_grace=3600).submit(kill_the_job), WorkerLost, "SIGKILL")
    assert error.exitcode == -signal.SIGKILL


def test_a_job_that_is_cancelled_is_not_waited_for(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    ex = detached(result_grace=3600)
    running, array = (
        ex.submit(hold, str(tmp_path)),
        [ex.submit(hold, str(tmp_path), number) for number in range(2)],
    )
    for times in (1, 2, 3):
        until_it_runs(tmp_path, times)
    slurm.run("scancel", str(running.job_id), str(array[1].job_id))
    for future in (running, array[1]):
        failure(future, JobCancelled)
    (tmp_path / "go").touch()
    assert array[0].result() == 0


def test_a_job_that_loses_its_node_is_not_waited_for(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    """Its node is taken out, or given to a job of higher priority."""
    ex, (out, preempted) = detached(result_grace=3600), places(tmp_path, "out", "preempted")
    future = ex.submit(hold, str(out))
    node = until_it_runs(out)
    slurm.node_down(node)
    failure(future, NodeFailure, node)
    slurm.node_up(node)
    whole = {"nodes": 4, "exclusive": True}
    future = ex.submit(hold, str(preempted), resource_dict={"partition": "low", **whole})
    until_it_runs(preempted)
    assert ex.submit(add, 1, 2, resource_dict=whole).result() == 3
    failure(future, NodeFailure, "higher priority")


def test_a_python_that_is_not_there(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    ex = detached(python="/nowhere/python")
    failure(ex.submit(add, 1, 2), WorkerLost, "exit code 12")
