"""The part of a scheduler's seam that starts processes on nodes: allocations, steps in them, and the ranks of MPI."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from .command import Query

__all__ = ["AllocatedNode", "Allocation", "MpiPluginTexts", "NodeKind", "RankStep", "Steps"]


class NodeKind(NamedTuple):
    """Nodes of a partition that are alike."""

    nodes: int
    cores: int
    memory: int  # bytes
    gpus: int


@dataclasses.dataclass(frozen=True)
class AllocatedNode:
    """The share of an allocation in one node; None: its variables do not say."""

    name: str
    cores: int
    memory: int | None = None  # bytes
    gpus: int | None = None


@dataclasses.dataclass(frozen=True)
class Allocation:
    """Nodes that a job has.

    Attributes:
        job: the scheduler's name of the job.
        nodes: its nodes, in the order in which the scheduler names them.
        ends: when it ends (s since 1970); None where its variables do not say.
    """

    job: str
    nodes: tuple[AllocatedNode, ...]
    ends: float | None = None


class RankStep(NamedTuple):
    """The ranks of one MPI call.

    Attributes:
        nodes: where they run; the first nodes are filled first.
        size: how many there are.
        per_node: how many a node has at most.
        plugin: the plugin by which they find each other; empty for the cluster's default.
        job: the job that has the nodes, where that is not the one in which the command is run.
    """

    nodes: Sequence[str]
    size: int
    per_node: int
    plugin: str = ""
    job: str | None = None


class Steps(Protocol):
    """The commands that start processes on the nodes of an allocation, as text."""

    @property
    def launcher(self) -> str:
        """The program that starts them."""

    @property
    def noise(self) -> bytes:
        """A line that the launcher writes to its standard error and that means nothing."""

    def allocation(self, environ: Mapping[str, str]) -> Allocation:
        """Return the allocation in which a process with these variables runs.

        Raises:
            ValueError: it runs in none, or its variables make no sense.
        """

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables with which the launcher is run inside an allocation: those that are no options of it."""

    def agents(self, nodes: Sequence[str] | int, command: Sequence[str]) -> list[str]:
        """Return the command that starts one process on each node, which may use all that the job has there.

        Other steps run beside it, and it beside others. When one process ends, by itself or with its node, the rest
        goes on. A number stands for all nodes of a job of so many, whose script runs the command.
        """

    def ranks(self, step: RankStep, command: Sequence[str]) -> list[str]:
        """Return the command that starts the ranks of an MPI call. It ends with the first rank that fails."""

    def ended_on(self, text: str) -> list[str]:
        """Return the nodes on which a process has ended, by the text that the launcher writes."""


@dataclasses.dataclass(frozen=True)
class MpiPluginTexts:
    """The plugins by which the ranks that a scheduler starts find each other.

    Attributes:
        offered: asks for their names; the text that is read is both streams, one after the other.
        order: the order in which to try them, from their names and the one that fitted last.
        advice: the rest of a message where none has fitted, from the one that the user chose, those that were tried and
            all names.
        cluster: the name of the cluster, from the variables of a process on it; empty if it has none.
    """

    offered: Query[Sequence[str]]
    order: Callable[[Sequence[str], str | None], list[str]]
    advice: Callable[[str | None, Sequence[str], Sequence[str]], str]
    cluster: Callable[[Mapping[str, str]], str]
