"""PBS as a `Scheduler`: the texts of the other modules of this folder, as queries on neutral values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..base import JobId, JobRequest, Numbering, Site, Status
from ..command import Query
from ..requests import by_array, in_chunks
from . import answers
from .refusals import WORDS, had_ended
from .submit import check, submit, submitted
from .variables import JOB_VARIABLES, environment, is_inside

__all__ = ["PbsScheduler"]

# qstat fails when one of the jobs is unknown (153, the end of PBS's error 15001) or has ended (35), although it tells
# of the others.
_QSTAT = (
    *("sh", "-c", 'qstat "$@"; code=$?; case $code in 35|153) exit 0;; esac; exit $code', "qstat"),
    *("-x", "-f", "-F", "json"),
)
_MOST_NAMED = 1000
_JOB = re.compile(r"\d+(?:\[\])?(?:\.[\w.-]+)?")


class PbsScheduler:
    """OpenPBS and PBS Professional, from 20 on."""

    name = "PBS"

    def submit(self, request: JobRequest) -> Query[JobId]:
        """Return the command that submits a job or an array."""
        return Query(submit(request), submitted)

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
        """Return the command for the states of jobs, with the elements of arrays, ended ones included.

        More than a thousand jobs are not named at all: the reader accepts the others, too.
        """
        names = list(by_array(_known(jobs)))
        return Query([*_QSTAT, "-t", *(names if len(names) <= _MOST_NAMED else ())], answers.statuses)

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        """Return the command for finding submissions by the token in the names of jobs."""
        return Query(_QSTAT, lambda out: answers.found(out, token))

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        """Return the commands that delete jobs and elements."""
        named = [
            answers.named(job, number)
            for job, numbers in by_array(_known(jobs)).items()
            for number in numbers or (None,)
        ]
        return [Query(["qdel", *words], _nothing) for words in in_chunks(named)]

    def site(self) -> Site:
        """Return the facts about the cluster."""
        return _SITE


def _known(jobs: Sequence[JobId]) -> list[JobId]:
    """Return the jobs with PBS's IDs; others, as from a damaged file, would make PBS refuse all of them."""
    return [job for job in jobs if _JOB.fullmatch(job.job)]


def _nothing(out: str) -> None:
    """Ignore the output of a command that has no answer."""


def _rank_launcher(ranks: int, cores_per_rank: int, plugin: str | None, nodes: int | None) -> tuple[str, ...]:  # noqa: ARG001
    """Return the MPI library's own launcher, which learns the nodes from PBS."""
    return ("mpiexec", "-n", str(ranks))


_SITE = Site(
    program="pbsnodes",  # qsub is also Grid Engine's
    array_limit=Query(["qstat", "-B", "-f"], answers.most_elements),
    environment=environment,
    refusal=WORDS.why_refused,
    job_variables=JOB_VARIABLES,
    numbering=Numbering(first=0, gaps=False),
    inside=is_inside,
    cancels_dependents=False,
    had_ended=had_ended,
    rank_launcher=_rank_launcher,
    check=check,
)
