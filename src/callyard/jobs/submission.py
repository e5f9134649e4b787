"""The request to a scheduler for a batch, made from the batch's files alone, so that any process can submit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import ResourceError
from ..hashing.digest import blake2b
from ..resources import Resources
from ..schedulers.base import Dependency, JobId, JobRequest, Share
from ..utils.lite_stdlib import json_dumps, json_loads
from ..utils.paths import runs_directory
from .batch import BatchPart
from .find_batches import folders_by_age
from .planner import ArrayDependency
from .spool import BatchDirectory

__all__ = [
    "check_text",
    "is_behind",
    "is_ready",
    "job_time",
    "label",
    "next_part",
    "note_of",
    "parts_of",
    "request_of",
    "trial_of",
]

_MARGIN = 60.0  # s for a job besides the calls
Known = Mapping[str, BatchDirectory]  # by their tokens
_NONE: Known = {}


def job_time(run_time: float, grace: float, calls: int) -> float:
    """Return the scheduler's limit for a job with so many calls of `run_time` each, and then their `grace` (s)."""
    return (run_time + grace) * calls + _MARGIN


def note_of(
    name: str,
    resources: Resources,
    at_once: int | None,
    limit: float | None,
    templated: bool,
    after: tuple[ArrayDependency, ...],
    after_each: Sequence[Sequence[ArrayDependency]] = (),
    lanes: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
    *,
    starts_ranks: bool = False,
    share: Share | None = None,
) -> dict[str, Any]:
    """Return the request as JSON; arrays that must come first are named by their tokens."""
    return {
        "name": name,
        "resources": {key: _plain(value) for key, value in resources.asked().items() if key not in resources.others},
        "at_once": at_once,
        "time": limit,
        "templated": templated,
        "after": after,
        "after_each": after_each,
        "lanes": lanes,
        "starts_ranks": starts_ranks,
        "options": dict(options or {}),
        "share": share,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (str, int, float)) or value is None:
        return value
    return dict(value) if hasattr(value, "keys") else list(value)


def is_ready(folder: BatchDirectory) -> bool:
    """Return True if all batches for which the scheduler must wait were submitted, or are over."""
    others = [BatchDirectory(folder.home, token) for token in folder.batch.waited_for()]
    mine = folder.batch.created, folder.token
    others += [other for other in _beside(folder) if (other.batch.created, other.token) < mine]  # in a fixed order
    return all(not os.path.exists(other.path) or other.unsent is None or other.is_over() for other in others)


def is_behind(folder: BatchDirectory) -> bool:
    """Return True for a successor under a limit (`max_workers`), which begins behind all batches under that limit."""
    return bool(folder.batch.request.get("behind"))


def _beside(folder: BatchDirectory) -> list[BatchDirectory]:
    """Return the batches behind which a successor begins."""
    if not is_behind(folder):
        return []
    name, found = folder.batch.request["throttle"], folders_by_age(folder.home, {folder.token})
    return [other for other in found if other.batch.request.get("throttle") == name and not other.is_over()]


def next_part(folder: BatchDirectory, most: int | None, known: Known = _NONE, *, gaps: bool = True) -> BatchPart | None:
    """Return the elements to submit next: at most `most`, and such as one request can ask for.

    Without `gaps`, a request has no numbers with others left out between them.
    """
    part, elements = folder.unsent, folder.batch.elements
    if part is None or elements is None:
        return part
    end = part.end if most is None else min(part.end, part.first + most)
    if not gaps:
        end = part.first + _in_a_row(elements[part.first : end])
    for kind, token, _ in folder.batch.request["after"]:
        if kind == "corresponding":
            end = min(end, part.first + _together(_other(folder, token, known), elements[part.first : end]))
    return BatchPart(part.first, end)


def _other(folder: BatchDirectory, token: str, known: Known) -> BatchDirectory:
    """Return another batch. A batch in `known` need not be read again."""
    return known.get(token) or BatchDirectory(folder.home, token)


def _in_a_row(elements: Sequence[int]) -> int:
    """Return the number of the first elements whose numbers follow one another."""
    return next((place for place, element in enumerate(elements) if element != elements[0] + place), len(elements))


def _together(other: BatchDirectory, elements: Sequence[int]) -> int:
    """Return the number of the first elements whose counterparts are in one job."""
    jobs = [_array_of(other, element) for element in elements]
    return next((place for place, job in enumerate(jobs) if job != jobs[0]), len(jobs))


def _parts(folder: BatchDirectory) -> list[BatchPart]:
    try:
        return folder.parts
    except FileNotFoundError:  # over and removed
        return []


def _job_of_element(folder: BatchDirectory, element: int) -> str | None:
    try:
        return folder.job_of(folder.batch.of_element(element)[0])
    except FileNotFoundError:
        return None


def _array_of(folder: BatchDirectory, element: int) -> str | None:
    job = _job_of_element(folder, element)
    return None if job is None else JobId.parse(job).job


def request_of(folder: BatchDirectory, part: BatchPart, known: Known = _NONE) -> JobRequest:
    """Return the request, without dependencies that were never submitted or are over."""
    batch = folder.batch
    asked = batch.request
    resources = Resources().updated(asked["resources"])
    elements = batch.elements and batch.elements[part.first : part.end]
    named = [(_other(folder, token, known), kind, number) for kind, token, number in asked["after"]]
    return JobRequest(
        name=asked["name"],
        token=label(folder, part),
        script=f"{_plain_path(folder.path)}/script",
        log=_log(folder),
        resources=resources,
        elements=elements,
        at_once=asked["at_once"],
        time=asked["time"],
        after=(
            *(found for other, kind, number in named for found in _dependencies(elements, other, kind, number)),
            *_parts_before(folder, part),
            *(found for other in _beside(folder) for found in _dependencies(None, other, "any", None)),
        ),
        after_each=tuple(
            _jobs_before(folder, each, known) for each in asked.get("after_each", ())[part.first : part.end]
        ),
        lanes=tuple(asked.get("lanes", ())[part.first : part.end]),
        starts_ranks=asked.get("starts_ranks", False),
        requeue=resources.restart_limit > 0,
        templated=asked["templated"],
        options=asked.get("options", {}),
        share=_share(asked.get("share")),
    )


def _share(noted: Sequence[Any] | None) -> Share | None:
    if noted is None:
        return None
    name, cores, gpus, memory = noted
    return Share(name, cores, tuple(gpus), memory)


def trial_of(
    resources: Resources, limit: float | None, templated: bool, options: Mapping[str, str] | None = None
) -> JobRequest:
    """Return a request as if written and read again, for a trial of making the command.

    Raises:
        ResourceError: a text cannot be passed on.
    """
    for name, value in resources.asked().items():
        for text in _texts(value):
            check_text(name, text)
    note = json_loads(json_dumps(note_of("call", resources, None, limit, templated, ())))
    asked = Resources().updated(note["resources"])
    return JobRequest(
        "call", "0" * 16, "/script", "/0.log", asked, time=limit, templated=templated, options=options or {}
    )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, os.PathLike):
        yield os.fspath(value)
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from (text for each in value for text in _texts(each))


def check_text(name: str, text: str) -> None:
    """Raise ResourceError for a text that no command, script or path can have."""
    try:
        if "\0" not in text:
            os.fsencode(text)
            return
        problem = "has a character of the number 0 in it"
    except UnicodeEncodeError:
        problem = "has a character in it that this system's encoding lacks"
    raise ResourceError(f"{name} {problem}, with which no job can be asked for: {text!r}; leave that out")


def _dependencies(
    elements: Sequence[int] | None, other: BatchDirectory, kind: Any, number: int | None
) -> list[Dependency]:
    if not os.path.exists(other.path):
        return []
    if kind == "corresponding" and elements:
        job = _array_of(other, elements[0])  # common to all of them
        return [] if job is None else [Dependency(kind, JobId.parse(job), _elements_of(other, job))]
    if number is not None:
        jobs = [_job_of_element(other, number)]
    else:
        jobs = [job for part in _parts(other) for job in part.jobs]
    return [Dependency(kind, JobId.parse(job)) for job in jobs if job is not None]


def _elements_of(other: BatchDirectory, job: str) -> tuple[int, ...]:
    """Return the numbers of the elements that are in one array of a batch."""
    elements = other.batch.elements or ()
    return next((elements[part.first : part.end] for part in _parts(other) if part.job == job), ())


def _jobs_before(folder: BatchDirectory, named: Sequence[tuple[str, str, int]], known: Known) -> tuple[JobId, ...]:
    """Return the jobs for which one element waits."""
    others = [(_other(folder, token, known), number) for _, token, number in named]
    return tuple(found.job for other, number in others for found in _dependencies(None, other, "any", number))


def _parts_before(folder: BatchDirectory, part: BatchPart) -> Iterator[Dependency]:
    """Yield the other parts of a throttled batch: the scheduler counts only the elements of one job."""
    at_once = folder.batch.request["at_once"]
    if at_once is not None and at_once < folder.batch.size:
        yield from (Dependency("any", JobId.parse(other.job)) for other in folder.parts if other != part)


def label(folder: BatchDirectory, part: BatchPart) -> str:
    """Return the word for finding a submission: the token, and for a part its elements."""
    return folder.token if part.end - part.first == folder.batch.size else f"{folder.token}.{part.name}"


def parts_of(folder: BatchDirectory, found: Mapping[str, str]) -> list[BatchPart]:
    """Return the parts of a batch that a scheduler has, from all jobs with labels beginning with the token."""
    names = {word.partition(".")[2]: job for word, job in found.items()}
    if folder.batch.request.get("after_each") and folder.batch.elements is not None:  # each element is a job
        return _joined(BatchPart.from_name(name, f"{job},") for name, job in names.items())
    return [
        BatchPart.from_name(name, job) if name else BatchPart(0, folder.batch.size, job) for name, job in names.items()
    ]


def _joined(elements: Iterable[BatchPart]) -> list[BatchPart]:
    """Return few parts of elements that are jobs of their own."""
    parts: list[BatchPart] = []
    for element in sorted(elements, key=lambda part: part.first):
        if parts and parts[-1].end == element.first:
            parts[-1] = BatchPart(parts[-1].first, element.end, parts[-1].job + element.job)
        elif not parts or parts[-1].end < element.first:  # one that was submitted twice counts once
            parts.append(element)
    return parts


def _log(folder: BatchDirectory) -> str:
    """Return the path of the output of a job. Several calls of one job write to their own files."""
    place = _plain_path(folder.path)
    if folder.batch.elements is None:
        return f"{place}/{os.path.basename(folder.log(0))}"
    return f"{place}/{{element}}.{'log' if folder.batch.calls_per_job == 1 else 'job'}"


# Slurm's and LSF's backslash, Flux's braces, Grid Engine's variables, hosts before a colon, lists of paths.
_MEANINGFUL = ("\\", "{{", "$", ":", ",")


def _plain_path(path: str) -> str:
    """Return another name of the same directory: in the path of a log schedulers give some characters a meaning."""
    if not any(text in path for text in _MEANINGFUL):
        return path
    home, name = os.path.split(path)
    link = os.path.join(runs_directory(), "links", blake2b(home.encode(), digest_size=16).hexdigest())
    os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink(home, link)
    return f"{link}/{name}"
