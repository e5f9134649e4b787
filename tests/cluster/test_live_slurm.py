"""Live calls inside an allocation of a real Slurm."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ending_calls
import psutil
import pytest
from cluster import Cluster
from gate import Gate, held
from pretended import Inside, same, until, visible

import callyard
from callyard import CallyardError, Executor, Slurm
from callyard.errors import NodeFailure, OutOfMemory, ResourceError, SchedulerError, WorkerLost

Make = Callable[..., Executor]


@pytest.fixture
def allocate(slurm: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Let this process be inside an allocation; the number of the job."""
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    with ExitStack() as stack:

        def enter(nodes: int, *options: str) -> str:
            variables = stack.enter_context(slurm.allocation(nodes, "-t", "10", *options))
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            return variables["SLURM_JOB_ID"]

        yield enter


def node() -> str:
    return os.environ["SLURMD_NODENAME"]


def test_calls_run_on_all_nodes_in_one_step(allocate: Callable[..., str], slurm: Cluster, gate: Gate) -> None:
    job = allocate(2, "-c2")
    with Executor(backend=Slurm()) as ex:
        assert f"job {job}" in repr(ex)
        running = [ex.submit(held, gate, node) for _ in range(4)]
        gate.arrived(4)
        steps = slurm.run("squeue", "--steps", "--noheader", "--format=%i %j", "--jobs", job).splitlines()
        assert len([step for step in steps if "callyard" in step]) == 1
        gate.open(4)
        assert sorted(future.result() for future in running) == sorted(2 * list({f.result() for f in running}))
        assert [future.result() for future in [ex.submit(same, i) for i in range(500)]] == list(range(500))


def test_a_heterogeneous_allocation_is_refused_by_name(allocate: Callable[..., str]) -> None:
    job = allocate(1, ":", "--nodes=1")
    with pytest.raises(SchedulerError, match=f"job {job} is a heterogeneous allocation of 2 parts"):
        Executor(backend=Slurm())


@pytest.mark.parametrize("option", [{"teardown": "true"}, {"exclude_failed_nodes": True}], ids=str)
def test_settings_of_jobs_are_refused_in_one_that_is_there(allocate: Callable[..., str], option: Any) -> None:
    allocate(1)
    with pytest.raises(CallyardError, match=f"{next(iter(option))} is for jobs"):
        Executor(backend=Slurm(**option))


def test_gpus_and_memory_of_each_node_are_those_of_the_job(allocate: Callable[..., str], gate: Gate) -> None:
    allocate(2, "-c2", "--mem=600", "--gres=gpu:1")
    with Executor(backend=Slurm()) as ex:
        big = ex.with_resources(gpus_per_rank=1)
        running = [big.submit(held, gate, visible) for _ in range(2)]
        gate.arrived(2)
        waiting = big.submit(node)
        gate.open(2)
        assert all(future.result() for future in running)
        assert waiting.result()
        with pytest.raises(ResourceError, match="no node has"):
            ex.submit(same, 1, resource_dict={"gpus_per_rank": 2}).result()
        with pytest.raises(ResourceError, match=r"the largest of 2 has 2 cores, 0\.586 GiB"):
            ex.submit(same, 1, resource_dict={"memory": 1})


def test_variables_of_the_allocation_are_no_options_of_the_step(allocate: Callable[..., str]) -> None:
    allocate(2, "--ntasks-per-node=2", "--mem-per-cpu=100", "-c1")
    with Executor(backend=Slurm(nodes=2)) as ex:
        assert ex.with_resources(cores_per_rank=2).submit(same, 1).result() == 1


def test_fewer_nodes_than_there_are(allocate: Callable[..., str], gate: Gate) -> None:
    allocate(2, "-c1")
    with Executor(backend=Slurm(nodes=1)) as ex:
        assert len({future.result() for future in [ex.submit(node) for _ in range(4)]}) == 1
    with pytest.raises(ResourceError, match="nodes=3 was asked for, and this allocation has 2"):
        Executor(backend=Slurm(nodes=3))


def test_a_call_begins_only_if_the_allocation_lasts_for_so_long(allocate: Callable[..., str]) -> None:
    allocate(1)  # for ten minutes
    with Executor(backend=Slurm()) as ex:
        with pytest.raises(
            ResourceError, match=r"run_time=601 s was asked for, and the nodes are there for [56]\d\d s"
        ):
            ex.submit(same, 1, resource_dict={"run_time": 601})
        assert ex.submit(same, 1, resource_dict={"run_time": 300}).result() == 1


def test_outside_of_an_allocation(slurm: Cluster) -> None:
    with pytest.raises(SchedulerError, match=r"needs an allocation .* or nodes="):
        Executor(backend=Slurm(detached=False))


def test_setup_launcher_and_python(allocate: Callable[..., str]) -> None:
    allocate(1)
    described = Slurm(setup="export COLOUR='deep blue'", launcher="env SHAPE=round", python=sys.executable)
    # The other interpreter has its own Callyard, which is this one here.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(callyard.__file__).parents[1]))
        with Executor(backend=described) as ex:
            assert ex.submit(os.getenv, "COLOUR").result() == "deep blue"
            assert ex.submit(os.getenv, "SHAPE").result() == "round"


def test_what_srun_says_is_told(allocate: Callable[..., str]) -> None:
    allocate(1)
    with Executor(backend=Slurm(setup="echo no such module >&2; exit 3")) as ex:
        with pytest.raises(SchedulerError, match="no such module") as caught:
            ex.submit(same, 1).result()
        assert "exit code 3" in str(caught.value)


def test_an_agent_dies(allocate: Callable[..., str], gate: Gate) -> None:
    job = allocate(2, "-c1")
    with Executor(backend=Slurm()) as ex:
        agents = Inside(ex).are_there(2)
        running = dict.fromkeys([ex.submit(held, gate, node) for _ in range(2)], ex)
        gate.arrived(2)
        name, pid = next(iter(agents.items()))
        with_it = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        until(lambda: any(future.done() for future in running))
        psutil.wait_procs(with_it, timeout=30)  # else the lost call may go through the gate in place of the other
        (lost,) = [future for future in running if future.done()]
        assert isinstance(lost.exception(), NodeFailure)
        assert f"{name} (job {job})" in str(lost.exception())
        gate.open(1)
        assert [future.result() for future in running if future is not lost] == [n for n in agents if n != name]
        until(lambda: len(Inside(ex).agents) == 2)  # another one is started there
        assert {future.result() for future in [ex.submit(node) for _ in range(20)]} == {*agents}


def grow_for_ever() -> None:
    held = []
    while True:
        held.append(b"x" * (1 << 24))


def test_the_job_has_no_memory_left(allocate: Callable[..., str], slurm: Cluster) -> None:
    if not slurm.kills_by_memory:
        pytest.skip("this cluster limits no memory by cgroups, and ends the whole job instead")
    allocate(1, "-c2", "--mem=400")
    with Executor(backend=Slurm()) as ex:
        lost = ex.submit(grow_for_ever)
        with pytest.raises(
            OutOfMemory,
            match=r"killed by the kernel on .*, where its job \(Slurm job \d+, 0\.391 GiB\) had no memory left",
        ):
            lost.result()
        assert ex.submit(same, 1).result() == 1
        with pytest.raises(WorkerLost, match="SIGKILL"):
            ex.submit(os.kill, ex.submit(os.getpid).result(), signal.SIGKILL).result()


def test_the_job_of_a_script_has_no_memory_left(slurm: Cluster, tmp_path: Path) -> None:
    """The executor of the script is a local one."""
    if not slurm.kills_by_memory:
        pytest.skip("this cluster limits no memory by cgroups, and ends the whole job instead")
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path[:0] = {sys.path!r}\n"
        "from callyard import Executor\n"
        "from test_live_slurm import grow_for_ever\n"
        "with Executor() as ex:\n"
        "    print(repr(ex.submit(grow_for_ever).exception()))\n"
        "    print(ex.submit(abs, -3).result())\n"
    )
    log = tmp_path / "log"
    options = ["--parsable", "--mem=400", f"--output={log}", "--time=2", f"--wrap={sys.executable} {script}"]
    slurm.wait_for(slurm.run("sbatch", *options).strip(), "OUT_OF_MEMORY")  # so Slurm calls it, whatever the script did
    said = log.read_text()
    assert "OutOfMemory" in said
    assert re.search(r"where its job \(Slurm job \d+, 0\.391 GiB\) had no memory left", said)
    assert "\n3\n" in said


@pytest.mark.needs("proc")
def test_everything_ends_with_the_driver(allocate: Callable[..., str], slurm: Cluster) -> None:
    job = allocate(2, "-c1")
    script = f"""
        import os, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
        from pretended import Inside
        from callyard import Executor, Slurm
        ex = Executor(backend=Slurm())
        agents = Inside(ex).are_there(2)
        [future.result() for future in [ex.submit(os.getpid) for _ in range(4)]]
        print(*agents.values(), flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(callyard.__file__).parents[1])}
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, env=environment) as driver:
        assert driver.stdout is not None
        agents = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
        below: list[Any] = [process for agent in agents for process in (agent, *agent.children(recursive=True))]
        driver.kill()
    assert len(below) >= 4
    assert not psutil.wait_procs(below, timeout=20)[1]
    until(lambda: not _steps(slurm, job))


def _steps(slurm: Cluster, job: str) -> str:
    return slurm.run("squeue", "--steps", "--noheader", "--format=%i %j", "--jobs", job)


def test_a_node_fails(allocate: Callable[..., str], slurm: Cluster, gate: Gate) -> None:
    allocate(2, "-c1", "--no-kill")
    with Executor(backend=Slurm(), resource_dict={"restart_limit": 1}) as ex:
        agents = Inside(ex).are_there(2)
        running = [ex.submit(held, gate, node) for _ in range(2)]
        gate.arrived(2)
        lost, other = agents
        slurm.kill_node(lost)
        gate.open(2)
        assert {future.result() for future in running} == {other}
        assert ex.submit(same, 1).result() == 1


def test_an_allocation_that_has_expired(allocate: Callable[..., str], slurm: Cluster) -> None:
    job = allocate(1, "-c1")
    slurm.run("scancel", job)
    until(lambda: job not in slurm.run("squeue", "--noheader", "--format=%i"))
    with Executor(backend=Slurm()) as ex, pytest.raises(SchedulerError) as raised:
        ex.submit(same, 1).result()
    assert f"Slurm job {job}: 1 core: this allocation has ended, so ask for another one" in str(raised.value)


def test_calls_have_their_grace_when_the_allocation_ends(
    allocate: Callable[..., str], slurm: Cluster, tmp_path: Path
) -> None:
    job = allocate(1, "-c2")
    words = [tmp_path / "saving", tmp_path / "going on"]
    with Executor(backend=Slurm()) as ex:
        saving = ex.submit(ending_calls.save_and_return, words[0])
        going_on = ex.submit(ending_calls.ask_when_told, words[1])
        until(lambda: all(word.exists() for word in words))
        slurm.run("scancel", job)
        assert saving.result() == "saved"
        with pytest.raises(CallyardError, match="this allocation has ended"):
            going_on.result()


def test_an_allocation_that_ends_with_its_first_lost_node(
    allocate: Callable[..., str], slurm: Cluster, gate: Gate
) -> None:
    job = allocate(2, "-c1")  # without --no-kill
    with Executor(backend=Slurm()) as ex:
        lost, _ = Inside(ex).are_there(2)
        running = [ex.submit(held, gate, node) for _ in range(2)]
        gate.arrived(2)
        slurm.run("scontrol", "update", f"nodename={lost}", "state=down", "reason=test")
        assert all(isinstance(future.exception(), NodeFailure) for future in running)
        with pytest.raises(NodeFailure, match=f"job {job}: 2 cores: this allocation has ended.*ask with --no-kill"):
            ex.submit(same, 1).result()


def rank() -> tuple[int, int, int]:
    from mpi4py import MPI

    return MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size(), os.getppid()


@pytest.mark.needs("mpi")
def test_ranks_of_a_call_are_on_one_node(allocate: Callable[..., str]) -> None:
    allocate(2, "--ntasks-per-node=2")
    with Executor(backend=Slurm(), resource_dict={"ranks": 2}) as ex:
        for future in [ex.submit(rank) for _ in range(3)]:
            first, second = future.result()
            assert first[:2] == (0, 2)
            assert second == (1, 2, first[2])  # from the same launcher, and not by way of another node's
        assert ex.submit(ending_calls.count_down_on_ranks, 1).result() == [(0, 1, 2), (1, 2, 2)]


def rank_and_node() -> tuple[int, int, str]:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    assert comm.allreduce(1) == comm.Get_size()
    return comm.Get_rank(), comm.Get_size(), node()


def rendezvous(*names: str) -> Any:
    """Let the ranks meet as torch.distributed does; return variables of each."""
    from mpi4py import MPI

    with ExitStack() as stack:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if os.environ["RANK"] == "0":
            stack.enter_context(socket.create_server(("", place[1])))
        MPI.COMM_WORLD.Barrier()
        stack.enter_context(socket.create_connection(place))
        MPI.COMM_WORLD.Barrier()
    return {name: os.environ[name] for name in names}


@pytest.mark.needs("mpi")
def test_ranks_over_several_nodes(allocate: Callable[..., str], fitting_mpi: None) -> None:
    allocate(2, "-c2")
    with Executor(backend=Slurm()) as ex:
        spread = ex.submit(rank_and_node, resource_dict={"ranks": 4})  # no node has four cores
        names = [name for *_, name in spread.result()]
        assert [result[:2] for result in spread.result()] == [(i, 4) for i in range(4)]
        assert names[0] == names[1] != names[2] == names[3]
        again = ex.submit(ending_calls.count_down_on_ranks, 1, resource_dict={"ranks": 2, "nodes": 2})
        assert again.result() == [(0, 1, 2), (1, 2, 2)]
        met = ex.submit(rendezvous, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", resource_dict={"ranks": 4})
        assert [list(rank.values()) for rank in met.result()] == [[str(i), "4", str(i % 2), "2"] for i in range(4)]
        two = ex.submit(rank_and_node, resource_dict={"ranks": 2, "nodes": 2}).result()
        assert len({name for *_, name in two}) == 2
        assert ex.submit(same, 1).result() == 1


@pytest.mark.needs("mpi")
def test_ranks_over_several_nodes_have_their_grace_when_the_allocation_ends(
    allocate: Callable[..., str], slurm: Cluster, fitting_mpi: None, tmp_path: Path
) -> None:
    job, paths = allocate(2, "-c1"), [tmp_path / "0", tmp_path / "1"]
    with Executor(backend=Slurm()) as ex:
        saving = ex.submit(ending_calls.save_on_all_ranks, paths, 0.5, resource_dict={"ranks": 2, "nodes": 2})
        until(lambda: all(path.exists() for path in paths))
        slurm.run("scancel", job)
        assert saving.result() == ["saved"] * 2


def variables_of_rank(*names: str) -> Any:
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
    return {name: os.environ.get(name) for name in names}


@pytest.mark.needs("mpi")
def test_ranks_are_placed_and_bound_as_is_asked_for(
    allocate: Callable[..., str], slurm: Cluster, fitting_mpi: None
) -> None:
    has_gpus = slurm.gpus > 1
    allocate(2, "-c3", *(["--gres=gpu:2"] if has_gpus else []))
    with Executor(backend=Slurm()) as ex:
        apart = ex.with_resources(ranks=3, ranks_per_node=2, cpu_bind="rank", srun_args=["--distribution=block:cyclic"])
        spread = apart.submit(variables_of_rank, "SLURMD_NODENAME", "SLURM_CPU_BIND_TYPE", "SLURM_DISTRIBUTION")
        first, second, third = spread.result()
        assert first == second == {**third, "SLURMD_NODENAME": first["SLURMD_NODENAME"]} != third
        assert (first["SLURM_CPU_BIND_TYPE"], first["SLURM_DISTRIBUTION"]) == ("rank", "block:cyclic")
        gpus = {"gpus_per_rank": 1, "gpu_bind": "map_gpu:1,0"} if has_gpus else {}
        bound = ex.with_resources(ranks=2, cpu_bind="cores", **gpus)  # on one node, where mpiexec would start them else
        there = bound.submit(variables_of_rank, "SLURM_CPU_BIND_TYPE", "CUDA_VISIBLE_DEVICES").result()
        assert [rank["SLURM_CPU_BIND_TYPE"] for rank in there] == ["cores"] * 2
        assert [rank["CUDA_VISIBLE_DEVICES"] for rank in there] == (["1", "0"] if has_gpus else [""] * 2)
        assert ex.submit(same, 1).result() == 1
        with pytest.raises(ResourceError, match="srun_args has '-n': use ranks="):
            apart.submit(same, 1, resource_dict={"srun_args": "-n 4"})
        with pytest.raises(ResourceError, match="cpu_bind is for calls with ranks, and this one has a single one"):
            ex.submit(same, 1, resource_dict={"cpu_bind": "cores"})


def leave_word(path: Path) -> tuple[int, int, str]:
    path.touch()
    return rank_and_node()


@pytest.mark.needs("mpi")
def test_the_plugin_that_fits_is_found_and_remembered(
    allocate: Callable[..., str], slurm: Cluster, mpich: None, tmp_path: Path
) -> None:
    allocate(2)
    for _ in range(2):
        with Executor(backend=Slurm(), resource_dict={"ranks": 2, "nodes": 2}) as ex:
            assert [result[:2] for result in ex.submit(rank_and_node).result()] == [(0, 2), (1, 2)]
    assert [path.read_text() for path in (tmp_path / "runs").glob("mpi-*")] == ["pmi2"]
    with Executor(backend=Slurm(), resource_dict={"ranks": 2, "nodes": 2}) as ex:
        before = slurm.commands()["srun"]
        futures = [ex.submit(rank_and_node) for _ in range(2)]
        assert [future.result()[1][:2] for future in futures] == [(1, 2), (1, 2)]
        assert slurm.commands()["srun"] == before + 4  # agents, the list of plugins, and the two calls


@pytest.mark.needs("mpi")
@pytest.mark.parametrize("library", ["mpich", "its own"])
@pytest.mark.parametrize("mpi", [None, "none"])
def test_no_plugin_fits(
    mpi: str | None,
    library: str,
    allocate: Callable[..., str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    what = "do not know each other"
    if library == "mpich":
        request.getfixturevalue("mpich")
    else:
        what += "|did not begin"  # Open MPI 4 notices itself
    said = r"Slurm\(mpi='none'\) does not fit .*`srun --mpi=list` offers .*none"
    if mpi is None:  # only what fits neither library is tried then
        monkeypatch.setattr("callyard.schedulers.slurm.mpi.offered", lambda _: ["none", "cray_shasta"])
        said = "`srun --mpi=list` offers none, cray_shasta, of which cray_shasta did not fit"
    allocate(2)
    mark = tmp_path / "mark"
    with Executor(backend=Slurm(mpi=mpi), resource_dict={"ranks": 2, "nodes": 2}) as ex:
        for function in leave_word, Path.touch:
            with pytest.raises(SchedulerError, match=rf"was not run: its 2 ranks ({what}).*{said}.*mpi="):
                ex.submit(function, mark).result()
        assert not mark.exists()
        assert ex.submit(same, 1, resource_dict={"ranks": 1, "nodes": 1}).result() == 1
