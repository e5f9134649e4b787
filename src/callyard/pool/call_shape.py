"""Shapes of workers, needs of calls and capacities of nodes, in plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ..schedulers.steps import RankOptions


class WorkerShape(NamedTuple):
    """The properties of a worker. Calls of one shape can follow each other on one worker."""

    cores: int = 1  # of the worker as a whole; at least those of all ranks
    gpus: int = 0
    memory: int = 0  # bytes; 0: no limit, and not counted
    ranks: int = 1
    cores_per_rank: int = 1
    environment: tuple[tuple[str, str], ...] = ()


class NodeNeed(NamedTuple):
    """The need of a call on a cluster: a number of nodes, each with room for the shape."""

    shape: WorkerShape
    exclusive: bool = False  # no other call may be on the nodes
    nodes: int = 1
    time: float = 0.0  # s for which the nodes must still be there
    ranks_per_node: int = 0  # at most; the first nodes are full; 0: all ranks are on one node
    rank_options: RankOptions = RankOptions()
    kind: int = 0  # the number of the kind of nodes

    @property
    def by_scheduler(self) -> bool:
        """True if the scheduler's launcher starts the ranks, not the node's own."""
        return self.nodes > 1 or self.rank_options != RankOptions()


class NodeCapacity(NamedTuple):
    """The resources to give out on a node."""

    cores: int
    gpus: tuple[str, ...] = ()
    memory: int = 0  # bytes


class NodeOffer(NamedTuple):
    """The resources to give out on a node, as decided before the agent has looked; None: all that the agent finds."""

    cores: int | None = None
    gpus: int | tuple[str, ...] | None = None  # the number, or the names
    memory: int | None = None  # bytes
    time: float | None = None  # s until the end of the node, at most

    @property
    def gpu_count(self) -> int | None:
        return len(self.gpus) if isinstance(self.gpus, tuple) else self.gpus

    def could_hold(self, need: NodeNeed) -> bool:
        """Return True if the call could run on the node, as far as known."""
        shape = need.shape
        there = ((shape.cores, self.cores), (shape.gpus, self.gpu_count), (shape.memory, self.memory))
        return all(has is None or wanted <= has for wanted, has in (*there, (need.time, self.time)))

    def of(self, found: NodeCapacity) -> NodeCapacity:
        """Return the resources to give out, after the agent has found the machine's."""
        gpus = self.gpus if isinstance(self.gpus, tuple) else found.gpus[: self.gpus]
        return NodeCapacity(self.cores or found.cores, gpus, found.memory if self.memory is None else self.memory)


class KindOffer(NamedTuple):
    """The nodes of one kind, as known before any agent tells.

    Attributes:
        nodes: the nodes that may be there at once; empty if nothing is known of them.
        words: the words by which the scheduler is asked for them, as their partition; None if they are there already.
        label: a few words for people.
    """

    nodes: Sequence[NodeOffer]
    words: Mapping[str, object] | None = None
    label: str = ""


class Queued(Protocol):
    order: int  # the number of its submission

    @property
    def priority(self) -> int: ...

    def abandoned(self) -> bool:
        """Return True if it was cancelled."""


class QueuedCall(Queued, Protocol):
    @property
    def alone(self) -> bool:
        """True for a call with limits of its own: no call is sent ahead of it or behind."""

    def begin(self) -> bool:
        """Mark the call as running; return False if it was cancelled."""

    def expected(self) -> float:
        """Return the likely duration in s, by the recent calls of the function."""
