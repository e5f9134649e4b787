"""IDs of jobs and array elements as Slurm writes them: "123", "123_4", "123_[0-9,15]"."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

__all__ = ["base", "elements", "join", "ranges", "unique"]

T = TypeVar("T", bound=Hashable)
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


def base(job: str) -> str:
    """Return the job of an element: "123" for "123_4"; another job's ID is returned unchanged."""
    return job.partition("_")[0]


def unique(things: Iterable[T]) -> list[T]:
    """Return each thing once, in order of first occurrence."""
    return list(dict.fromkeys(things))


def elements(text: str) -> Iterator[int]:
    """Yield the numbers in "0-9:3,15%4"."""
    for part in text.partition("%")[0].split(","):
        if found := _RANGE.fullmatch(part):
            first, last, step = found.groups()
            yield from range(int(first), int(last or first) + 1, int(step or 1))


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers in the form read by all of Slurm's commands: "0-2,7". (`scancel` does not know steps.)"""
    ordered = sorted(set(numbers))
    starts = [n for i, n in enumerate(ordered) if i == 0 or ordered[i - 1] != n - 1]
    ends = [n for i, n in enumerate(ordered) if i + 1 == len(ordered) or ordered[i + 1] != n + 1]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def join(jobs: Iterable[str]) -> list[str]:
    """Return the same jobs with the elements of each array joined: "123_1", "123_2" as "123_[1-2]"."""
    arrays: dict[str, set[int] | None] = {}  # None: the whole array
    for job in jobs:
        name, _, element = job.partition("_")
        numbers = arrays.setdefault(name, set())
        if not element:
            arrays[name] = None
        elif numbers is not None:
            numbers.add(int(element))
    return [name if numbers is None else f"{name}_[{ranges(numbers)}]" for name, numbers in arrays.items()]
