"""The reasons for which calls wait, in words that go on from "waits": by their needs, and by what is free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..utils.quantities import calls, counted
from .call_shape import Queued, WorkerShape

__all__ = ["FreeResources", "calls_before", "missing", "reason"]

_GIB = 1 << 30


class FreeResources(NamedTuple):
    """What could be given to a call now. `workers`: the number of calls that may begin; None for any number."""

    cores: int
    gpus: int
    memory: int  # bytes
    workers: int | None = None


def missing(shape: WorkerShape, free: FreeResources) -> list[str]:
    """Return what a call of this shape waits for, as ["2 GPUs", "memory"]; nothing if all of it is free."""
    lacks = []
    if free.gpus < shape.gpus:
        lacks.append("a GPU" if shape.gpus == 1 else counted(shape.gpus, "GPU"))
    if free.memory < shape.memory:
        lacks.append(f"{shape.memory / _GIB:.3g} GiB of memory")
    if free.cores < shape.cores:
        lacks.append("a core" if shape.cores == 1 else counted(shape.cores, "core"))
    if not lacks and free.workers is not None and free.workers < 1:
        lacks.append("one of the running calls to end (max_workers)")
    return lacks


def calls_before(call: Queued, waiting: Iterable[Queued]) -> int:
    """Return the number of waiting calls that have their turn before this one."""
    mine = (-call.priority, call.order)
    return sum(1 for other in waiting if (-other.priority, other.order) < mine and not other.abandoned())


def reason(lacks: Sequence[str], before: int, otherwise: str = "its turn") -> str:
    """Return the words: what is lacking, or something else, and how many calls have their turn before."""
    thing = " and ".join(lacks) or otherwise
    behind = f"; {calls(before)} {'is' if before == 1 else 'are'} before it" if before else ""
    return f"for {thing}{behind}"
