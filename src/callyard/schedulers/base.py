"""What is asked of a scheduler and what it answers, in words that are no scheduler's own."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ..resources import Resources
from .slurm.states import Phase, state_of

__all__ = ["Dependency", "JobRequest", "Phase", "Refusal", "Reply", "Status"]


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back from a command.

    Attributes:
        code: its exit status, minus the signal that ended it; None if it was stopped at the time limit. As shells
            have it, 127 stands for a command that is not there, 126 for one that cannot be run.
        out: what it wrote to its standard output, as far as it came.
        err: the same of its standard error, or why it was not run.
    """

    code: int | None
    out: str = ""
    err: str = ""


@dataclasses.dataclass(frozen=True)
class Dependency:
    """A job that must have ended first: `ok`, `any`how, or its element of the `corresponding` number `ok`.

    `job` is written as "123", all of it if it is an array, or "123_4", one element.
    """

    kind: Literal["ok", "any", "corresponding"]
    job: str


@dataclasses.dataclass(frozen=True)
class JobRequest:
    """A job to be submitted.

    Attributes:
        name: what people see in the scheduler's lists, unless `resources.job_name` says otherwise.
        token: names this submission and no other, so that it can be found if the answer is lost.
        script: path of the script, as the scheduler's machine sees it.
        log: path of what the job writes to stdout and stderr; "{element}" in it stands for the element's number.
        resources: what each job, or each element of the array, gets.
        elements: None for one job, n for an array of elements 0 to n - 1, or their numbers.
        at_once: how many elements may run at the same time; None for any number.
        time: the scheduler's own limit (s); rounded up to its unit.
        after: jobs that must have ended first.
        requeue: whether the scheduler may start the job again when its node was lost.
        templated: the script has directives of its own for resources, name and time; only what Callyard needs to
            find, order and read the job is added.
    """

    name: str
    token: str
    script: str
    log: str
    resources: Resources
    elements: int | tuple[int, ...] | None = None
    at_once: int | None = None
    time: float | None = None
    after: tuple[Dependency, ...] = ()
    requeue: bool = False
    templated: bool = False


@dataclasses.dataclass(frozen=True)
class Status:
    """What a scheduler says about a job or one element of an array.

    Attributes:
        job: "123" or "123_4".
        state: a code of `slurm_states.STATES`; what another scheduler says is translated into these.
        reason: why it waits, or why it ended, in the scheduler's words; empty if it gives none.
        node: the nodes it is or was on, as the scheduler writes them.
        exit_code: of the script, once ended by itself.
        signal: that ended the script, once ended so.
    """

    job: str
    state: str
    reason: str = ""
    node: str = ""
    exit_code: int | None = None
    signal: int | None = None

    @property
    def phase(self) -> Phase:
        """Whether it has not begun, may still do something, or never will again."""
        return state_of(self.state).phase


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a submission was not accepted.

    Attributes:
        kind: "limit" may be tried again later; "silent" had no answer, so the job may have been accepted; "mistake"
            will be refused each time.
        words: the scheduler's own, on one line.
    """

    kind: Literal["limit", "silent", "mistake"]
    words: str
