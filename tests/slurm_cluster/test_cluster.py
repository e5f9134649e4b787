"""The test cluster is what it says it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from cluster import Cluster
from guardian import CGROUPS
from this_machine import ClusterError, environment_of, running, until

pytestmark = pytest.mark.once

HERE = str(Path(__file__).parent)


def submit(cluster: Cluster, command: str, *options: str) -> str:
    return cluster.run("sbatch", "--parsable", "--output=/dev/null", "--time=5", *options, "--wrap", command).strip()


def client(*argv: str) -> str:
    """Run a command as the code under test would: found by PATH, in this process's environment."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def traces(cluster: Cluster) -> list[str]:
    """Return what there is of a cluster: processes, cgroups, files, shared memory."""
    place = os.fsencode(cluster.directory)
    found = [
        f"process {pid}"
        for pid in psutil.pids()
        if pid != os.getpid() and running(pid) and any(place in text for text in environment_of(pid))
    ]
    found += [str(path) for node in cluster.nodes for path in CGROUPS.glob(f"*/slurm_{node}")]
    found += [str(path) for path in Path("/dev/shm").iterdir() if cluster.nodes[0].partition("n")[0] in path.name]
    return found + [str(cluster.directory)] * cluster.directory.exists()


# ------------------------------------------------------------------ jobs


def test_a_job_runs(slurm: Cluster, tmp_path: Path) -> None:
    job = client("sbatch", "--parsable", f"--output={tmp_path}/log", "--wrap", "echo here").strip()
    slurm.wait_for(job, "COMPLETED")
    assert (tmp_path / "log").read_text() == "here\n"
    assert slurm.jobs() == {}


def test_commands_are_counted(slurm: Cluster) -> None:
    assert not slurm.commands()
    client("squeue")
    client("squeue", "-h")
    client("scontrol", "ping")
    slurm.run("squeue")
    assert slurm.commands() == {"squeue": 2, "scontrol": 1}


def test_an_array(slurm: Cluster) -> None:
    job = submit(slurm, "exit $SLURM_ARRAY_TASK_ID", "--array=0-2")
    states = [slurm.wait_for(f"{job}_{element}", "COMPLETED", "FAILED") for element in range(3)]
    assert states == ["COMPLETED", "FAILED", "FAILED"]


def test_a_step_on_two_nodes(slurm: Cluster) -> None:
    nodes = client("srun", "--nodes=2", "sh", "-c", "echo $SLURMD_NODENAME").split()
    assert sorted(nodes) == sorted(slurm.nodes[:2])


def test_gpus(slurm: Cluster) -> None:
    if not slurm.gpus:
        pytest.skip("no device files that could stand for GPUs")
    devices = client("srun", f"--gres=gpu:{slurm.gpus}", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES").strip()
    assert len(devices.split(",")) == slurm.gpus


def test_too_much_memory(slurm: Cluster) -> None:
    code = "import time; x = bytearray(300 << 20); time.sleep(600)"
    job = submit(slurm, f"{sys.executable} -c '{code}'", "--mem=50")
    assert slurm.wait_for(job, "OUT_OF_MEMORY", "FAILED") == ("OUT_OF_MEMORY" if slurm.kills_by_memory else "FAILED")


def test_jobs_are_cancelled(slurm: Cluster) -> None:
    running_one = submit(slurm, "trap '' TERM; sleep 600; sleep 600")
    pending = submit(slurm, "true", f"--dependency=afterok:{running_one}")
    slurm.wait_for(running_one, "RUNNING")
    assert slurm.jobs() == {running_one: "RUNNING", pending: "PENDING"}
    slurm.cancel_all()
    assert slurm.jobs() == {}


def test_an_allocation(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with slurm.allocation(2, "--ntasks-per-node=2") as variables:
        assert variables["SLURM_JOB_NUM_NODES"] == "2"
        assert list(slurm.jobs()) == [variables["SLURM_JOB_ID"]]
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert len(client("srun", "sh", "-c", "echo $SLURM_PROCID").split()) == 4
    until(lambda: not slurm.jobs())


def test_an_allocation_that_cannot_be_had(slurm: Cluster) -> None:
    with pytest.raises(ClusterError, match="salloc got nothing"), slurm.allocation(1, "--partition=none"):
        pass


def test_preemption(slurm: Cluster) -> None:
    low = submit(slurm, "sleep 600", "--partition=low", "--nodes=4", "--exclusive")
    slurm.wait_for(low, "RUNNING")
    high = submit(slurm, "true", "--nodes=4", "--exclusive")
    slurm.wait_for(high, "COMPLETED")
    assert slurm.wait_for(low, "PENDING") == "PENDING"
    slurm.wait_for(low, "RUNNING")  # in seconds, not minutes
    slurm.cancel_all()


# ------------------------------------------------------------------ failures


def test_a_node_down_and_up(slurm: Cluster) -> None:
    node = slurm.nodes[1]
    job = submit(slurm, "sleep 600", f"--nodelist={node}", "--no-requeue")
    slurm.wait_for(job, "RUNNING")
    slurm.node_down(node)
    slurm.wait_for(job, "NODE_FAIL")
    slurm.node_up(node)
    slurm.wait_for(submit(slurm, "true", f"--nodelist={node}"), "COMPLETED")


def test_a_node_is_killed(slurm: Cluster, tmp_path: Path) -> None:
    node = slurm.nodes[2]
    # What leaves its parent and session is killed too.
    command = f"setsid sh -c 'echo $$ >{tmp_path}/1; exec sleep 600' & echo $$ >{tmp_path}/2; sleep 600"
    submit(slurm, command, f"--nodelist={node}", "--no-requeue")
    until(lambda: len(list(tmp_path.iterdir())) == 2 and all(path.read_text() for path in tmp_path.iterdir()))
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert all(map(running, pids))
    slurm.kill_node(node)
    assert not any(map(running, pids))
    slurm.start_node(node)
    slurm.cancel_all()
    slurm.wait_for(submit(slurm, "true", f"--nodelist={node}"), "COMPLETED")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_the_controller_is_restarted(slurm: Cluster, sign: signal.Signals) -> None:
    job = submit(slurm, "sleep 600")
    slurm.wait_for(job, "RUNNING")
    if sign == signal.SIGKILL:
        slurm.save(job)
    slurm.stop_controller(sign)
    slurm.start_controller()
    assert slurm.state(job) == "RUNNING"
    slurm.cancel_all()


def test_a_stalled_controller(slurm: Cluster) -> None:
    with slurm.stalled(), pytest.raises(subprocess.TimeoutExpired):
        slurm.run("squeue", timeout=1)
    slurm.run("squeue")


def test_a_prolog_fails(slurm: Cluster) -> None:
    with slurm.failing_prolog():
        job = submit(slurm, "true")
        until(lambda: "launch failed" in slurm.run("squeue", "-h", "-j", job, "-o", "%r"))
        slurm.cancel_all()
    slurm.wait_for(submit(slurm, "true", "--nodes=4"), "COMPLETED")


# ------------------------------------------------------------------ clusters


def test_clusters_side_by_side(slurm: Cluster, short_path: Path) -> None:
    with Cluster(short_path / "b", nodes=1, max_array_size=3, settings={"SlurmdTimeout": 20}) as other:
        mine, others = submit(slurm, "sleep 600"), submit(other, "sleep 600")
        slurm.wait_for(mine, "RUNNING")
        other.wait_for(others, "RUNNING")
        assert "MaxArraySize            = 3\n" in other.run("scontrol", "show", "config")
        assert set(slurm.nodes).isdisjoint(other.nodes)
        assert traces(other)
    assert traces(other) == []
    assert slurm.state(mine) == "RUNNING"
    slurm.cancel_all()


@pytest.mark.needs("slurm")
def test_a_job_is_forgotten(short_path: Path) -> None:
    with Cluster(short_path / "b", nodes=1, min_job_age=1) as cluster:
        job = submit(cluster, "true")
        cluster.wait_for(job, "COMPLETED")
        cluster.wait_for(job, "")


STARTS_A_CLUSTER = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from cluster import Cluster
cluster = Cluster(Path(sys.argv[2]), nodes=1)
print(*cluster.nodes, flush=True)
cluster.start()
cluster.run("sbatch", "--output=/dev/null", "--wrap", "setsid sleep 600")
while "RUNNING" not in cluster.jobs().values():
    pass
print("runs", flush=True)
signal.pause()
"""


@pytest.mark.needs("slurm")
@pytest.mark.parametrize("late", [False, True])
def test_the_cluster_ends_with_its_process(short_path: Path, late: bool) -> None:
    cluster = Cluster(short_path / "b", nodes=1)
    cluster.stop()  # it only says what its traces look like
    argv = [sys.executable, "-c", STARTS_A_CLUSTER, HERE, str(cluster.directory)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        cluster.nodes = tuple(process.stdout.readline().split())
        if late:
            assert process.stdout.readline() == "runs\n"
            assert len(traces(cluster)) > 4
        else:
            until(lambda: bool(traces(cluster)))
        process.kill()
    until(lambda: not traces(cluster))


@pytest.mark.needs("slurm")
def test_a_cluster_that_cannot_start(short_path: Path) -> None:
    cluster = Cluster(short_path / "b", lines=["Nonsense=1"])
    with pytest.raises(ClusterError, match="slurmctld has ended"):
        cluster.start()
    assert traces(cluster) == []


@pytest.mark.needs("slurm")
def test_a_directory_that_is_there_stays(short_path: Path) -> None:
    (short_path / "b").mkdir()
    (short_path / "b/file").touch()
    cluster = Cluster(short_path / "b")
    with pytest.raises(OSError, match="File exists"):
        cluster.start()
    cluster.stop()
    assert (short_path / "b/file").exists()


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / ("b" * 100))
    with pytest.raises(ValueError, match="too long a path"), cluster:
        pass


def test_accounting(accounted_slurm: Cluster) -> None:
    job = client("sbatch", "--parsable", "--output=/dev/null", "--comment=a word", "--wrap", "exit 3").strip()
    until(lambda: client("sacct", "-n", "-X", "-P", "-j", job, "-o", "state,exitcode") == "FAILED|3:0\n")
    assert client("sacct", "-n", "-X", "-P", "-j", job, "-o", "comment") == "a word\n"
