"""Shapes of workers, needs of calls and capacities of nodes, in plain numbers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..schedulers.steps import RankOptions


class WorkerShape(NamedTuple):
    """What a worker must be like to run a call: calls of one shape can follow each other on one worker."""

    cores: int = 1  # in all; at least what the ranks have together
    gpus: int = 0
    memory: int = 0  # bytes; 0: not accounted
    ranks: int = 1
    cores_per_rank: int = 1
    environment: tuple[tuple[str, str], ...] = ()


class NodeNeed(NamedTuple):
    """What a call needs of several nodes: so many that each have this."""

    shape: WorkerShape
    exclusive: bool = False  # nobody else may be on them
    nodes: int = 1
    time: float = 0.0  # s for which they must still be there
    ranks_per_node: int = 0  # at most, the first nodes full; 0: all ranks are on one
    rank_options: RankOptions = RankOptions()

    @property
    def by_scheduler(self) -> bool:
        """Whether the scheduler's launcher starts the ranks, not the node's own."""
        return self.nodes > 1 or self.rank_options != RankOptions()


class NodeCapacity(NamedTuple):
    """What may be given out on a node."""

    cores: int
    gpus: tuple[str, ...] = ()
    memory: int = 0  # bytes


class NodeOffer(NamedTuple):
    """The resources to give out on a node, decided before its agent tells what is there; None: all that it finds."""

    cores: int | None = None
    gpus: int | tuple[str, ...] | None = None  # how many, or which
    memory: int | None = None  # bytes
    time: float | None = None  # s for which it is there, at most

    @property
    def gpu_count(self) -> int | None:
        return len(self.gpus) if isinstance(self.gpus, tuple) else self.gpus

    def could_hold(self, need: NodeNeed) -> bool:
        """Return whether such a call could run on the node, as far as that is known."""
        shape = need.shape
        there = ((shape.cores, self.cores), (shape.gpus, self.gpu_count), (shape.memory, self.memory))
        return all(has is None or wanted <= has for wanted, has in (*there, (need.time, self.time)))

    def of(self, found: NodeCapacity) -> NodeCapacity:
        """Return what is given out, now that the agent has found what is there."""
        gpus = self.gpus if isinstance(self.gpus, tuple) else found.gpus[: self.gpus]
        return NodeCapacity(self.cores or found.cores, gpus, found.memory if self.memory is None else self.memory)


class QueuedCall(Protocol):
    order: int  # when it was submitted, as a number

    @property
    def priority(self) -> int: ...

    @property
    def alone(self) -> bool:
        """Whether it has limits of its own: nothing is sent ahead of it or behind it."""

    def begin(self) -> bool:
        """Mark it as running; False if it was cancelled."""

    def abandoned(self) -> bool:
        """Whether it was cancelled."""

    def expected(self) -> float:
        """For how long it will run at most, in s, as far as the past tells."""
