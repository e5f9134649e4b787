"""The variables of PBS: those of a process in a job, and those with which its commands are run."""

from __future__ import annotations

from ...utils.lite_stdlib import Mapping
from ..job_environment import JobVariables
from ..launcher_variables import is_of_launcher

__all__ = ["JOB_VARIABLES", "environment", "is_inside"]

JOB_VARIABLES = JobVariables(
    scheduler="PBS", job="PBS_JOBID", array="PBS_ARRAY_ID", element="PBS_ARRAY_INDEX"
)  # SIGTERM comes at the time limit

# How to reach the server; everything else of this name describes a job.
_KEPT = frozenset({"PBS_CONF_FILE", "PBS_CONF_SYSLOG", "PBS_DEFAULT", "PBS_EXEC", "PBS_PRIMARY", "PBS_SERVER"})
# Set by the user outside of a job, by PBS inside.
_GIVEN_TO_JOBS = frozenset({"CUDA_VISIBLE_DEVICES", "ENVIRONMENT", "NCPUS", "OMP_NUM_THREADS", "ROCR_VISIBLE_DEVICES"})


def is_inside(environ: Mapping[str, str]) -> bool:
    """Return True for a process in a job."""
    return "PBS_JOBID" in environ


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what belongs to the job of this process, if it is in one."""
    inside = is_inside(environ)
    return {
        name: value
        for name, value in environ.items()
        if not (_leaks(name) or (inside and (name in _GIVEN_TO_JOBS or _is_temporary(name, value, environ))))
    }


def _leaks(name: str) -> bool:
    return (name.startswith("PBS_") and name not in _KEPT) or is_of_launcher(name)


def _is_temporary(name: str, value: str, environ: Mapping[str, str]) -> bool:
    """Return True for a directory that ends with the job: its name has the job's ID."""
    return name == "TMPDIR" and environ["PBS_JOBID"] in value
