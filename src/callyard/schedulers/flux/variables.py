"""The variables of Flux: those of a process in a job, and those with which its commands are run."""

from __future__ import annotations

from ...utils.lite_stdlib import Mapping
from ..job_environment import JobVariables
from ..launcher_variables import is_of_launcher

__all__ = [
    "BY_RANK",
    "CORES",
    "ELEMENT",
    "ENDS",
    "GPUS",
    "JOB_VARIABLES",
    "OF_THE_JOB",
    "OF_THE_NODE",
    "environment",
    "without_gpus",
]

ELEMENT = "CALLYARD_FLUX_ELEMENT"
# What Flux tells a job has no name of its node, and its ID in letters that depend on the locale. So both are asked for
# in variables of ours, which Flux fills in; they are also there in an instance that is a job.
OF_THE_JOB = {"CALLYARD_FLUX_JOB": "{{id.f58plain}}", "CALLYARD_FLUX_NODE": "{{node.name}}"}
# Likewise, for jobs that give out all that they have of a node.
CORES, GPUS = "CALLYARD_FLUX_CORES", "CALLYARD_FLUX_GPUS"
OF_THE_NODE = {CORES: "{{node.cores}}", GPUS: "{{node.gpus}}"}
# For processes on the nodes of an instance: when it ends (s since 1970), and whether ranks are in the names of nodes.
ENDS, BY_RANK = "CALLYARD_FLUX_ENDS", "CALLYARD_FLUX_BY_RANK"
JOB_VARIABLES = JobVariables(
    scheduler="Flux",
    job="CALLYARD_FLUX_JOB",
    element=ELEMENT,
    node="CALLYARD_FLUX_NODE",
    ends=ENDS,
    rank="FLUX_TASK_RANK",
    local_rank="FLUX_TASK_LOCAL_ID",
    nodes="FLUX_JOB_NNODES",
    time_limit_signal="SIGALRM",
)

# FLUX_URI and the like say how to reach the instance; what is named here describes a job or one of its tasks, and would
# be taken for that of a new job.
_PREFIXES = ("CALLYARD_FLUX_", "FLUX_JOB_", "FLUX_TASK_", "FLUX_PMI_")
_NAMES = frozenset({"FLUX_KVS_NAMESPACE", "FLUX_TERMINUS_SESSION"})
# Set by the user outside of a job, by Flux inside.
_GIVEN_TO_JOBS = frozenset({"CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"})


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what belongs to the job of this process, if it is in one."""
    inside = "FLUX_JOB_ID" in environ
    return {
        name: value
        for name, value in environ.items()
        if not (_leaks(name) or (inside and (name in _GIVEN_TO_JOBS or _is_temporary(name, value, environ))))
    }


def _leaks(name: str) -> bool:
    return name.startswith(_PREFIXES) or name in _NAMES or is_of_launcher(name)


def _is_temporary(name: str, value: str, environ: Mapping[str, str]) -> bool:
    """Return whether it is a directory for temporary files that ends with the job."""
    directory = environ.get("FLUX_JOB_TMPDIR")
    return name == "TMPDIR" and bool(directory) and value.startswith(str(directory))


def without_gpus(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that restricts processes to no GPUs."""
    return {name: value for name, value in environ.items() if name not in _GIVEN_TO_JOBS}
