"""Parts of requests that several schedulers share: the name of a job, its elements, and the keys that mean nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..errors import ResourceError
from ..resources import Resources
from .base import JobId, JobRequest

__all__ = [
    "COMMON",
    "by_array",
    "elements_of",
    "in_chunks",
    "path_without",
    "plain_name",
    "refuse_others",
    "whole_seconds",
]

_NAME_LENGTH = 64
# The keys that any scheduler of single jobs can honour, or that the job itself honours.
COMMON = frozenset(
    [
        *("ranks", "cores_per_rank", "gpus_per_rank", "memory", "run_time", "cwd", "env", "error_log_file", "grace"),
        *("warn_before", "warn_signal", "queue", "account", "job_name", "cache_key", "cache_directory"),
    ]
)


def plain_name(request: JobRequest, length: int = _NAME_LENGTH) -> str:
    """Return the user's own name unchanged; a function's name, such as "<lambda>", without special characters.

    What is left begins with a letter, as some schedulers want it.
    """
    if request.resources.job_name:
        return request.resources.job_name
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", request.name).strip("_")
    return re.sub(r"^(?![A-Za-z])", "call_", name)[:length].rstrip("_") or "call"


def refuse_others(scheduler: str, resources: Resources, meant: Iterable[str], instead: Mapping[str, str]) -> None:
    """Raise ResourceError for resources that mean nothing to a scheduler; those of a template are the user's own."""
    known = {*meant, *resources.others}
    for name in resources.asked():
        if name not in known:
            raise ResourceError(f"{name} means nothing to {scheduler}: {instead.get(name, 'it has no such thing')}")


def path_without(characters: str, path: str, scheduler: str) -> str:
    """Return the path of a log; raise ResourceError if a scheduler would take a part of the path for something else."""
    found = next((each for each in characters if each in path), None)
    if found is not None:
        raise ResourceError(
            f"{scheduler} cannot write a log to {path}: {found!r} means something else to it there; name a cache "
            "whose path has no such character"
        )
    return path


def whole_seconds(seconds: float) -> int:
    """Return seconds, rounded up; never 0, which a scheduler may take for no limit."""
    return max(1, math.ceil(seconds))


def elements_of(request: JobRequest) -> Sequence[int]:
    """Return the numbers of an array's elements; none for a single job."""
    return range(request.elements) if isinstance(request.elements, int) else request.elements or ()


def by_array(jobs: Iterable[JobId]) -> dict[str, list[int]]:
    """Return the numbers of the named elements of each array; none for a job as a whole."""
    found: dict[str, set[int] | None] = {}
    for job, element in jobs:
        numbers = found.setdefault(job, set())
        if element is None:
            found[job] = None
        elif numbers is not None:
            numbers.add(element)
    return {job: sorted(numbers or ()) for job, numbers in found.items()}


def in_chunks(words: Sequence[str], room: int = 50_000) -> Iterator[list[str]]:
    """Yield words in groups, each short enough for one command line."""
    group, size = list[str](), 0
    for word in words:
        if group and size + len(word) > room:
            yield group
            group, size = [], 0
        group.append(word)
        size += len(word) + 1
    if group:
        yield group
