"""Losses in a real instance of Flux: brokers, nodes, the leader. No call runs twice, and none is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import flux_calls as calls
import psutil
import pytest
from instance import Instance
from instances import FluxJobs, lend
from this_machine import until

from callyard import Future, JobCancelled, JobLost, NodeFailure, WorkerLost

pytestmark = [pytest.mark.once, pytest.mark.needs("flux")]

Start = Callable[..., Instance]
BESIDE_THE_LEADER = {"constraint": "host:n2,n3"}


def begun(place: Path, times: int = 1) -> None:
    until(lambda: len(calls.starts(place)) >= times)


def processes_of(job: object) -> list[psutil.Process]:
    """Return the processes of a job, wherever they have gone."""
    found = (p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("CALLYARD_FLUX_JOB") == job)
    return list(found)


def kill_node(own: Instance, rank: int, job: object) -> None:
    """Kill a broker and the processes of a job there, as the loss of the node would."""
    processes = processes_of(job)
    own.kill_broker(rank)
    for process in processes:
        process.kill()


def lost_jobs(own: Instance) -> list[str]:
    return own.run("jobs", "-a", "-n", "-o", "{exception.note}").splitlines()


# ------------------------------------------------------------------ a broker, a node


def test_a_node_that_is_lost(own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path) -> None:
    own = own_instance()
    future = flux_jobs().submit(calls.hold, str(tmp_path), resource_dict={"constraint": "host:n2"})
    begun(tmp_path)
    kill_node(own, 1, future.job_id)
    with pytest.raises(NodeFailure, match=r"on n2 lost one of its nodes \(node failure on n2.*restart_limit=1"):
        future.result()


def test_a_process_that_outlives_its_broker_is_not_taken_for_dead(
    own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path
) -> None:
    own = own_instance()
    asked = {"constraint": "host:n2", "restart_limit": 1}
    future = flux_jobs().submit(calls.hold, str(tmp_path), 7, resource_dict=asked)
    begun(tmp_path)
    own.kill_broker(1)
    until(lambda: "node failure on n2 (rank 1)" in lost_jobs(own))
    other = flux_jobs().submit(calls.hold, str(tmp_path), 7, resource_dict=asked)  # the same call
    with pytest.raises(TimeoutError):
        future.result(timeout=4)  # several times its grace
    (tmp_path / "go").touch()
    assert (future.result(), other.result()) == (7, 7)
    assert calls.starts(tmp_path) == ["n2"]
    assert future.attempts == 1


def test_a_call_runs_again_on_another_node(own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path) -> None:
    own = own_instance(3)
    asked = {**BESIDE_THE_LEADER, "restart_limit": 1}
    ex = flux_jobs()
    future = ex.submit(calls.attempt_of_hold, str(tmp_path), resource_dict=asked)
    begun(tmp_path)
    (first,) = calls.starts(tmp_path)
    before = future.job_id
    kill_node(own, int(first[1:]) - 1, before)
    begun(tmp_path, 2)
    (tmp_path / "go").touch()
    assert future.result() == 2
    assert future.attempts == 2
    assert future.job_id != before
    assert calls.starts(tmp_path) == [first, "n3" if first == "n2" else "n2"]


def test_whoever_submits_the_call_next_runs_it_again(
    own_instance: Start, flux_jobs: FluxJobs, results: Path, tmp_path: Path
) -> None:
    """Its own driver was killed before the loss."""
    own = own_instance(3)
    asked = {**BESIDE_THE_LEADER, "restart_limit": 1}
    code = (
        "import json, sys; from pathlib import Path; import flux_calls as calls; from instances import flux_executor\n"
        "future = flux_executor(Path(sys.argv[1])).submit(\n"
        "    calls.attempt_of_hold, sys.argv[2], resource_dict=json.loads(sys.argv[3]))\n"
        "from this_machine import until; until(lambda: future.job_id)\n"
        "print(future.job_id, flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, str(results), str(tmp_path), json.dumps(asked)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as driver:
        assert driver.stdout is not None
        job = driver.stdout.readline().strip()
        begun(tmp_path)
        driver.kill()
    kill_node(own, int(calls.starts(tmp_path)[0][1:]) - 1, job)
    future = flux_jobs().submit(calls.attempt_of_hold, str(tmp_path), resource_dict=asked)
    begun(tmp_path, 2)
    (tmp_path / "go").touch()
    assert (future.result(), future.attempts) == (2, 2)


def test_a_call_does_not_run_again_more_often_than_allowed(
    own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path
) -> None:
    own = own_instance(3)
    future = flux_jobs().submit(calls.hold, str(tmp_path), resource_dict={**BESIDE_THE_LEADER, "restart_limit": 1})
    for times in (1, 2):
        begun(tmp_path, times)
        node = calls.starts(tmp_path)[-1]
        until(lambda: bool(processes_of(future.job_id)))
        kill_node(own, int(node[1:]) - 1, future.job_id)
    with pytest.raises(NodeFailure, match="lost one of its nodes") as caught:
        future.result()
    assert "restart_limit" not in str(caught.value)
    assert len(calls.starts(tmp_path)) == 2


def test_calls_that_take_the_result_of_one_that_runs_again(
    own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path
) -> None:
    """Their jobs begin when Flux has lost the first one, and step aside for jobs that begin after the second one."""
    own = own_instance(3)
    ex = flux_jobs(result_grace=0.5, constraint="host:n1")
    held = ex.submit(calls.hold, str(tmp_path), 7, resource_dict={**BESIDE_THE_LEADER, "restart_limit": 1})
    after = [ex.submit(calls.add, held, i) for i in range(3)]
    last = ex.submit(calls.add, *after)
    begun(tmp_path)
    until(lambda: last.job_id is not None)
    kill_node(own, int(calls.starts(tmp_path)[0][1:]) - 1, held.job_id)
    begun(tmp_path, 2)
    (tmp_path / "go").touch()
    assert last.result() == 24
    assert [future.result() for future in after] == [7, 8, 9]
    assert len(calls.starts(tmp_path)) == 2


def test_calls_that_take_the_result_of_one_that_outlives_its_broker(
    own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path
) -> None:
    own = own_instance()
    ex = flux_jobs(constraint="host:n1")
    held = ex.submit(calls.hold, str(tmp_path), 7, resource_dict={"constraint": "host:n2"})
    after = ex.submit(calls.add, held, 1)
    begun(tmp_path)
    until(lambda: after.job_id is not None)
    own.kill_broker(1)
    until(lambda: own.jobs().get(str(after.job_id)) == "RUN")
    with pytest.raises(TimeoutError):
        after.result(timeout=3)
    (tmp_path / "go").touch()
    assert after.result() == 8


# ------------------------------------------------------------------ the leader


def test_a_job_that_begins_again_after_a_restart_waits_for_its_first_process(
    own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader has saved the job as a waiting one, and dies while it runs: its process goes on."""
    own = own_instance(1)
    future = _saved_and_begun(own, flux_jobs, tmp_path, monkeypatch)
    first = processes_of(future.job_id)
    assert first
    own.kill_leader()
    _start_again(own, monkeypatch)
    until(lambda: len({*processes_of(future.job_id)} - {*first}) >= 2)  # its shell and its process
    (tmp_path / "go").touch()
    assert future.result() == 7
    assert len(calls.starts(tmp_path)) == 1
    until(lambda: not own.jobs())


def test_a_job_that_begins_again_after_its_call_has_ended(
    own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_instance(1)
    future = _saved_and_begun(own, flux_jobs, tmp_path, monkeypatch)
    job = str(future.job_id)
    own.kill_leader()
    (tmp_path / "go").touch()
    assert future.result() == 7
    _start_again(own, monkeypatch)
    until(lambda: own.jobs("-a")[job] in ("COMPLETED", "FAILED"))
    assert len(calls.starts(tmp_path)) == 1


def test_jobs_that_the_leader_has_forgotten(
    own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_instance(1)
    gone, goes_on = (
        flux_jobs().submit(calls.hold, str(place), 7) for place in (_made(tmp_path / "gone"), _made(tmp_path / "on"))
    )
    begun(tmp_path / "gone")
    begun(tmp_path / "on")
    for process in processes_of(gone.job_id):
        process.kill()
    own.kill_leader()
    _start_again(own, monkeypatch)
    with pytest.raises((JobLost, WorkerLost)):
        gone.result()
    assert not goes_on.done()  # it lives, and says so
    (tmp_path / "on/go").touch()
    assert goes_on.result() == 7


def _made(place: Path) -> Path:
    place.mkdir()
    return place


def _saved_and_begun(own: Instance, flux_jobs: FluxJobs, place: Path, monkeypatch: pytest.MonkeyPatch) -> Future[int]:
    """Return a call that runs, and waits according to what the leader has saved."""
    own.run("queue", "stop")
    future = flux_jobs().submit(calls.hold, str(place), 7)
    until(lambda: future.job_id is not None)
    own.run("shutdown", "--quiet")
    until(lambda: not own.is_up())
    _start_again(own, monkeypatch)
    begun(place)
    return future


def _start_again(own: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    own.start()
    lend(own, monkeypatch)
    own.run("queue", "start")


def test_a_shutdown_cancels_what_runs(
    own_instance: Start, flux_jobs: FluxJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_instance(1)
    future = flux_jobs().submit(calls.hold, str(tmp_path))
    begun(tmp_path)
    processes = processes_of(future.job_id)
    own.run("shutdown", "--quiet")
    until(lambda: not own.is_up())
    until(lambda: not any(process.is_running() for process in processes))
    _start_again(own, monkeypatch)
    with pytest.raises(JobCancelled):
        future.result()


# ------------------------------------------------------------------ nodes and memory


def test_a_drained_node_is_waited_for(own_instance: Start, flux_jobs: FluxJobs) -> None:
    own = own_instance()
    own.run("resource", "drain", "n2", "broken fan")
    future = flux_jobs().submit(calls.add, 1, 2, resource_dict={"constraint": "host:n2"})
    until(lambda: future.job_id is not None and own.jobs().get(str(future.job_id)) == "SCHED")
    own.run("resource", "undrain", "n2")
    assert future.result() == 3


def test_an_instance_that_forgets_ended_jobs_at_once(own_instance: Start, flux_jobs: FluxJobs) -> None:
    own = own_instance(1, "\n[job-manager]\ninactive-num-limit = 1\n")
    ex = flux_jobs()
    first = [ex.submit(calls.add, i, 1) for i in range(6)]
    assert [future.result() for future in first] == list(range(1, 7))
    until(lambda: len(own.jobs("-a")) == 1)
    assert ex.submit(calls.add, *first).result() == sum(range(1, 7))
    lost = ex.submit(calls.kill_job, signal.SIGKILL)
    ex.submit(calls.add, 5, 5).result()
    with pytest.raises((JobLost, WorkerLost)):
        lost.result()
