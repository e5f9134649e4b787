"""Flux as a `Scheduler`: the texts of the other modules of this folder, as queries on neutral values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf

from ..base import JobId, JobRequest, Site, Status
from ..command import Query
from .instance import FluxSteps, check_live, is_over
from .question import question
from .refusals import why_refused
from .states import translated
from .submit import LANE, asked_for, check, submitted
from .variables import JOB_VARIABLES, environment

__all__ = ["FluxScheduler"]

_MOST = 1000  # jobs of one submission, which takes some seconds


class FluxScheduler:
    """Flux, from 0.60 on."""

    name = "Flux"

    def submit(self, request: JobRequest) -> Query[JobId | Sequence[JobId]]:
        """Return the command that submits a job, or one for each element."""

        def read(out: str) -> JobId | Sequence[JobId]:
            return submitted(out, request)

        return question("submit", asked_for(request), read)

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
        """Return the command for the states of several jobs at once."""
        return question("status", {"jobs": list(map(str, jobs))}, _statuses)

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        """Return the command for finding submissions by the tokens in the names of their jobs."""

        def read(out: str) -> Mapping[str, JobId]:
            lines = [line.split() for line in out.splitlines()]
            return {line[1]: JobId(line[0]) for line in lines if len(line) == 2}

        return question("find", {"token": token, "lane": LANE}, read)

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        """Return the command that cancels jobs."""
        return [question("cancel", {"jobs": list(map(str, jobs))}, _nothing)] if jobs else []

    def site(self) -> Site:
        """Return the facts about the instance."""
        return _SITE


def _statuses(out: str) -> Mapping[JobId, Status]:
    found = map(json.loads, out.splitlines())
    return {JobId(job["job"]): translated(job) for job in found}


def _time_left(jobs: Sequence[JobId]) -> Query[Mapping[JobId, float]]:
    return question("left", {"jobs": list(map(str, jobs))}, _seconds_left)


def _seconds_left(out: str) -> Mapping[JobId, float]:
    found = map(json.loads, out.splitlines())
    return {JobId(job["job"]): inf if job["left"] is None else float(job["left"]) for job in found}


def _nothing(out: str) -> None:
    """Ignore the output of a command that has no answer."""


def _most(out: str) -> int:  # noqa: ARG001  # there is no limit to be told
    return _MOST


def _rank_launcher(ranks: int, cores_per_rank: int, plugin: str | None) -> tuple[str, ...]:
    chosen = [f"--setopt=pmi={plugin}"] if plugin else []
    return ("flux", "run", *chosen, f"--ntasks={ranks}", f"--cores-per-task={cores_per_rank}")


_SITE = Site(
    program="flux",
    array_limit=question("reach", {}, _most),
    environment=environment,
    refusal=why_refused,
    job_variables=JOB_VARIABLES,
    separate=True,
    inside=lambda environ: "FLUX_URI" in environ,
    time_left=_time_left,
    steps=FluxSteps(),
    is_over=is_over,
    rank_launcher=_rank_launcher,
    check=check,
    check_live=check_live,
)
