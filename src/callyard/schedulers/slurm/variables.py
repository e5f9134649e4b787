"""The variables of Slurm: those of a process in a job, and those with which its commands are run.

Processes of jobs load this module, so it loads next to nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..job_environment import JobVariables

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
)

# How to reach the controller; everything else of this name describes a job, or is an option in disguise.
_KEPT = frozenset({"SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"})

# Options of Slurm's commands, and what it or an MPI launcher tells the processes of a job. `sbatch` sends the
# environment along with the job, where all of this would be taken for the new job's own: wrong sizes of MPI_COMM_WORLD,
# steps that wait for another job's cores, squeue that shows half of what is asked for.
_OF_COMMANDS = ("SALLOC_", "SACCT_", "SBATCH_", "SCANCEL_", "SCONTROL_", "SINFO_", "SLURM_", "SQUEUE_", "SRUN_")
_OF_LAUNCHERS = (
    "HYDI_",
    "HYDRA_",
    "MPI_LOCAL",
    "OMPI_COMM_WORLD_",
    "OMPI_MCA_ess",
    "OMPI_MCA_orte_",
    "OMPI_MCA_pmix",
    "PALS_",
    "PMI_",
    "PMIX_",
    "PRTE_MCA_ess",
    "PRTE_MCA_prte_",
    "SLURMD_",
    "SLURM_",
)
_EXACT = frozenset(
    {
        "OMPI_APP_CTX_NUM_PROCS",
        "OMPI_ARGV",
        "OMPI_COMMAND",
        "OMPI_FILE_LOCATION",
        "OMPI_FIRST_RANKS",
        "OMPI_MCA_initial_wdir",
        "OMPI_NUM_APP_CTX",
        "OMPI_UNIVERSE_SIZE",
        "OMPI_VERSION",
        "PRTE_LAUNCHED",
    }
)
# Set by the user outside of a job, by Slurm inside.
_GIVEN_TO_JOBS = frozenset(
    {"CUDA_VISIBLE_DEVICES", "ENVIRONMENT", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"}
)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what belongs to the job or step that this process may be in."""
    job = environ.get("SLURM_JOB_ID")
    return {name: value for name, value in environ.items() if not (_leaks(name) or (job and _given(name, value, job)))}


def configuration(environ: Mapping[str, str]) -> str | None:
    """The file that Slurm's commands take for their configuration, if a variable says that."""
    return environ.get("SLURM_CONF")


def _leaks(name: str) -> bool:
    return name not in _KEPT and (name in _EXACT or name.startswith(_OF_COMMANDS + _OF_LAUNCHERS))


def _given(name: str, value: str, job: str) -> bool:
    # Many sites make a directory for temporary files for each job, which is not there in the next.
    return name in _GIVEN_TO_JOBS or (name == "TMPDIR" and job in value)
