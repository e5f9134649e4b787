"""The variables of Slurm: of a process in a job, and of Slurm's commands."""

from __future__ import annotations

from ...utils.lite_stdlib import Mapping
from ..job_environment import JobVariables
from ..launcher_variables import is_of_launcher

__all__ = ["JOB_VARIABLES", "configuration", "environment"]

JOB_VARIABLES = JobVariables(
    scheduler="Slurm",
    job="SLURM_JOB_ID",
    array="SLURM_ARRAY_JOB_ID",
    element="SLURM_ARRAY_TASK_ID",
    node="SLURMD_NODENAME",
    restarts="SLURM_RESTART_COUNT",
    ends="SLURM_JOB_END_TIME",
    step="SLURM_STEP_ID",
    cgroup="job_{job}",
    rank="SLURM_PROCID",
    local_rank="SLURM_LOCALID",
    nodes="SLURM_JOB_NUM_NODES",
)

# How to reach the controller; everything else of this name describes a job, or is an option in disguise.
_KEPT = frozenset({"SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"})

# Options of Slurm's commands, and the variables of processes in a job. `sbatch` sends the environment along with the
# job, where all of these, and an MPI launcher's variables for ranks, would be taken for the new job's own: wrong sizes
# of MPI_COMM_WORLD, steps that wait for another job's cores, squeue with half of the asked columns.
_PREFIXES = ("SALLOC_", "SACCT_", "SBATCH_", "SCANCEL_", "SCONTROL_", "SINFO_", "SLURM_", "SLURMD_", "SQUEUE_", "SRUN_")
# Set by the user outside of a job, by Slurm inside.
_GIVEN_TO_JOBS = frozenset(
    {"CUDA_VISIBLE_DEVICES", "ENVIRONMENT", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"}
)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without the variables of the job or step around this process."""
    job = environ.get("SLURM_JOB_ID")
    return {name: value for name, value in environ.items() if not (_leaks(name) or (job and _given(name, value, job)))}


def configuration(environ: Mapping[str, str]) -> str | None:
    """Return the file that Slurm's commands take for their configuration, if a variable names one."""
    return environ.get("SLURM_CONF")


def _leaks(name: str) -> bool:
    return name not in _KEPT and (name.startswith(_PREFIXES) or is_of_launcher(name))


def _given(name: str, value: str, job: str) -> bool:
    # Many sites make a directory for temporary files for each job, which is not there in the next.
    return name in _GIVEN_TO_JOBS or (name == "TMPDIR" and job in value)
