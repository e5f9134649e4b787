"""Jobs and elements of arrays as Slurm writes them: "123", "123_4", "123_[0-9,15]"."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

__all__ = ["base", "elements", "join", "ranges", "unique"]

T = TypeVar("T", bound=Hashable)
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


def base(job: str) -> str:
    """The job that an element is of: "123" of "123_4"; a job that is no array is its own."""
    return job.partition("_")[0]


def unique(things: Iterable[T]) -> list[T]:
    """Each once, in the order of the first."""
    return list(dict.fromkeys(things))


def elements(text: str) -> Iterator[int]:
    """Yield the numbers in "0-9:3,15%4"."""
    for part in text.partition("%")[0].split(","):
        if found := _RANGE.fullmatch(part):
            first, last, step = found.groups()
            yield from range(int(first), int(last or first) + 1, int(step or 1))


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as all of Slurm's commands take them; `scancel` knows no steps: "0-2,7"."""
    ordered = sorted(set(numbers))
    starts = [n for i, n in enumerate(ordered) if i == 0 or ordered[i - 1] != n - 1]
    ends = [n for i, n in enumerate(ordered) if i + 1 == len(ordered) or ordered[i + 1] != n + 1]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def join(jobs: Iterable[str]) -> list[str]:
    """The same jobs with all elements of an array in one: "123_1", "123_2" as "123_[1-2]"."""
    arrays: dict[str, set[int] | None] = {}  # None: all of it
    for job in jobs:
        name, _, element = job.partition("_")
        numbers = arrays.setdefault(name, set())
        if not element:
            arrays[name] = None
        elif numbers is not None:
            numbers.add(int(element))
    return [name if numbers is None else f"{name}_[{ranges(numbers)}]" for name, numbers in arrays.items()]
