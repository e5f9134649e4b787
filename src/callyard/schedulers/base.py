"""The seam for schedulers: the protocol `Scheduler`, and the values passed between a scheduler and its client.

A scheduler is text alone: it gives the command to run and reads the answer. Nothing in its folder runs a command, looks
at a clock or opens a file, so the tests need no cluster, only answers copied from one. `SchedulerClient` runs the
commands, on a `Host`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from ..resources import Resources
from .command import Query, Reply
from .job_environment import JobVariables
from .steps import MpiPluginTexts, NodeGroup, RankOptions, Steps

__all__ = [
    "CANCELLED",
    "Configuration",
    "Dependency",
    "JobId",
    "JobRequest",
    "JobVariables",
    "Numbering",
    "Phase",
    "Query",
    "Refusal",
    "Reply",
    "Scheduler",
    "Share",
    "Site",
    "Status",
]

Phase = Literal["waiting", "running", "ended"]


# ------------------------------------------------------------------ jobs


class JobId(NamedTuple):
    """The ID of a job, or of one element of a job array.

    `str()` gives the text that people and files use: "123", "123_4".

    Attributes:
        job: the scheduler's ID of the job, or of the whole array.
        element: the number of the element; None for a job without an array, and for a whole array.
    """

    job: str
    element: int | None = None

    def __str__(self) -> str:
        return self.job if self.element is None else f"{self.job}_{self.element}"

    @staticmethod
    def parse(text: str) -> JobId:
        """Return the job with this text."""
        job, _, element = text.rpartition("_")
        return JobId(job, int(element)) if job and element.isdecimal() else JobId(text)


@dataclasses.dataclass(frozen=True)
class Dependency:
    """A job that must end first: `ok`, `any`how, or with the element of the `corresponding` number `ok`.

    A scheduler without one of these kinds may wait for more: for the end of the whole array, or for any end if
    `Site.cancels_dependents` is False.

    `elements` are the numbers of a corresponding array's elements, which may be more than those that wait.
    """

    kind: Literal["ok", "any", "corresponding"]
    job: JobId
    elements: tuple[int, ...] = ()


class Share(NamedTuple):
    """The part of a machine that the jobs of one executor may use together.

    Attributes:
        name: a word of the executor's own: jobs with the same name share this part.
        cores: the number of cores.
        gpus: the GPUs, as CUDA_VISIBLE_DEVICES names them.
        memory: the memory (bytes).
    """

    name: str
    cores: int
    gpus: tuple[str, ...]
    memory: int


@dataclasses.dataclass(frozen=True)
class JobRequest:
    """A job to be submitted.

    Attributes:
        name: the name in the scheduler's lists, unless `resources.job_name` gives another.
        token: a word unique to this submission, to find the job if the answer is lost. The scheduler's folder decides
            where the job carries it: in a comment or in its name.
        script: path of the script on the scheduler's machine: a text for bash, not executable. It expects the
            environment and the directory of the submitting command.
        log: path for stdout and stderr of the job; "{element}" in it, if it is there, stands for the element's number,
            and for 0 in a job without an array. An existing file is appended to.
        resources: the resources of each job, or of each element of the array.
        elements: None for one job, n for an array of elements 0 to n - 1, or their numbers.
        at_once: the most elements that may run at the same time; None for any number.
        time: the time limit at the scheduler (s); rounded up to its unit.
        after: jobs that must have ended first.
        after_each: for each element the jobs that must have ended first, however they ended; only for a scheduler
            whose elements are jobs of their own (`Site.separate`), which gets no `after` and no `at_once`.
        lanes: for each element the name of a lane, in which one job runs at a time; only for such a scheduler, and
            empty without a limit.
        starts_ranks: True if the scheduler's own launcher starts ranks in the job, even on one node.
        whole_nodes: True for a job with all memory of its nodes.
        node_gpus: the GPUs to ask for on each node; nodes that are asked for as a whole may have them anyway.
        requeue: True if the scheduler may start the job again after losing its node.
        templated: True if the script has directives of its own for resources, name and time; then only the options are
            added by which Callyard finds, orders and reads the job.
        options: the settings of the cluster that only this scheduler knows, by the names in its backend, as the name of
            a parallel environment.
        share: the part of the machine for this executor's jobs; only for the scheduler of one machine.
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
    after_each: tuple[tuple[JobId, ...], ...] = ()
    lanes: tuple[str, ...] = ()
    starts_ranks: bool = False
    whole_nodes: bool = False
    node_gpus: int = 0
    requeue: bool = False
    templated: bool = False
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    share: Share | None = None

    def tokens(self) -> list[str]:
        """Return the token of each job, for a scheduler whose elements are jobs of their own."""
        if self.elements is None:
            return [self.token]
        count = self.elements if isinstance(self.elements, int) else len(self.elements)
        batch, _, part = self.token.partition(".")
        first = int(part.partition("-")[0] or 0)
        return [f"{batch}.{place}-{place}" for place in range(first, first + count)]


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a job, or of one element of an array, in neutral words.

    Attributes:
        phase: "ended" only if no part of the job will ever run again. An unknown state counts as "running", so that no
            job is given up too early.
        sentence: a predicate for people, with the job as its subject: "waits for free nodes", "reached its time limit".
        error: the class of `callyard.errors` for the call of a job that ended without a result, or waits and can never
            run; None for other jobs.
        reason: the reason for waiting or ending, in the scheduler's own words; empty if it gives none.
        node: the nodes of the job, as the scheduler writes them.
        exit_code: the exit code of the script, if it ended by itself.
        signal: the signal that ended the script, if one did.
        failed_node: the node whose fault has ended the job; empty if it is another fault, or one of several nodes.
        failed_among: the nodes of a job that the fault of one of several has ended, as the scheduler writes them.
        certain: False if processes of an ended job may go on, as on a node that only the scheduler has lost. Then the
            call counts as running for as long as its process shows that it lives.
        begins: the time at which the scheduler expects a waiting job to start (s since 1970), if it says so.
    """

    phase: Phase
    sentence: str
    error: str | None = None
    reason: str = ""
    node: str = ""
    exit_code: int | None = None
    signal: int | None = None
    failed_node: str = ""
    failed_among: str = ""
    certain: bool = True
    begins: float | None = None

    @property
    def hopeless(self) -> bool:
        """True if the job waits for ever unless a person changes the job or the cluster."""
        return self.phase == "waiting" and self.error is not None


CANCELLED = Status("ended", "was cancelled", "JobCancelled")


# ------------------------------------------------------------------ schedulers


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The reason why a scheduler did not carry out a command.

    Attributes:
        kind: "limit": worth trying again later; "silent": no answer, so the job may have been accepted; "mistake":
            refused each time.
        words: the scheduler's own words, on one line; advice, if `absent` is set.
        full: True if it named a limit on the number of jobs, even if it was silent in the end: fewer may be accepted.
        large: True if it named something that no node, or not so many nodes, can give.
        absent: the beginning of a sentence about a missing scheduler; empty if there is one.
    """

    kind: Literal["limit", "silent", "mistake"]
    words: str
    full: bool = False
    large: bool = False
    absent: str = ""


class Configuration(NamedTuple):
    """A file required by every command.

    Attributes:
        path: the file.
        reply: the answer of commands without the file. Some commands give this answer only after a minute.
    """

    path: str
    reply: Reply


class Numbering(NamedTuple):
    """The numbers that the elements of an array may have.

    Attributes:
        first: the smallest number.
        gaps: True if numbers may be left out; otherwise Callyard submits an array with gaps as several arrays.
    """

    first: int = 0
    gaps: bool = True


@dataclasses.dataclass(frozen=True)
class Site:
    """Facts about a scheduler and its cluster.

    Attributes:
        program: a command that only this scheduler has; a machine without the command in PATH does not have the
            scheduler.
        array_limit: asks for the most elements of an array; 0 for a cluster without arrays.
        numbering: the numbers of elements.
        separate: True if the elements of an array are jobs of their own, each with an ID and dependencies of its own.
        daemon: True if a daemon of ours on the same machine carries out the commands, and not a program.
        inside: tells from the variables of a process if it is in an allocation or instance of the scheduler.
        environment: removes the variables of the current job or step from an environment, because commands would take
            these variables for options.
        refusal: returns the reason for a command's failure.
        job_variables: the names of the variables by which a process learns about its job. Jobs and agents receive the
            names, and so need not load the scheduler.
        configuration: returns the file required by commands, by the variables of a process; None without such a file.
        history: asks the accounting for jobs unknown to `Scheduler.status`; None for a cluster without accounting.
        forgets: True if `Scheduler.status` does not know ended jobs, so that only the history tells how they ended.
        cancels_dependents: False if a job starts although a job before it has failed, and may then be stuck, because
            its files are gone: Callyard cancels such jobs.
        had_ended: tells from a failed command of `Scheduler.cancel` that nothing was wrong but that jobs had ended.
        time_left: asks for the remaining time of jobs (s); infinity for jobs without a limit.
        nodes: asks for the nodes of a partition, or of the default partition for None.
        failed_of: asks which of these nodes have failed, by `Status.failed_among`; None where a scheduler does not say.
        steps: starts processes on the nodes of an allocation; None for a scheduler with nothing but jobs.
        mpi: the plugins by which ranks find each other, if there are several.
        is_over: tells from a launcher's messages that the job of its allocation has ended.
        rank_launcher: returns the words put before a command in a job's script to start ranks: from the number of
            ranks, the cores of each, the plugin chosen by the user, and the number of nodes, None for any number.
        ranks_on_one_node: True if that launcher also starts ranks on the node of a job with only one.
        rank_options: returns the words for the user's own wishes, which go behind those of `rank_launcher`; None where
            there are no such words.
        check: raises `ResourceError` for resources that mean nothing to the scheduler. By default all are accepted,
            although `Scheduler.submit` may drop them: `callyard.schedulers.requests.refuse_others` refuses them.
        check_live: raises `ResourceError` for resources of live calls that mean nothing to the launcher of ranks.
        requeue: returns the commands, one after the other, by which a job has itself started again later; None where
            there are none.
    """

    program: str
    array_limit: Query[int]
    environment: Callable[[Mapping[str, str]], dict[str, str]]
    refusal: Callable[[Reply], Refusal]
    job_variables: JobVariables
    numbering: Numbering = dataclasses.field(default_factory=Numbering)
    separate: bool = False
    daemon: bool = False
    inside: Callable[[Mapping[str, str]], bool] = lambda environ: False  # noqa: ARG005
    configuration: Callable[[Mapping[str, str]], Configuration | None] = lambda environ: None  # noqa: ARG005
    history: Callable[[Sequence[JobId]], Query[Mapping[JobId, Status]]] | None = None
    forgets: bool = False
    cancels_dependents: bool = True
    had_ended: Callable[[Reply], bool] = lambda reply: False  # noqa: ARG005
    time_left: Callable[[Sequence[JobId]], Query[Mapping[JobId, float]]] | None = None
    nodes: Callable[[str | None], Query[Sequence[NodeGroup]]] | None = None
    failed_of: Callable[[str], Query[Sequence[str]]] | None = None
    steps: Steps | None = None
    mpi: MpiPluginTexts | None = None
    is_over: Callable[[str], bool] = lambda text: False  # noqa: ARG005
    rank_launcher: Callable[[int, int, str | None, int | None], tuple[str, ...]] | None = None
    ranks_on_one_node: bool = True
    rank_options: Callable[[RankOptions], Sequence[str]] | None = None
    check: Callable[[Resources], None] = lambda resources: None  # noqa: ARG005
    check_live: Callable[[Resources], None] = lambda resources: None  # noqa: ARG005
    requeue: Callable[[JobId], Sequence[Sequence[str]]] | None = None


class Scheduler(Protocol):
    """The commands of a scheduler, as text.

    Another scheduler is a class with these five methods, found by the entry-point group `callyard.schedulers`.
    `callyard.schedulers.requests` has parts for its requests, such as `refuse_others` and `in_chunks`.
    """

    @property
    def name(self) -> str:
        """The scheduler's name for people.

        Batches store the name, so that another process knows the scheduler to ask.
        """

    def submit(self, request: JobRequest) -> Query[JobId | Sequence[JobId]]:
        """Return the command to submit a job or an array.

        The reader returns the ID of the job or of the whole array; if elements are jobs of their own, the ID of each,
        in the order of the request. The reader raises `SchedulerError` for an answer without a job ID, although the job
        was accepted.
        """

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
        """Return the command for the states of several jobs at once.

        The answer has an entry for each element of an array, leaves out unknown jobs, and may contain others.
        """

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        """Return the command for submissions whose tokens begin with `token`, by their tokens (`JobRequest.tokens`)."""

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        """Return the commands that cancel jobs and elements; ended ones are no error."""

    def site(self) -> Site:
        """Return the other facts about the cluster."""
