"""The job in which this process runs, whichever scheduler has started it.

Whoever submits a job, or starts an agent, passes the names of the scheduler's variables on to it. So a process of a job
loads no scheduler, nor does it look for those of other packages, which takes longer than a short call.
"""

from __future__ import annotations

import os

from ..utils import lite_json
from ..utils.lite_typing import Mapping
from .job_environment import JOB_VARIABLES, JobEnvironment, JobVariables

__all__ = ["current_job"]


def current_job(environ: Mapping[str, str] = os.environ) -> JobEnvironment:
    """Return what the variables of a process say of its job; an empty `JobEnvironment` if it is in none."""
    names = environ.get(JOB_VARIABLES)
    job = JobVariables(**lite_json.loads(names)).read(environ) if names else None
    return job or JobEnvironment()
