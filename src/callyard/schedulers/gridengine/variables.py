"""The variables of Grid Engine: those of a process in a job, and those with which its commands are run."""

from __future__ import annotations

from ...utils.lite_stdlib import Mapping
from ..job_environment import JobVariables
from ..launcher_variables import is_of_launcher

__all__ = ["JOB_VARIABLES", "environment", "is_inside"]

JOB_VARIABLES = JobVariables(
    scheduler="GridEngine",
    job="JOB_ID",
    array="JOB_ID",
    element="SGE_TASK_ID",
    no_element="undefined",
    node="HOSTNAME",
    nodes="NHOSTS",
    time_limit_signal="SIGUSR2",  # the warning of `qsub -notify`, before a deletion as well
    signals_all=True,
)

_PREFIXES = ("SGE_TASK_", "SGE_O_", "SGE_STD", "SGE_JOB_", "SGE_CKPT_")
# A function of the shell does not survive `qsub -V`: the shell of the job complains about each.
_SHELL_FUNCTIONS = "BASH_FUNC_"
# Outside of jobs these names may be the user's own.
_OF_JOBS = frozenset(
    [
        *("ENVIRONMENT", "HOSTNAME", "JOB_ID", "JOB_NAME", "JOB_SCRIPT", "NHOSTS", "NQUEUES", "NSLOTS", "PE"),
        *("PE_HOSTFILE", "QUEUE", "REQNAME", "REQUEST", "RESTARTED", "SGE_ACCOUNT", "SGE_BINARY_PATH", "SGE_CWD_PATH"),
        *("SGE_HGR_gpu", "SGE_BINDING", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    ]
)


def is_inside(environ: Mapping[str, str]) -> bool:
    """Return True for a process in a job."""
    return "SGE_TASK_ID" in environ and "JOB_ID" in environ


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what belongs to the job of this process, if it is in one."""
    inside = is_inside(environ)
    return {
        name: value
        for name, value in environ.items()
        if not (_leaks(name) or (inside and (name in _OF_JOBS or _is_temporary(name, value, environ))))
    }


def _leaks(name: str) -> bool:
    return name.startswith((*_PREFIXES, _SHELL_FUNCTIONS)) or is_of_launcher(name)


def _is_temporary(name: str, value: str, environ: Mapping[str, str]) -> bool:
    """Return True for a directory that ends with the job: its name begins with the job's number."""
    return name in ("TMP", "TMPDIR") and f"/{environ['JOB_ID']}." in value
