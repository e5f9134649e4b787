"""The variables of LSF: those of a process in a job, and those with which its commands are run."""

from __future__ import annotations

from ...utils.lite_stdlib import Mapping
from ..job_environment import JobVariables
from ..launcher_variables import is_of_launcher

__all__ = ["JOB_VARIABLES", "environment", "is_inside"]

JOB_VARIABLES = JobVariables(
    scheduler="LSF",
    job="LSB_JOBID",
    array="LSB_JOBID",
    element="LSB_JOBINDEX",
    no_element="0",
    time_limit_signal="SIGUSR2",  # SIGINT, SIGTERM and SIGKILL follow
    signals_all=True,
)

_PREFIXES = ("LSB_", "LS_", "LSFUSER", "LSF_JOB", "LSF_PJL")
# Set by the user outside of a job, by LSF inside.
_GIVEN_TO_JOBS = frozenset({"CUDA_VISIBLE_DEVICES", "ENVIRONMENT", "ROCR_VISIBLE_DEVICES"})


def is_inside(environ: Mapping[str, str]) -> bool:
    """Return True for a process in a job."""
    return "LSB_JOBID" in environ


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what belongs to the job of this process, if it is in one.

    Outside of jobs the variables of these names are the user's settings of LSF.
    """
    inside = is_inside(environ)
    return {
        name: value
        for name, value in environ.items()
        if not (is_of_launcher(name) or (inside and (_is_of_job(name) or _is_temporary(name, value, environ))))
    }


def _is_of_job(name: str) -> bool:
    return name.startswith(_PREFIXES) or name in _GIVEN_TO_JOBS


def _is_temporary(name: str, value: str, environ: Mapping[str, str]) -> bool:
    """Return True for a directory that ends with the job: its name has the job's number."""
    return name == "TMPDIR" and environ["LSB_JOBID"] in value
