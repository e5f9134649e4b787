"""What an allocation's variables say, and the commands of steps in it."""

from __future__ import annotations

import pytest

from callyard.errors import SchedulerError
from callyard.schedulers.slurm.allocation import (
    AllocatedNode,
    agents,
    agents_of_job,
    end_time,
    ended_on,
    expand,
    inside,
    is_over,
    per_node,
    read_allocation,
    step_environment,
    time_left,
    times_left,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("nodelist", "names"),
    [
        ("c1", ["c1"]),
        ("c[1-3]", ["c1", "c2", "c3"]),
        ("c[1,3],login", ["c1", "c3", "login"]),
        ("node[008-011,020]", ["node008", "node009", "node010", "node011", "node020"]),
        ("r[1-2]n[0-1]", ["r1n0", "r1n1", "r2n0", "r2n1"]),
        ("a[1-2]-ib,b7", ["a1-ib", "a2-ib", "b7"]),
        ("x-y.z[9-10]", ["x-y.z9", "x-y.z10"]),
    ],
)
def test_node_lists(nodelist: str, names: list[str]) -> None:
    assert expand(nodelist) == names


def test_numbers_per_node() -> None:
    assert per_node("4(x2),2") == [4, 4, 2]
    assert per_node("72") == [72]
    with pytest.raises(ValueError, match="four"):
        per_node("four")


BASE = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "c[1-3]", "SLURM_JOB_CPUS_PER_NODE": "4(x2),2"}


def test_an_allocation() -> None:
    allocation = read_allocation({**BASE, "SLURM_MEM_PER_NODE": "1000", "SLURM_GPUS_PER_NODE": "a100:2"})
    assert allocation.job == "7"
    assert allocation.nodes == (
        AllocatedNode("c1", 4, 1000 * MIB, 2),
        AllocatedNode("c2", 4, 1000 * MIB, 2),
        AllocatedNode("c3", 2, 1000 * MIB, 2),
    )


@pytest.mark.parametrize(
    ("variables", "memory"),
    [
        ({}, [None, None, None]),
        ({"SLURM_MEM_PER_NODE": "0"}, [None, None, None]),
        ({"SLURM_MEM_PER_CPU": "100"}, [400, 400, 200]),
        ({"SLURM_MEM_PER_GPU": "100", "SLURM_GPUS_PER_NODE": "3"}, [300, 300, 300]),
        ({"SLURM_MEM_PER_GPU": "100"}, [None, None, None]),
    ],
)
def test_memory(variables: dict[str, str], memory: list[int | None]) -> None:
    nodes = read_allocation({**BASE, **variables}).nodes
    assert [node.memory for node in nodes] == [None if m is None else m * MIB for m in memory]


@pytest.mark.parametrize(
    ("text", "count"), [("2", 2), ("a100:2", 2), ("a100:1,h100:2", 3), ("gpu:tesla:2(IDX:0-1)", 2), ("", None)]
)
def test_gpus(text: str, count: int | None) -> None:
    assert read_allocation({**BASE, "SLURM_GPUS_PER_NODE": text}).nodes[0].gpus == count


def test_no_allocation() -> None:
    assert not inside({})
    with pytest.raises(ValueError, match="not inside an allocation"):
        read_allocation({"SLURM_CONF": "x"})
    with pytest.raises(ValueError, match="is for 2 nodes"):
        read_allocation({**BASE, "SLURM_JOB_CPUS_PER_NODE": "4(x2)"})


def test_an_allocation_of_several_parts() -> None:
    with pytest.raises(SchedulerError, match="job 7 is a heterogeneous allocation of 2 parts"):
        read_allocation({**BASE, "SLURM_JOB_ID": "7", "SLURM_HET_SIZE": "2"})


def test_what_srun_is_told() -> None:
    argv = agents(["c1", "c2"], ["python", "x"])
    assert argv[0] == "srun"
    assert argv[-2:] == ["python", "x"]
    assert {"--overlap", "--mem=0", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--nodelist=c1,c2"} <= {*argv}
    assert {"--cpu-bind=none", "--kill-on-bad-exit=0"} <= {*argv}


def test_the_variables_of_a_step() -> None:
    given = {
        **BASE, "PATH": "/bin", "SLURM_CONF": "/c", "SLURM_NTASKS_PER_NODE": "3", "SLURM_MEM_PER_CPU": "5",
        "SRUN_CPUS_PER_TASK": "2", "SLURM_GPUS_PER_TASK": "1", "TMPDIR": "/tmp/job7", "SLURM_SUBMIT_DIR": "/home",
        "SLURM_EXACT": "1", "SLURM_JOBID": "7",
    }  # fmt: skip
    assert step_environment(given) == {
        "PATH": "/bin", "SLURM_CONF": "/c", "SLURM_JOB_ID": "7", "SLURM_JOBID": "7", "SLURM_JOB_NODELIST": "c[1-3]",
        "TMPDIR": "/tmp/job7", "SLURM_SUBMIT_DIR": "/home",
    }  # fmt: skip


def test_whose_process_has_ended() -> None:
    assert ended_on("srun: error: c2: task 1: Killed") == ["c2"]
    assert ended_on("srun: error: c[2-3]: tasks 1-2: Exited with exit code 1") == ["c2", "c3"]
    assert ended_on("srun: error: Node failure on c4") == ["c4"]
    assert ended_on("srun: launch/slurm: _task_finish: whatever") == []
    assert ended_on("a program says: srun: error: c2: task 1: Killed") == []


def test_agents_of_a_job_are_on_all_its_nodes_and_have_no_input() -> None:
    argv = agents_of_job(3, ["python", "-c", "..."])
    assert argv[0] == "srun"
    assert {"--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--overlap", "--mem=0", "--input=none"} < set(argv)
    assert argv[-3:] == ["python", "-c", "..."]
    assert not any(word.startswith("--nodelist") for word in argv)


# -- time ------------------------------------------------------------------------------------------------------


def test_one_command_asks_for_the_time_of_all_jobs() -> None:
    argv = time_left(["12_0", "12_3", "14"])
    assert argv[0] == "squeue"
    assert "--jobs=12,14" in argv


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00", 0),
        ("9:59", 599),
        ("1:00:00", 3600),
        ("2-03:04:05", 183_845),
        ("UNLIMITED", float("inf")),
        ("-0:10", 0),  # over, and not ended yet
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_the_time_that_is_left(text: str, seconds: float | None) -> None:
    assert times_left(f"7|7|N/A|{text}|\n").get("7") == seconds


def test_an_element_of_an_array_has_two_names() -> None:
    assert times_left("15|14|2|10:00|\n16|14|3|5:00|\nCLUSTER: c\n") == {"15": 600, "14_2": 600, "16": 300, "14_3": 300}


def test_the_end_of_an_allocation() -> None:
    assert end_time({"SLURM_JOB_END_TIME": "1700000000"}) == 1.7e9
    assert end_time({}) is None
    assert end_time({"SLURM_JOB_END_TIME": "0"}) is None


@pytest.mark.parametrize(
    ("said", "over"),
    [
        ("srun: error: Slurm job 2 has expired", True),
        ("srun: error: Unable to confirm allocation for job 2: Invalid job id specified", True),
        ("srun: error: Unable to create step for job 2: Job/step already completing or completed", True),
        ("srun: error: Node failure on c2", False),
        ("", False),
    ],
)
def test_an_allocation_that_has_ended(said: str, over: bool) -> None:
    assert is_over(said) is over
