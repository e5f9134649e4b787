"""What a process learns from the variables of its job."""

from __future__ import annotations

import subprocess
import sys

import pytest

from callyard.schedulers import registry
from callyard.schedulers.job_environment import JobEnvironment, JobVariables, current_job
from callyard.schedulers.slurm.scheduler import SlurmScheduler

TOLD = SlurmScheduler().site().job_variables.environment()  # which every process of a job is
SLURM_ELEMENT = {
    **TOLD,
    "SLURM_JOB_ID": "8",
    "SLURM_ARRAY_JOB_ID": "7",
    "SLURM_ARRAY_TASK_ID": "0",
    "SLURMD_NODENAME": "c1",
    "SLURM_RESTART_COUNT": "2",
}


def test_an_element_of_an_array_is_named_by_the_array() -> None:
    job = current_job(SLURM_ELEMENT)
    assert job == JobEnvironment("Slurm", "8", "7", 0, "c1", restarts=2, cgroup="job_8")
    assert job.job_id == "7_0"


def test_a_job_that_is_no_array() -> None:
    job = current_job({**TOLD, "SLURM_JOB_ID": "8", "SLURM_STEP_ID": "0"})
    assert (job.job_id, job.element, job.restarts, job.in_step) == ("8", None, 0, True)


def test_a_process_in_no_job() -> None:
    assert current_job({**TOLD, "PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf"}) == JobEnvironment()
    assert current_job({}).job_id == ""


def test_what_a_scheduler_does_not_tell_is_left_empty() -> None:
    variables = JobVariables("Queues", "QUEUES_JOB")
    assert variables.read({"QUEUES_JOB": "3"}) == JobEnvironment("Queues", "3")
    assert variables.read({"QUEUES_JOB": ""}) is None


def test_each_scheduler_of_ours_has_variables() -> None:
    named = {name: registry.open_scheduler(name).site().job_variables.scheduler for name in registry.OWN}
    assert named == {name: name for name in registry.OWN}


def test_a_rank_of_the_schedulers_own_launcher() -> None:
    job = current_job({**TOLD, "SLURM_JOB_ID": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"})
    assert (job.rank, job.local_rank) == (5, 1)


@pytest.mark.parametrize("element", [{}, {"SLURM_ARRAY_TASK_ID": ""}])
def test_a_number_that_is_not_set(element: dict[str, str]) -> None:
    assert current_job({**TOLD, "SLURM_JOB_ID": "8", **element}).element is None


def test_names_reach_a_process_through_its_environment() -> None:
    variables = JobVariables("Queues", "QUEUES_JOB", cgroup="queues/{job}")
    environ = variables.environment()
    assert current_job({**environ, "QUEUES_JOB": "3"}) == JobEnvironment("Queues", "3", cgroup="queues/3")
    assert current_job({**environ, "SLURM_JOB_ID": "3"}) == JobEnvironment()


def test_an_allocation_is_that_of_the_job() -> None:
    allocation = registry.read_share({**SLURM_ELEMENT, "SLURM_JOB_NODELIST": "c[1-2]"})
    assert (allocation.job, [node.name for node in allocation.nodes]) == ("8", ["c1", "c2"])
    with pytest.raises(ValueError, match="not inside an allocation"):
        registry.read_share({"PATH": "/bin"})


def test_outside_of_all_jobs() -> None:
    own = {"PATH": "/bin", "HOME": "/home/me", **TOLD}
    assert registry.environment_outside_jobs({**SLURM_ELEMENT, **own}) == own


def test_to_read_them_loads_next_to_nothing() -> None:
    code = "import sys; old = {*sys.modules}; import callyard.schedulers.job_environment; print(*{*sys.modules} - old)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"typing", "dataclasses", "re", "enum", "importlib.metadata"} & set(run.stdout.split())
