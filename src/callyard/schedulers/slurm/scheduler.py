"""Slurm as a `Scheduler`: the texts of the other modules of this folder, as queries on neutral values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..base import Configuration, JobId, JobRequest, Query, Reply, Site, Status
from . import commands
from .refusals import why_refused
from .states import JobReport, translated

__all__ = ["SlurmScheduler"]


class SlurmScheduler:
    """Slurm, from 22.05 on."""

    name = "Slurm"

    def submit(self, request: JobRequest) -> Query[JobId]:
        """Return the command that submits a job or an array."""
        return Query(commands.submit(request), lambda out: JobId(commands.submitted(out)))

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
        """Return the command that asks about this user's jobs, all at once."""
        return Query(commands.status(_texts(jobs)), _translating(commands.statuses))

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        """Return the command that looks for submissions by the token in their comments."""

        def read(out: str) -> Mapping[str, JobId]:
            return {word: JobId(job) for word, job in commands.found(out, token).items()}

        return Query(commands.find(token), read)

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        """Return the commands that cancel jobs and elements."""
        return [Query(argv, _nothing) for argv in commands.cancel(_texts(jobs))]

    def site(self) -> Site:
        """Return the facts about the cluster."""
        return _SITE


def _texts(jobs: Sequence[JobId]) -> list[str]:
    return list(map(str, jobs))


def _translating(read: Callable[[str], dict[str, JobReport]]) -> Callable[[str], Mapping[JobId, Status]]:
    return lambda out: {JobId.parse(job): translated(report) for job, report in read(out).items()}


def _nothing(out: str) -> None:
    """The answer of a command that only does something."""


def _configuration(environ: Mapping[str, str]) -> Configuration | None:
    path = commands.configuration(environ)
    if path is None:
        return None
    return Configuration(path, Reply(1, "", f"{commands.limits()[0]}: cannot stat file {path!r}"))


def _history(jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
    return Query(commands.history(_texts(jobs)), _translating(commands.histories))


def _time_left(jobs: Sequence[JobId]) -> Query[Mapping[JobId, float]]:
    def read(out: str) -> Mapping[JobId, float]:
        return {JobId.parse(job): seconds for job, seconds in commands.times_left(out).items()}

    return Query(commands.time_left(_texts(jobs)), read)


_SITE = Site(
    array_limit=Query(commands.limits(), commands.max_array_size),
    environment=commands.environment,
    refusal=why_refused,
    configuration=_configuration,
    history=_history,
    time_left=_time_left,
)
