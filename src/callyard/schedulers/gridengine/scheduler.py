"""Grid Engine as a `Scheduler`: the texts of the other modules of this folder, as queries on neutral values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base import JobId, JobRequest, Numbering, Site, Status
from ..command import Query
from ..requests import by_array, in_chunks
from . import answers
from .refusals import WORDS, had_ended
from .submit import check, submit, submitted
from .variables import JOB_VARIABLES, environment, is_inside

__all__ = ["GridEngineScheduler"]

_QSTAT = ("qstat", "-xml")
# qacct takes one job at a time, and fails for one that it does not know.
_QACCT = ("sh", "-c", 'for job; do qacct -j "$job" 2>/dev/null; done; :', "qacct")


class GridEngineScheduler:
    """Grid Engine: Son of Grid Engine 8.1, and others whose commands are the same."""

    name = "GridEngine"

    def submit(self, request: JobRequest) -> Query[JobId]:
        """Return the command that submits a job or an array."""
        return Query(submit(request), submitted)

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:  # it lists them all
        """Return the command for the states of this user's jobs."""
        return Query(_QSTAT, answers.statuses)

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        """Return the command for finding submissions by the token in the names of jobs, ended ones included.

        Grid Engine remembers only the last ended jobs of all users (`finished_jobs`).
        """
        return Query([*_QSTAT, "-s", "prsz"], lambda out: answers.found(out, token))

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        """Return the commands that delete jobs and elements."""
        named = [
            f"{job}.{number}" if number is not None else job
            for job, numbers in by_array(_known(jobs)).items()
            for number in numbers or (None,)
        ]
        return [Query(["qdel", *words], _nothing) for words in in_chunks(named)]

    def site(self) -> Site:
        """Return the facts about the cluster."""
        return _SITE


def _known(jobs: Sequence[JobId]) -> list[JobId]:
    """Return the jobs with numbers: `qdel` would take another word for a pattern of names."""
    return [job for job in jobs if job.job.isdecimal()]


def _nothing(out: str) -> None:
    """Ignore the output of a command that has no answer."""


def _history(jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
    return Query([*_QACCT, *by_array(_known(jobs))], answers.histories)


_SITE = Site(
    program="qconf",  # qsub is also PBS's
    array_limit=Query(["qconf", "-sconf"], answers.most_elements),
    environment=environment,
    refusal=WORDS.why_refused,
    job_variables=JOB_VARIABLES,
    numbering=Numbering(first=1, gaps=False),
    inside=is_inside,
    history=_history,
    forgets=True,
    cancels_dependents=False,
    had_ended=had_ended,
    check=check,
)
