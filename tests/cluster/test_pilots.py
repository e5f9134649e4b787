"""Live calls on nodes that an executor asks a real Slurm for, from its login node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ending_calls
import pytest
from cluster import Cluster
from gate import Gate, held
from pretended import Inside, jobs_of, same, until, visible

import callyard
from callyard import Executor, Slurm
from callyard.backends.batch.scheduler_client import SchedulerClient
from callyard.backends.failed_nodes import FailedNodes
from callyard.cluster import autoscaler
from callyard.errors import CallyardError, NodeFailure, ResourceError, SchedulerError

QUICK: dict[str, Any] = {"poll": (0.2, 1)}
Make = Callable[..., Executor]


@pytest.fixture
def make(runs: Path) -> Iterator[Make]:
    """Make executors that ask for nodes; they end with the test."""
    with ExitStack() as stack:

        def create(nodes: int | tuple[int, int], **described: Any) -> Executor:
            return stack.enter_context(Executor(backend=Slurm(nodes=nodes, **{**QUICK, **described})))

        yield create


def node() -> str:
    return os.environ["SLURMD_NODENAME"]


def job() -> str:
    return os.environ["SLURM_JOB_ID"]


# -- nodes come and go -----------------------------------------------------------------------------


def test_calls_run_on_as_many_nodes_as_they_need(make: Make, slurm: Cluster, gate: Gate) -> None:
    ex = make((0, 3))
    assert "live on 0 nodes, of 0 to 3 that Slurm is asked for" in repr(ex)
    assert not jobs_of(slurm)
    running = [ex.submit(held, gate, node) for _ in range(9)]  # a node has four cores
    gate.arrived(9)
    assert len(jobs_of(slurm)) == 3
    assert "live on 3 nodes, of 0 to 3 that Slurm is asked for" in repr(ex)
    gate.open(9)
    assert len({future.result() for future in running}) == 3
    assert [future.result() for future in [ex.submit(same, i) for i in range(300)]] == list(range(300))
    ex.shutdown()
    until(lambda: not jobs_of(slurm))


def test_one_command_asks_for_many_nodes(make: Make, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    asked = []
    submit = SchedulerClient.submit
    monkeypatch.setattr(
        SchedulerClient, "submit", lambda client, request: asked.append(request.elements) or submit(client, request)
    )
    ex = make(3)
    running = [ex.submit(held, gate, node) for _ in range(9)]
    gate.arrived(9)
    gate.open(9)
    wait(running)
    assert asked == [3]


def take(slurm: Cluster, name: str) -> None:
    """Take a node away from what runs there in a partition of lower priority."""
    wanted = ["--partition=main", f"--nodelist={name}", "--exclusive", "--output=/dev/null", "--wrap=sleep 600"]
    slurm.run("sbatch", *wanted)


def test_a_call_goes_on_elsewhere_when_its_node_is_preempted(make: Make, slurm: Cluster, tmp_path: Path) -> None:
    ex, word = make((0, 1), partition="spare"), tmp_path / "word"
    going_on = ex.submit(ending_calls.ask_when_told_there, word)
    saving = ex.submit(ending_calls.save_and_return, tmp_path / "saving")
    losing = ex.submit(ending_calls.clean_up, tmp_path / "losing")
    until(lambda: len(list(tmp_path.glob("[wsl]*"))) == 3 and word.read_text())
    first = word.read_text()
    take(slurm, first)
    assert saving.result() == "saved"
    attempt, second = going_on.result()
    assert attempt == going_on.attempts == 2
    assert second != first
    with pytest.raises(NodeFailure, match=rf"the agent on {first} \(job \d+\) was told to end, as at a preemption"):
        losing.result()
    assert (tmp_path / "losing").read_text() == "ending True"
    slurm.cancel_all()


def test_idle_nodes_are_given_back(make: Make, slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaler, "IDLE", 0.5)
    ex = make((0, 2))
    first = ex.submit(job).result()
    until(lambda: not jobs_of(slurm))
    assert ex.submit(job).result() != first


def test_the_fewest_stay(make: Make, slurm: Cluster, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr(autoscaler, "IDLE", 0.5)
    ex = make((1, 2))
    running = [ex.submit(held, gate, job) for _ in range(5)]
    gate.arrived(5)
    gate.open(5)
    jobs = {future.result() for future in running}
    assert len(jobs) == 2
    until(lambda: len(jobs_of(slurm)) == 1)
    assert ex.submit(job).result() in jobs


def test_a_call_that_waits_for_another_has_its_node_asked_for_at_once(make: Make, slurm: Cluster) -> None:
    ex = make(1)
    source = Future[int]()
    future = ex.submit(same, source)
    until(lambda: jobs_of(slurm))
    source.set_result(7)
    assert future.result() == 7


def test_nodes_are_replaced_before_their_time_is_over(
    make: Make, monkeypatch: pytest.MonkeyPatch, gate: Gate, slurm: Cluster
) -> None:
    # Slurm's shortest limit is a minute, so here it says that there are 3 s.
    monkeypatch.setattr(SchedulerClient, "times_left", lambda client, jobs: dict.fromkeys(jobs, 3.0))
    ex = make(1)
    running = ex.submit(held, gate, job)
    gate.arrived()
    until(lambda: len(jobs_of(slurm)) == 2)
    gate.open()
    old = running.result()
    until(lambda: old not in "".join(jobs_of(slurm)))
    assert ex.submit(job).result() != old


# -- time ------------------------------------------------------------------------------------------


def test_a_call_begins_only_where_it_can_end(make: Make, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [50.0, 500.0]  # of the first node, and of the one that comes in its place
    monkeypatch.setattr(
        SchedulerClient, "times_left", lambda client, jobs: dict.fromkeys(jobs, left.pop(0) if left else 500.0)
    )
    ex = make(1)
    first = ex.submit(job).result()
    timed = ex.with_resources(run_time=60)
    with pytest.raises(ResourceError, match="for so long"):  # as long as no node was there for longer than 50 s
        timed.submit(job).result()
    assert ex.with_resources(run_time=20).submit(job).result() == first


def test_more_time_than_is_asked_for_is_refused(make: Make) -> None:
    ex = make(1, walltime=600)
    with pytest.raises(ResourceError, match=r"run_time=601 s was asked for, and the nodes are there for 600 s"):
        ex.submit(same, 1, resource_dict={"run_time": 601})
    assert ex.submit(same, 1, resource_dict={"run_time": 100}).result() == 1


# -- resources -------------------------------------------------------------------------------------


def test_gpus_of_the_nodes_are_given_out(make: Make, gate: Gate, slurm: Cluster) -> None:
    if not slurm.gpus:
        pytest.fail("the cluster has no GPUs")
    ex = make(1).with_resources(gpus_per_rank=1)
    running = [ex.submit(held, gate, visible) for _ in range(slurm.gpus)]
    gate.arrived(slurm.gpus)
    waiting = ex.submit(same, 1)
    gate.open(slurm.gpus)
    assert len({future.result() for future in running}) == slurm.gpus
    assert waiting.result() == 1


def test_more_than_a_node_has_is_refused(make: Make) -> None:
    ex = make(2)
    with pytest.raises(ResourceError, match=r"5 cores.*the largest of 2 has 4 cores, 2 GPUs"):
        ex.submit(same, 1, resource_dict={"cores_per_rank": 5})
    with pytest.raises(ResourceError, match="nodes=3 was asked for, and there are at most 2 nodes"):
        ex.submit(same, 1, resource_dict={"ranks": 3, "nodes": 3})


def rank_and_node() -> tuple[int, int, str]:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    assert comm.allreduce(1) == comm.Get_size()
    return comm.Get_rank(), comm.Get_size(), node()


def cpu_binding() -> str | None:
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
    return os.getenv("SLURM_CPU_BIND_TYPE")


@pytest.mark.needs("mpi")
def test_ranks_over_several_nodes(make: Make, fitting_mpi: None) -> None:
    ex = make((0, 2))
    assert ex.submit(same, 1).result() == 1  # on a node of its own, which has to make room
    ranks = ex.submit(rank_and_node, resource_dict={"ranks": 4, "nodes": 2}).result()
    assert [result[:2] for result in ranks] == [(i, 4) for i in range(4)]
    assert len({name for *_, name in ranks}) == 2
    bound = {"ranks": 2, "cpu_bind": "cores"}  # on one node, and started by Slurm all the same
    assert ex.submit(cpu_binding, resource_dict=bound).result() == ["cores"] * 2


@pytest.mark.needs("mpi")
def test_ranks_that_do_not_know_each_other(make: Make, mpich: None, tmp_path: Path) -> None:
    ex = make(2, mpi="none").with_resources(ranks=2, nodes=2)
    with pytest.raises(SchedulerError, match=r"do not know each other.*Slurm\(mpi='none'\) does not fit"):
        ex.submit(Path.touch, tmp_path / "mark").result()
    assert not (tmp_path / "mark").exists()


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"partition": "nowhere"}, "invalid partition"),
        ({"constraint": "nothing"}, "Invalid feature"),
        ({"setup": "echo no such module >&2; exit 3"}, "ended with exit code 3.*no such module"),
        ({"python": "/nowhere/python"}, "No such file or directory"),
        ({"partition": "short", "walltime": 100_000}, "its partition (gives|does not give)"),
    ],
)
def test_no_node_can_come(make: Make, described: dict[str, Any], words: str) -> None:
    ex = make(1, **described)
    with pytest.raises(SchedulerError, match=f"'same' was not run: .*{words}"):
        ex.submit(same, 1).result()
    with pytest.raises(SchedulerError, match=words):  # who tries again is told again
        ex.submit(same, 1).result()


@pytest.mark.parametrize("nodes", [0, -1, (2, 1), (0, 0), (1, 2, 3), "4", 1.5])
def test_senseless_numbers_of_nodes(nodes: Any) -> None:
    with pytest.raises(ResourceError, match="nodes must be"):
        Slurm(nodes=nodes)


def test_what_is_for_jobs_of_calls_is_refused(runs: Path) -> None:
    with pytest.raises(CallyardError, match="calls_per_job"):
        Executor(backend=Slurm(nodes=1, calls_per_job=2))
    with pytest.raises(CallyardError, match="leave out nodes"):
        Slurm(nodes=1, detached=True)


def test_a_job_is_cancelled_under_its_calls(make: Make, slurm: Cluster, gate: Gate) -> None:
    ex = make(1)
    lost = ex.submit(held, gate, job)
    again = ex.submit(held, gate, job, resource_dict={"restart_limit": 1})
    gate.arrived(2)
    (number,) = jobs_of(slurm)
    slurm.run("scancel", number)
    with pytest.raises(NodeFailure, match=rf"the agent on \S+ \(job {number}\) was told to end"):
        lost.result()
    gate.arrived()  # on another node
    gate.open(1)
    assert again.result() != number


def test_a_node_fails(make: Make, slurm: Cluster, gate: Gate) -> None:
    ex = make((0, 2)).with_resources(restart_limit=1)
    running = ex.submit(held, gate, node)
    gate.arrived()
    (where,) = Inside(ex).driver._placement.nodes.values()
    slurm.kill_node(where.name)
    gate.arrived()
    gate.open()
    assert running.result() != where.name


def test_a_limit_of_jobs_is_not_the_end(make: Make, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    from callyard.backends.batch.scheduler_client import SubmissionRefused

    submit = SchedulerClient.submit

    def limited(client: SchedulerClient, request: Any) -> str:
        if request.elements is not None:
            raise SubmissionRefused("limit", "Job violates accounting/QOS policy")
        return submit(client, request)

    monkeypatch.setattr(SchedulerClient, "submit", limited)
    ex = make(2)
    running = [ex.submit(held, gate, node) for _ in range(8)]
    gate.arrived(8)
    gate.open(8)
    assert len({future.result() for future in running}) == 2


def test_what_waits_in_the_queue_is_cancelled_at_the_end(make: Make, slurm: Cluster) -> None:
    ex = make(1, partition="short")
    other = make(1, partition="short")
    assert ex.submit(same, 1).result() == 1  # has the only node there
    future = other.submit(same, 2)
    until(lambda: len(jobs_of(slurm)) == 2)
    assert future.cancel()
    other.shutdown()
    assert len(jobs_of(slurm)) == 1


def test_an_idle_driver_is_at_rest(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ex = make(1)
    assert ex.submit(same, 1).result() == 1
    pilots = Inside(ex).driver._agents._starter._pilots
    # Nothing is to be known.
    until(lambda: pilots.next_look() is None or pilots.next_look() > pilots.states[0]._decided + 20)


def test_the_users_own_script(make: Make) -> None:
    pytest.importorskip("jinja2")
    text = (
        "#!/bin/bash\n#SBATCH --nodes={{ nodes }} --cpus-per-task=2\n{% if reservation %}#SBATCH ...{% endif %}\n"
        "export COLOUR=blue\n{{ setup }}\n{{ command }}\n"
    )
    ex = make(1, template=text)
    with pytest.raises(ResourceError, match="reservation"):  # no call can have that: its job is there already
        ex.submit(same, 1, resource_dict={"reservation": "x"})
    assert ex.submit(os.getenv, "COLOUR").result() == "blue"
    (node,) = Inside(ex).driver._placement.nodes.values()
    assert node.capacity.cores == 2


def test_what_calls_print_is_kept(make: Make, runs: Path) -> None:
    ex = make(1)
    ex.submit(print, "said on the node", flush=True).result()
    ex.shutdown()
    until(lambda: "said on the node" in "".join(log.read_text() for log in (runs / "logs").iterdir()))
    assert {log.stat().st_mode & 0o777 for log in (runs / "logs").iterdir()} == {0o600}


def print_much(lines: int) -> None:
    for number in range(lines):
        print(f"line {number} " + "." * 100)


def test_the_log_of_a_node_has_a_limit(make: Make, runs: Path) -> None:
    ex = make(1, log_limit="64KB")
    ex.submit(print_much, 10_000).result()
    ex.submit(print, "the last words", flush=True).result()
    until(lambda: "the last words" in "".join(log.read_text() for log in (runs / "logs").iterdir()))
    ex.shutdown()
    (log,) = (runs / "logs").iterdir()
    text = log.read_text()
    assert len(text) <= 64 << 10
    assert "line 0 ..." in text
    assert "bytes were left out here, beyond log_limit" in text
    assert "line 9999 ..." in text
    assert "line 5000 ..." not in text


@pytest.mark.needs("mpi")
def test_nodes_of_one_job_have_logs_of_their_own(make: Make, runs: Path, fitting_mpi: None) -> None:
    ex = make(2, log_limit="64KB")
    where = {name for *_, name in ex.submit(rank_and_node, resource_dict={"ranks": 2, "nodes": 2}).result()}
    calls = [ex.submit(print_much, 10_000, resource_dict={"exclusive": True}) for _ in where]
    assert wait(calls).done == set(calls)
    ex.shutdown()
    logs = {log.name.split(".")[1]: log.read_text() for log in (runs / "logs").glob("*.*.log")}
    assert set(logs) == where
    assert all("line 9999 ..." in text and len(text) <= 64 << 10 for text in logs.values())


def test_a_node_that_has_failed_is_not_asked_for_again(
    make: Make, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, note = [], FailedNodes._exclude
    monkeypatch.setattr(FailedNodes, "_exclude", lambda failed, nodes: noted.extend(nodes) or note(failed, nodes))
    ex = make((0, 1), exclude_failed_nodes=True)
    first = ex.submit(node).result()
    slurm.node_down(first)
    until(lambda: noted)  # Slurm has said why the job ended
    until(lambda: "live on 0 nodes, of 0 to 1 that" in repr(ex))
    where, number = ex.submit(node), ex.submit(job)
    assert where.result() != first
    assert f" ExcNodeList={first}\n" in slurm.run("scontrol", "show", "job", number.result())


def test_setup_teardown_and_launcher(make: Make, tmp_path: Path) -> None:
    ex = make(1, setup="export COLOUR='deep blue'", launcher="env SHAPE=round", teardown=f"touch {tmp_path}/over")
    assert ex.submit(os.getenv, "COLOUR").result() == "deep blue"
    assert ex.submit(os.getenv, "SHAPE").result() == "round"
    ex.shutdown()
    until((tmp_path / "over").exists)


def test_nodes_are_given_back_when_the_driver_is_killed(runs: Path, slurm: Cluster, monkeypatch: Any) -> None:
    script = f"""
        import os, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
        from callyard import Executor, Slurm
        ex = Executor(backend=Slurm(nodes=1))
        print(ex.submit(os.getpid).result(), flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(callyard.__file__).parents[1])}
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, env=environment) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline().strip().isdigit()
        driver.send_signal(signal.SIGKILL)
    until(lambda: not jobs_of(slurm))
