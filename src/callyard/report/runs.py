"""The runs that a file of events or a cache tells of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..cache.entry import Entry
from ..errors import CacheError, CallyardError
from ..events.call_record import CallRecord, RunRecord
from ..events.event import Failure, Usage
from ..result_cache import Cache
from ..utils.paths import expand

__all__ = ["run_of_entries", "runs_at"]


def runs_at(source: str, cache: Cache | None = None) -> list[RunRecord]:
    """Return the runs, in the order of the file.

    Args:
        source: a file of events, or the directory of a cache, which gives one run with a call for each entry.
        cache: the cache in that directory, if it has been opened already.

    Raises:
        CallyardError: there is nothing of the kind.
        OSError: it cannot be read.
    """
    path = Path(expand(source))
    if not path.is_dir():
        return _read(path)
    entries = run_of_entries(cache if cache is not None else Cache(path, mode="read-only"))
    if not entries.calls:
        raise CallyardError(f"there is no stored call in {os.fspath(path)}")
    return [entries]


def _read(path: Path) -> list[RunRecord]:
    try:
        runs = RunRecord.read(path)
    except ValueError as error:  # also a file that is no text
        raise CallyardError(f"this is no file of events: {error}") from None
    if not runs:
        raise CallyardError(f"there is no event in {path}")
    return runs


def run_of_entries(entries: Iterable[Entry]) -> RunRecord:
    """Return a run with a call for each entry: what a cache knows, which is less than events tell."""
    run = RunRecord()
    for number, entry in enumerate(entries):
        run.calls[number] = _call(number, entry)
    return run


def _call(number: int, entry: Entry) -> CallRecord:
    begin = entry.created.timestamp()
    call = CallRecord(number, entry.function, begin, "failed" if entry.state == "failed" else "finished")
    call.key, call.started, call.ended = entry.key, begin, begin + entry.seconds
    call.usage = Usage(entry.seconds)
    try:
        call.asked, call.host = entry.resources, entry.host or ""
        if entry.state == "failed":
            error = entry.error
            call.failure = Failure(type(error).__name__, str(error), entry.traceback or "")
    except CacheError:  # removed meanwhile, or an error that cannot be made in this process
        pass
    return call
