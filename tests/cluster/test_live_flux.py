"""Live calls in a real instance of Flux."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from flux_live_calls import fail_as_rank, node, rank_and_node, visible_to_rank
from gate import Gate, held
from instance import Instance
from instances import lend
from pretended import Inside, same, until, visible

import callyard
from callyard import CallyardError, Executor, Flux
from callyard.errors import NodeFailure, ResourceError, SchedulerError, WorkerLost

pytestmark = [pytest.mark.once, pytest.mark.needs("flux")]

FOLDER = Path(__file__).parent
PACKAGE = str(Path(callyard.__file__).parents[1])


@pytest.fixture(autouse=True)
def own_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def own_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Instance]]:
    """Start an instance for this test alone, and enter it."""
    made: list[Instance] = []

    def start(**described: Any) -> Instance:
        made.append(Instance(tmp_path / "i", **described))
        made[-1].__enter__()
        lend(made[-1], monkeypatch)
        return made[-1]

    yield start
    for each in made:
        each.stop()


@pytest.fixture
def somebody_elses(flux: Instance, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """The instance, as if it were the system's, on whose login node this process is."""
    monkeypatch.setattr("callyard.schedulers.flux.instance.read_instance", lambda out: None)
    return flux


def script(text: str) -> list[str]:
    """Return the command of a driver with the names of these tests."""
    before = f"import os, sys; sys.path[:0] = {[str(FOLDER), str(FOLDER.parent)]!r}"
    return [sys.executable, "-c", f"{before}\n{textwrap.dedent(text)}"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": PACKAGE}


# ------------------------------------------------------------------ nodes


def test_calls_run_on_all_nodes(flux: Instance, gate: Gate) -> None:
    with Executor(backend="flux") as ex:
        assert "live on 4 nodes of an instance of Flux: 16 cores" in repr(ex)
        running = [ex.submit(held, gate, node) for _ in range(16)]
        gate.arrived(16)
        assert not flux.jobs(), "agents are no jobs of the instance"
        gate.open(16)
        assert sorted(future.result() for future in running) == [f"n{1 + i // 4}" for i in range(16)]
        assert [future.result() for future in [ex.submit(same, i) for i in range(500)]] == list(range(500))


def test_fewer_nodes_than_there_are(flux: Instance) -> None:
    with Executor(backend=Flux(nodes=1)) as ex:
        assert {future.result() for future in [ex.submit(node) for _ in range(8)]} == {"n1"}
    with pytest.raises(ResourceError, match="nodes=9 was asked for, and this allocation has 4"):
        Executor(backend=Flux(nodes=9))


def test_brokers_of_one_host_are_different_nodes() -> None:
    text = """
        from flux_live_calls import node
        from callyard import Executor
        with Executor(backend="auto") as ex:
            print(sorted({future.result() for future in [ex.submit(node) for _ in range(200)]}))
    """
    done = subprocess.run(
        ["flux", "start", "--test-size=2", *script(text)], env=environment(), capture_output=True, text=True, timeout=60
    )
    names = done.stdout.strip().replace("'", "").strip("[]").split(", ")
    assert [name.rpartition("-")[2] for name in names] == ["0", "1"], done.stderr
    assert len({name.rpartition("-")[0] for name in names}) == 1


def test_gpus_are_those_of_each_node(own_instance: Callable[..., Instance], gate: Gate) -> None:
    own_instance(nodes=2, cores=2, settings='gpus = "0-1"\n')
    with Executor(backend="flux") as ex:
        one = ex.with_resources(gpus_per_rank=1)
        running = [one.submit(held, gate, visible) for _ in range(4)]
        gate.arrived(4)
        gate.open(4)
        assert sorted(future.result() for future in running) == ["0", "0", "1", "1"]
        assert ex.submit(visible).result() == ""
        with pytest.raises(ResourceError, match=r"3 GPUs .* were asked for, and the largest of 2 has 2 cores, 2 GPUs"):
            ex.submit(same, 1, resource_dict={"gpus_per_rank": 3})


@pytest.mark.needs("mpi")
def test_gpus_of_ranks(own_instance: Callable[..., Instance]) -> None:
    own_instance(nodes=2, cores=2, settings='gpus = "0-1"\n')
    with Executor(backend="flux") as ex:
        spread = {"ranks": 4, "nodes": 2, "gpus_per_rank": 1}
        assert ex.submit(visible_to_rank, resource_dict=spread).result() == ["0", "1", "0", "1"]
        without = {"ranks": 2, "nodes": 2}
        assert ex.submit(visible_to_rank, resource_dict=without).result() == ["", ""]


def test_an_instance_that_is_a_job_has_an_end(flux: Instance, tmp_path: Path) -> None:
    text = """
        from flux_live_calls import node, time_left
        from callyard import Executor, ResourceError
        with Executor(backend="flux") as ex:
            print(repr(ex))
            print(len({future.result() for future in [ex.submit(node) for _ in range(200)]}), "nodes")
            print(300 < ex.submit(time_left).result() <= 600)
            try:
                ex.submit(abs, -1, resource_dict={"run_time": 601})
            except ResourceError as error:
                print(error)
    """
    log = tmp_path / "log"
    options = ["-N2", "-n2", "-c2", "-t10m", "--wait", f"--output={log}", "--setopt=cpu-affinity=off"]
    command = ["flux", "submit", *options, "--", "flux", "start", *script(text)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100)
    said = log.read_text()
    assert done.returncode == 0, said
    assert "live on 2 nodes of Flux job f" in said
    assert "2 nodes\nTrue\nrun_time=601 s was asked for, and the nodes are there for" in said


# ------------------------------------------------------------------ settings


def test_an_instance_of_somebody_else_has_jobs(somebody_elses: Instance) -> None:
    with Executor(backend=Flux(poll=(0.2, 1), result_grace=1)) as ex:
        assert "live" not in repr(ex)
    needed = r"Flux\(detached=False\) needs an instance of your own \(flux alloc, .*\), or nodes="
    with pytest.raises(SchedulerError, match=needed):
        Executor(backend=Flux(detached=False))


def test_there_is_no_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_URI", "local:///nowhere/local")
    with pytest.raises(SchedulerError, match="broker socket /nowhere/local was not found"):
        Executor(backend=Flux(detached=False))
    assert "live" not in repr(Executor(backend=Flux()))


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"cpu_bind": "cores", "ranks": 2}, "cpu_bind means nothing to Flux"),
        ({"srun_args": "-v", "ranks": 2}, "srun_args means nothing to Flux"),
        ({"queue": "batch"}, "queue is for jobs"),
    ],
    ids=str,
)
def test_what_means_nothing_is_refused(flux: Instance, resources: dict[str, Any], words: str) -> None:
    with Executor(backend="flux") as ex, pytest.raises(ResourceError, match=words):
        ex.submit(same, 1, resource_dict=resources)


def test_settings_of_jobs_are_refused(flux: Instance) -> None:
    with pytest.raises(CallyardError, match="teardown is for jobs"):
        Executor(backend=Flux(teardown="true"))


def test_setup_launcher_and_python(flux: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    described = Flux(nodes=1, setup="export COLOUR='deep blue'", launcher="env SHAPE=round", python=sys.executable)
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    with Executor(backend=described) as ex:
        assert ex.submit(os.getenv, "COLOUR").result() == "deep blue"
        assert ex.submit(os.getenv, "SHAPE").result() == "round"


def test_what_agents_say_is_told(flux: Instance) -> None:
    with Executor(backend=Flux(nodes=1, setup="echo no such module >&2; exit 3")) as ex:
        with pytest.raises(SchedulerError, match="no such module"):
            ex.submit(same, 1).result()


# ------------------------------------------------------------------ ends


def test_an_agent_dies(flux: Instance, gate: Gate) -> None:
    with Executor(2, backend=Flux(nodes=2)) as ex:
        agents = Inside(ex).are_there(2)
        running = dict.fromkeys([ex.with_resources(exclusive=True).submit(held, gate, node) for _ in range(2)])
        gate.arrived(2)
        name, pid = next(iter(agents.items()))
        with_it = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        until(lambda: any(future.done() for future in running))
        psutil.wait_procs(with_it, timeout=30)  # else the lost call may go through the gate in place of the other
        (lost,) = [future for future in running if future.done()]
        assert isinstance(lost.exception(), NodeFailure)
        assert name in str(lost.exception())
        gate.open(1)
        assert [future.result() for future in running if future is not lost] == [n for n in agents if n != name]
        until(lambda: len(Inside(ex).agents) == 2)  # another one is started there
        assert Inside(ex).agents[name] != pid
        assert ex.submit(same, 1).result() == 1


@pytest.mark.needs("proc")
def test_a_broker_dies(own_instance: Callable[..., Instance], gate: Gate) -> None:
    own = own_instance(nodes=3, cores=1)
    with Executor(backend="flux") as ex:
        agents = Inside(ex).are_there(3)
        again = ex.with_resources(restart_limit=1)
        running = [again.submit(held, gate, node) for _ in range(3)]
        gate.arrived(3)
        with_it = [psutil.Process(agents["n3"]), *psutil.Process(agents["n3"]).children(recursive=True)]
        own.kill_broker(2)
        assert not psutil.wait_procs(with_it, timeout=30)[1], "an agent ends with its broker"
        gate.open(3)
        assert {future.result() for future in running} == {"n1", "n2"}
        assert [future.result() for future in [ex.submit(same, i) for i in range(10)]] == list(range(10))


@pytest.mark.needs("proc", "mpi")
def test_everything_ends_with_the_driver(flux: Instance, tmp_path: Path) -> None:
    text = f"""
        import time
        from pretended import Inside
        from flux_live_calls import wait_as_rank
        from callyard import Executor, Flux
        ex = Executor(backend=Flux(nodes=3))
        agents = Inside(ex).are_there(3)
        [future.result() for future in [ex.submit(os.getpid) for _ in range(4)]]
        ranks = ex.submit(wait_as_rank, {str(tmp_path)!r}, resource_dict={{"ranks": 2, "nodes": 2}})
        while len(os.listdir({str(tmp_path)!r})) < 3:
            time.sleep(0.01)
        print(*agents.values(), flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(script(text), stdin=-1, stdout=-1, env=environment()) as driver:
        assert driver.stdout is not None
        agents = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
        below: list[Any] = [process for agent in agents for process in (agent, *agent.children(recursive=True))]
        below += [psutil.Process(int(path.name)) for path in tmp_path.iterdir() if path.name.isdecimal()]
        driver.kill()
    assert len(below) >= 8
    assert not psutil.wait_procs(below, timeout=20)[1]
    until(lambda: not flux.jobs())


def test_the_instance_ends(own_instance: Callable[..., Instance], gate: Gate) -> None:
    own = own_instance(nodes=2, cores=1)
    with Executor(backend="flux") as ex:
        Inside(ex).are_there(2)
        running = [ex.submit(held, gate, node) for _ in range(2)]
        gate.arrived(2)
        own.kill_leader()
        assert all(isinstance(future.exception(), NodeFailure) for future in running)
        with pytest.raises(NodeFailure, match="this allocation has ended, so ask for another one"):
            ex.submit(same, 1).result()


# ------------------------------------------------------------------ ranks


@pytest.mark.needs("mpi")
def test_ranks_over_several_nodes(flux: Instance) -> None:
    with Executor(backend=Flux(nodes=2)) as ex:
        spread = ex.submit(rank_and_node, resource_dict={"ranks": 5}).result()  # no node has five cores
        assert [result[:2] for result in spread] == [(i, 5) for i in range(5)]
        assert [name for *_, name in spread] == ["n1"] * 3 + ["n2"] * 2
        two = ex.submit(rank_and_node, resource_dict={"ranks": 3, "ranks_per_node": 2}).result()
        assert [name for *_, name in two] == ["n1", "n1", "n2"]
        assert ex.submit(same, 1).result() == 1
        with pytest.raises(WorkerLost, match=r"lost its ranks on n\d, n\d.*failed \(Exit 3\)"):
            ex.submit(fail_as_rank, resource_dict={"ranks": 2, "nodes": 2}).result()
        again = ex.submit(rank_and_node, resource_dict={"ranks": 2, "nodes": 2, "run_time": 60}).result()
        assert [result[:2] for result in again] == [(0, 2), (1, 2)]
    until(lambda: not flux.jobs())


@pytest.mark.needs("mpi")
def test_ranks_that_wait_for_cores_end_with_their_executor(flux: Instance) -> None:
    holding = flux.run("submit", "-N2", "-n2", "-c4", "--requires=host:n1,n2", "sleep", "inf").strip()
    try:
        with Executor(backend=Flux(nodes=2)) as ex:
            waiting = ex.submit(rank_and_node, resource_dict={"ranks": 2, "nodes": 2})
            until(lambda: "SCHED" in flux.jobs().values())
            ex.kill_workers()
            assert "did not begin" in str(waiting.exception())
        until(lambda: len(flux.jobs()) == 1)
    finally:
        flux.run("cancel", holding)
        until(lambda: not flux.jobs())
