"""The scheduler's seam for processes on nodes: allocations, their steps, and the ranks of MPI."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from .command import Query

__all__ = ["AllocatedNode", "Allocation", "Ask", "MpiPluginTexts", "NodeKind", "RankOptions", "RankStep", "Steps"]

T = TypeVar("T")


class NodeKind(NamedTuple):
    """A group of equal nodes in a partition."""

    nodes: int
    cores: int
    memory: int  # bytes
    gpus: int


@dataclasses.dataclass(frozen=True)
class AllocatedNode:
    """One node's share of an allocation; None stands for an amount without a variable."""

    name: str  # as its own processes and people call it
    cores: int
    memory: int | None = None  # bytes
    gpus: int | tuple[str, ...] | None = None  # the number, or the names
    address: str = ""  # the word for the node in commands; empty if that is the name


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The nodes of a job.

    Attributes:
        job: the scheduler's ID of the job.
        nodes: the nodes, in the scheduler's order.
        ends: the end of the job (s since 1970), infinite without a limit; None if nothing tells.
        title: the allocation as people call it, "Slurm job 7".
        variables: variables for all processes that are started on the nodes.
    """

    job: str
    nodes: tuple[AllocatedNode, ...]
    ends: float | None = None
    title: str = ""
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Ask(Protocol):
    """The way in which a scheduler's folder has a command run."""

    def __call__(self, query: Query[T], /) -> T:
        """Run the command and return what it told.

        Raises:
            NoAnswer: it failed.
        """


class RankOptions(NamedTuple):
    """The user's wishes for the start of ranks.

    Attributes:
        cpu_bind: the binding of ranks to cores, in the scheduler's words; None for the default.
        gpu_bind: the binding of ranks to GPUs, likewise.
        arguments: more arguments of the launcher.
    """

    cpu_bind: str | None = None
    gpu_bind: str | None = None
    arguments: tuple[str, ...] = ()


class RankStep(NamedTuple):
    """The ranks of one MPI call.

    Attributes:
        nodes: the nodes; the first ones are filled first.
        size: the number of ranks.
        per_node: the most ranks on a node.
        plugin: the plugin by which the ranks find each other; empty for the cluster's default.
        job: the job of these nodes, if the command is run outside of it.
        options: the user's own.
        cores: the cores of each rank.
        gpus: the GPUs of each rank.
    """

    nodes: Sequence[str]
    size: int
    per_node: int
    plugin: str = ""
    job: str | None = None
    options: RankOptions = RankOptions()
    cores: int = 1
    gpus: int = 0


class Steps(Protocol):
    """The commands for processes on the nodes of an allocation, as text; nodes are named by their addresses."""

    @property
    def launcher(self) -> str:
        """The program that starts the processes."""

    @property
    def noise(self) -> bytes:
        """A meaningless line on the launcher's standard error, to be ignored."""

    @property
    def ended_on(self) -> Callable[[str], Sequence[str]] | None:
        """The reader of the launcher's messages: the nodes on which a process has ended while others go on.

        None for a launcher that tells of ends only when all processes have ended.
        """

    @property
    def reaches_jobs(self) -> bool:
        """True if ranks can be started on the nodes of a job from outside of it."""

    @property
    def how_to_get_one(self) -> str:
        """Words for an allocation, and the commands that give one."""

    @property
    def how_to_keep_one(self) -> str:
        """Advice for an allocation that has ended with the first of its lost nodes; empty without such advice."""

    def allocation(self, environ: Mapping[str, str], ask: Ask) -> Allocation | None:
        """Return the allocation around a process with these variables; None if there is none of its own user's.

        Raises:
            ValueError: the variables make no sense.
            SchedulerError: it is of a kind that cannot be used, or a question about it failed.
        """

    def share(self, environ: Mapping[str, str]) -> Allocation:
        """Return the allocation of a job around this process, by variables alone: this node at least.

        Raises:
            ValueError: there is none, or the variables make no sense.
        """

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment for the launcher inside an allocation, without variables that act as options."""

    def agents(self, nodes: Sequence[str] | int, command: Sequence[str]) -> list[str]:
        """Return the command to start one process on each node, with all of the job's resources there.

        Steps may overlap. When one process ends, by itself or with its node, the others go on. A number of nodes means
        all nodes of a job of that size, for the script of the job.
        """

    def ranks(self, step: RankStep, command: Sequence[str]) -> list[str]:
        """Return the command to start the ranks of an MPI call. The call ends with the first failing rank."""


@dataclasses.dataclass(frozen=True)
class MpiPluginTexts:
    """The plugins by which ranks started by a scheduler find each other.

    Attributes:
        offered: asks for the names; reads standard output and standard error, one after the other.
        order: the order of trying, from the names and the plugin that fitted last.
        advice: the rest of a message after none has fitted, from the user's choice, the plugins tried and all names.
        cluster: the name of the cluster, from the variables of a process on it; empty for a cluster without a name.
    """

    offered: Query[Sequence[str]]
    order: Callable[[Sequence[str], str | None], list[str]]
    advice: Callable[[str | None, Sequence[str], Sequence[str]], str]
    cluster: Callable[[Mapping[str, str]], str]
