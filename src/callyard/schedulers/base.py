"""The seam for schedulers: the protocol `Scheduler`, and the values that go through it.

A scheduler is text alone: it says which command to run and how to read the answer. Nothing in its folder runs a
command, looks at a clock or opens a file, so all of it can be tested with answers that were copied from a cluster.
`SchedulerClient` runs the commands, on a `Host`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from ..resources import Resources
from .command import Query, Reply
from .job_environment import JobVariables
from .steps import MpiPluginTexts, NodeKind, Steps

__all__ = [
    "CANCELLED",
    "Configuration",
    "Dependency",
    "JobId",
    "JobRequest",
    "JobVariables",
    "Phase",
    "Query",
    "Refusal",
    "Reply",
    "Scheduler",
    "Site",
    "Status",
]

Phase = Literal["waiting", "running", "ended"]


# ------------------------------------------------------------------ jobs


class JobId(NamedTuple):
    """The name of a job, or of one element of a job array.

    `str()` is its text, as people read it and as files keep it: "123", "123_4".

    Attributes:
        job: the scheduler's name of the job, or of the whole array.
        element: the number of the element; None for a job that is no array, and for all of an array.
    """

    job: str
    element: int | None = None

    def __str__(self) -> str:
        return self.job if self.element is None else f"{self.job}_{self.element}"

    @staticmethod
    def parse(text: str) -> JobId:
        """Return the job that has this text."""
        job, _, element = text.rpartition("_")
        return JobId(job, int(element)) if job and element.isdecimal() else JobId(text)


@dataclasses.dataclass(frozen=True)
class Dependency:
    """A job that must have ended first: `ok`, `any`how, or its element of the `corresponding` number `ok`."""

    kind: Literal["ok", "any", "corresponding"]
    job: JobId


@dataclasses.dataclass(frozen=True)
class JobRequest:
    """A job to be submitted.

    Attributes:
        name: what people see in the scheduler's lists, unless `resources.job_name` says otherwise.
        token: names this submission and no other, so that it can be found if the answer is lost. The scheduler's
            folder decides where the job carries it, as a comment or in its name.
        script: path of the script, as the scheduler's machine sees it.
        log: path of what the job writes to stdout and stderr; "{element}" in it stands for the element's number.
        resources: what each job, or each element of the array, gets.
        elements: None for one job, n for an array of elements 0 to n - 1, or their numbers.
        at_once: how many elements may run at the same time; None for any number.
        time: the scheduler's own limit (s); rounded up to its unit.
        after: jobs that must have ended first.
        whole_nodes: it gets all memory of its nodes.
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
    whole_nodes: bool = False
    requeue: bool = False
    templated: bool = False


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a job, or of one element of an array, in words that are no scheduler's own.

    Attributes:
        phase: "ended" only if nothing of the job will ever run again. A state that a scheduler's folder does not know
            counts as "running", so that no job is given up too early.
        sentence: for people; its subject is the job: "waits for free nodes", "reached its time limit".
        error: the class of `callyard.errors` for a call whose job ended so without a result, or waits and can never
            run; None for a job that goes on, or should have left a result.
        reason: why it waits or ended, in the scheduler's own words; empty if it gives none.
        node: the nodes it is or was on, as the scheduler writes them.
        exit_code: of the script, once ended by itself.
        signal: that ended the script, once ended so.
    """

    phase: Phase
    sentence: str
    error: str | None = None
    reason: str = ""
    node: str = ""
    exit_code: int | None = None
    signal: int | None = None

    @property
    def hopeless(self) -> bool:
        """Whether the job waits for what will never come, unless somebody changes the job or the cluster."""
        return self.phase == "waiting" and self.error is not None


CANCELLED = Status("ended", "was cancelled", "JobCancelled")


# ------------------------------------------------------------------ schedulers


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a scheduler did not do what it was asked.

    Attributes:
        kind: "limit" may be tried again later; "silent" had no answer, so the job may have been accepted; "mistake"
            will be refused each time.
        words: the scheduler's own, on one line; what to do, if it is `absent`.
        full: it named a limit on how many jobs there may be, even if it was silent in the end: fewer may be taken.
        absent: that there is no such scheduler here, as the beginning of a sentence; empty if there is one.
    """

    kind: Literal["limit", "silent", "mistake"]
    words: str
    full: bool = False
    absent: str = ""


class Configuration(NamedTuple):
    """A file without which no command works.

    Attributes:
        path: the file.
        reply: the answer that commands give where it is missing, some of them only after a minute.
    """

    path: str
    reply: Reply


@dataclasses.dataclass(frozen=True)
class Site:
    """Facts about a scheduler, and about the cluster that it manages.

    Attributes:
        program: the command that submits jobs: where it is not in PATH, there is no such scheduler.
        array_limit: asks how many elements an array may have; 0 if there are no arrays.
        environment: takes the variables of a process and leaves out those of the job or step in which it runs. A
            command that got them would take them for options.
        refusal: says why a command did not succeed.
        job_variables: the names of the variables by which a process of a job learns of that. They are passed on to jobs
            and agents, so these need not load the scheduler.
        configuration: finds, in the variables of a process, the file that commands need; None if they need none.
        history: asks for jobs that `Scheduler.status` has forgotten, where somebody keeps that.
        time_left: asks for how long jobs may go on (s); infinity for those without a limit.
        nodes: asks what the nodes of a partition have, or without one those of the cluster's default.
        steps: starts processes on the nodes of an allocation; None where only jobs can be had.
        mpi: the plugins by which ranks find each other, if there are several.
        rank_launcher: the words before a command in a job's script that start it as so many ranks, each with so many
            cores, by the plugin that the user chose.
    """

    program: str
    array_limit: Query[int]
    environment: Callable[[Mapping[str, str]], dict[str, str]]
    refusal: Callable[[Reply], Refusal]
    job_variables: JobVariables
    configuration: Callable[[Mapping[str, str]], Configuration | None] = lambda environ: None  # noqa: ARG005
    history: Callable[[Sequence[JobId]], Query[Mapping[JobId, Status]]] | None = None
    time_left: Callable[[Sequence[JobId]], Query[Mapping[JobId, float]]] | None = None
    nodes: Callable[[str | None], Query[Sequence[NodeKind]]] | None = None
    steps: Steps | None = None
    mpi: MpiPluginTexts | None = None
    rank_launcher: Callable[[int, int, str | None], tuple[str, ...]] | None = None


class Scheduler(Protocol):
    """The commands of a scheduler, as text.

    Another scheduler is a class with these five methods, found by the entry-point group `callyard.schedulers`.
    """

    @property
    def name(self) -> str:
        """What people call it. Files of batches keep it, so that another process knows whom to ask."""

    def submit(self, request: JobRequest) -> Query[JobId]:
        """Return the command that submits a job or an array.

        Its reader raises `SchedulerError` where the job was taken and its name cannot be read.
        """

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
        """Return the command that asks about jobs, all at once.

        The answer has an entry for each element of an array; jobs that are not known are left out of it, and there may
        be others in it.
        """

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        """Return the command that looks for submissions whose tokens begin with this one, by their tokens."""

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        """Return the commands that cancel jobs and elements; those that have ended are no error."""

    def site(self) -> Site:
        """Return the facts about the cluster that the commands above do not tell."""
