"""The daemon of one machine as a `Scheduler`: the texts of the other modules of this folder, as queries."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ...resources import Resources
from ..base import JobId, JobRequest, Site, Status
from ..command import Query
from .refusals import why_refused
from .states import translated
from .submit import asked_for, check, submitted
from .variables import JOB_VARIABLES, environment

__all__ = ["LocalScheduler"]

T = TypeVar("T")
_MOST = 10_000  # jobs of one submission, which takes about a second


class LocalScheduler:
    """The daemon that runs jobs on this machine.

    `check_more` refuses resources that the share of an executor does not have; by default there is no such share.
    """

    name = "Local"

    def __init__(self, check_more: Callable[[Resources], None] | None = None) -> None:
        self._check_more = check_more

    def submit(self, request: JobRequest) -> Query[JobId | Sequence[JobId]]:
        """Return the command that submits a job, or one for each element."""

        def read(out: str) -> JobId | Sequence[JobId]:
            return submitted(out, request)

        return _query("submit", asked_for(request), read)

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
        """Return the command for the states of several jobs at once."""
        return _query("status", {"jobs": list(map(str, jobs))}, _statuses)

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        """Return the command for finding submissions by the tokens of their jobs."""

        def read(out: str) -> Mapping[str, JobId]:
            lines = [line.split() for line in out.splitlines()]
            return {line[1]: JobId(line[0]) for line in lines if len(line) == 2}

        return _query("find", {"token": token}, read)

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        """Return the command that cancels jobs."""
        return [_query("cancel", {"jobs": list(map(str, jobs))}, _nothing)] if jobs else []

    def site(self) -> Site:
        """Return the facts about this machine."""
        return _SITE if self._check_more is None else dataclasses.replace(_SITE, check=self._check)

    def _check(self, resources: Resources) -> None:
        check(resources)
        if self._check_more is not None:
            self._check_more(resources)


def _query(command: str, asked: Mapping[str, object], read: Callable[[str], T]) -> Query[T]:
    return Query([_SITE.program, command], read, json.dumps(asked))


def _statuses(out: str) -> Mapping[JobId, Status]:
    found = map(json.loads, out.splitlines())
    return {JobId.parse(job["job"]): translated(job) for job in found}


def _nothing(out: str) -> None:
    """Ignore the output of a command that has no answer."""


def _most(out: str) -> int:  # noqa: ARG001  # there is no limit to be told
    return _MOST


_SITE = Site(
    program="callyard-daemon",
    array_limit=Query(["callyard-daemon", "reach"], _most, "{}"),
    environment=environment,
    refusal=why_refused,
    job_variables=JOB_VARIABLES,
    separate=True,
    daemon=True,
    check=check,
)
