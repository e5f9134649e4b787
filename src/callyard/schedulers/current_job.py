"""The job in which this process runs, whichever scheduler has started it."""

from __future__ import annotations

import os

from ..utils.lite_typing import Mapping
from .job_environment import JobEnvironment
from .slurm.variables import JOB_VARIABLES as SLURM

__all__ = ["current_job"]

# A scheduler that can itself run inside a job of another one goes before that one: its variables are the inner ones.
_KNOWN = (SLURM,)


def current_job(environ: Mapping[str, str] = os.environ) -> JobEnvironment:
    """Return what the variables of a process say of its job; an empty `JobEnvironment` if it is in none."""
    found = (variables.read(environ) for variables in _KNOWN)
    return next((job for job in found if job is not None), JobEnvironment())
