"""How the jobs of one executor are to be made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Terms"]

_MARGIN = 60.0  # s that a job may take beside its calls


@dataclass(frozen=True)
class Terms:
    """What the user said of the scheduler, apart from each call's resources."""

    scheduler: str
    python: tuple[str, ...]  # the command that makes the calls of a job, without its arguments
    defaults: Mapping[str, Any]  # partition, account ... of calls that do not say
    setup: tuple[str, ...] = ()
    template: str | None = None
    walltime: float | None = None
    mpi: str | None = None  # what the scheduler's launcher is told
    ranks_by: tuple[str, ...] = ("srun",)
    calls_per_job: int = 1
    poll: tuple[float, float] = (5.0, 60.0)
    result_grace: float = 60.0

    def time(self, run_time: float | None) -> float | None:
        """The scheduler's limit for a job whose calls may take so long each (s)."""
        return self.walltime if run_time is None else run_time * self.calls_per_job + _MARGIN
