"""LSF as a `Scheduler`: the texts of the other modules of this folder, as queries on neutral values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base import JobId, JobRequest, Numbering, Site, Status
from ..command import Query
from ..requests import by_array, in_chunks
from . import answers
from .refusals import WORDS, had_ended
from .submit import check, submit, submitted
from .variables import JOB_VARIABLES, environment, is_inside

__all__ = ["LsfScheduler"]

_FIELDS = "jobid jobindex stat exit_code exit_reason exec_host pend_reason job_name"
# This user's jobs, with those that ended within the last hour (CLEAN_PERIOD). Without any, bjobs fails.
_BJOBS = (
    *("sh", "-c", ('out=$(bjobs "$@" 2>&1); code=$?; printf "%s\\n" "$out"'
      '; case $out in *"o job found"*|*"o unfinished job found"*) exit 0;; esac; exit $code'), "bjobs"),
    *("-a", "-o", _FIELDS, "-json"),
)  # fmt: skip


class LsfScheduler:
    """IBM Spectrum LSF, from 10.1 on."""

    name = "LSF"

    def submit(self, request: JobRequest) -> Query[JobId]:
        """Return the command that submits a job or an array."""
        return Query(submit(request), submitted)

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:  # it lists them all
        """Return the command for the states of this user's jobs."""
        return Query(_BJOBS, answers.statuses)

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        """Return the command for finding submissions by the token in the names of jobs."""
        return Query(_BJOBS, lambda out: answers.found(out, token))

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        """Return the commands that end jobs and elements."""
        known = [job for job in jobs if job.job.isdecimal()]
        named = [
            job if number is None else f"{job}[{number}]"
            for job, numbers in by_array(known).items()
            for number in numbers or (None,)
        ]
        return [Query(["bkill", *words], _nothing) for words in in_chunks(named)]

    def site(self) -> Site:
        """Return the facts about the cluster."""
        return _SITE


def _nothing(out: str) -> None:
    """Ignore the output of a command that has no answer."""


def _rank_launcher(ranks: int, cores_per_rank: int, plugin: str | None, nodes: int | None) -> tuple[str, ...]:  # noqa: ARG001
    """Return the MPI library's own launcher, which learns the nodes from LSF."""
    return ("mpiexec", "-n", str(ranks))


_SITE = Site(
    program="bsub",
    array_limit=Query(["bparams", "-a"], answers.most_elements),
    environment=environment,
    refusal=WORDS.why_refused,
    job_variables=JOB_VARIABLES,
    numbering=Numbering(first=1),
    inside=is_inside,
    had_ended=had_ended,
    rank_launcher=_rank_launcher,
    check=check,
)
