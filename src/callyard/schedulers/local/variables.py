"""The variables of jobs on a machine without a scheduler, as the daemon sets them."""

from __future__ import annotations

from ...utils.lite_stdlib import Mapping
from ..job_environment import JobVariables
from ..launcher_variables import is_of_launcher

__all__ = ["JOB_VARIABLES", "environment"]

JOB_VARIABLES = JobVariables(
    scheduler="Local",
    job="CALLYARD_LOCAL_JOB",
    element="CALLYARD_LOCAL_ELEMENT",
    restarts="CALLYARD_LOCAL_RESTARTS",
    ends="CALLYARD_LOCAL_ENDS",
)
_PREFIX = "CALLYARD_LOCAL_"
_GIVEN_TO_JOBS = frozenset({"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"})


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables of the job around this process, if there is one."""
    inside = JOB_VARIABLES.job in environ
    return {
        name: value
        for name, value in environ.items()
        if not (name.startswith(_PREFIX) or is_of_launcher(name) or (inside and name in _GIVEN_TO_JOBS))
    }
