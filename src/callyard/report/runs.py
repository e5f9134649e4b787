"""The runs that a file of events or a cache tells of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..cache.entry import Entry
from ..errors import CacheError, CallyardError
from ..events.call_record import CallRecord, CallState, RunRecord
from ..events.usage import Usage
from ..jobs.list_job_calls import JobCallStatus, calls_of_jobs
from ..result_cache import Cache
from ..utils.paths import expand

__all__ = ["run_of_cache", "runs_at"]

_WANTED = "name a file that an executor with events= has written, or the directory of a cache"
_STATES: Mapping[str, CallState] = {  # of jobs
    "unsent": "waiting",
    "queued": "waiting",
    "running": "running",
    "failed": "failed",
    "cancelled": "cancelled",
}


def runs_at(source: str, cache: Cache | None = None) -> list[RunRecord]:
    """Return the runs, in the order of the file.

    Args:
        source: a file of events, or the directory of a cache, which gives one run of entries and jobs.
        cache: the cache in that directory, if it has been opened already.

    Raises:
        CallyardError: there is nothing of the kind.
        OSError: it cannot be read.
    """
    path = Path(expand(source))
    if not path.is_dir():
        return _read(path)
    run = run_of_cache(cache if cache is not None else Cache(path, mode="read-only"))
    if not run.calls:
        raise CallyardError(f"there is no stored call in {os.fspath(path)}")
    return [run]


def _read(path: Path) -> list[RunRecord]:
    try:
        runs = RunRecord.read(path)
    except ValueError as error:
        raise CallyardError(f"{error}; {_WANTED}") from None
    except FileNotFoundError:
        raise CallyardError(f"there is no {os.fspath(path)!r}: {_WANTED}") from None
    if not runs:
        raise CallyardError(f"there is no event in {path}")
    return runs


def run_of_cache(cache: Cache) -> RunRecord:
    """Return a run with a call for each entry, and for each job without one: less than events tell."""
    run, numbers = RunRecord(), dict[str, int]()
    for number, entry in enumerate(cache):  # the oldest first, so that inputs come before what they are inputs of
        run.calls[number] = _call(number, entry, numbers)
        numbers[entry.key] = number
    others = (call for call in calls_of_jobs(cache._directory) if call.state in _STATES and call.key not in numbers)
    for number, job in enumerate(others, len(numbers)):
        run.calls[number] = _call_of_job(number, job)
    return run


def _call(number: int, entry: Entry, numbers: Mapping[str, int]) -> CallRecord:
    """Return the call of an entry; `numbers`: those of the calls before, by their keys."""
    begin = entry.created.timestamp()
    call = CallRecord(number, entry.function, begin, "failed" if entry.state == "failed" else "finished")
    call.key, call.started, call.ended = entry.key, begin, begin + entry.seconds
    call.usage = Usage(entry.seconds)
    with suppress(CacheError):  # removed meanwhile, or an error that cannot be made in this process
        call.asked, call.host = entry.resources, entry.host or ""
        call.usage = entry.usage or call.usage
        call.inputs = tuple(numbers[key] for key in entry.inputs if key in numbers)
        call.failure = entry.failure
    return call


def _call_of_job(number: int, job: JobCallStatus) -> CallRecord:
    """Return a call without an entry: one that has not ended, or whose process could not store its failure."""
    call = CallRecord(number, job.name, job.submitted, _STATES[job.state], asked=dict(job.folder.batch.resources))
    call.key, call.job_id, call.host = job.key or None, job.job, job.node
    call.started, call.ended = job.began, job.ended
    call.failure = job.failure
    return call
