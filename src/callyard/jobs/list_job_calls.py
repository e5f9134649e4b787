"""Queries about the calls of a cache that are jobs, from their files; the scheduler is not asked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from ..cache.directory import CacheDirectory
from ..errors import CacheError, CallyardError
from .spool import BatchDirectory, CallStart, folders, folders_by_age

__all__ = ["JobCallStatus", "calls_of_jobs", "find_job_calls", "prune_jobs"]


@dataclass(frozen=True)
class JobCallStatus:
    """A call of a batch. `state`: "unsent", "queued", "running", "finished", "failed" or "cancelled"."""

    folder: BatchDirectory
    number: int
    name: str
    id: str  # by which it is known before its key can be made
    key: str  # "" if that is not known
    state: str
    job: str | None
    node: str
    created: float

    @property
    def known_as(self) -> str:
        return self.key or self.id

    @property
    def log(self) -> str | None:
        """Return what it has printed so far."""
        try:
            with open(self.folder.log(self.number), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return None


def calls_of_jobs(home: CacheDirectory) -> Iterator[JobCallStatus]:
    """Yield all calls, in the order of their submission."""
    for folder in folders_by_age(home):
        try:
            yield from _calls_of(folder)
        except (OSError, CacheError) as error:  # somebody damaged it, or removes it just now
            warnings.warn(f"left out: {error}", stacklevel=2)


def _calls_of(folder: BatchDirectory) -> Iterator[JobCallStatus]:
    batch, news = folder.batch, folder.news()
    for number, place in enumerate(batch.calls):
        begun = _begun(folder, number) if number in news else None
        job = folder.job_of(number)
        state = _state(folder, number, news.get(number), job)
        begun = begun or CallStart(job or "", "", "")
        yield JobCallStatus(folder, number, place.name, place.id, begun.key, state, job, begun.node, batch.created)


def _begun(folder: BatchDirectory, number: int) -> CallStart | None:
    try:
        return folder.begun(number)
    except (OSError, CacheError):  # somebody damaged it
        return None


def _state(folder: BatchDirectory, number: int, news: str | None, job: str | None) -> str:
    if news == "begun":
        return "running"
    if news is None:
        return "unsent" if job is None else "queued"
    try:
        end = folder.ended(number)
    except (OSError, CacheError):  # somebody damaged it
        return "failed"
    if end is None:
        return "running"
    return "cancelled" if end.state == "withdrawn" else end.state


def find_job_calls(home: CacheDirectory, beginning: str) -> list[JobCallStatus]:
    """Return the calls whose key, or whose ID, begins so."""
    return [call for call in calls_of_jobs(home) if call.id.startswith(beginning) or call.key.startswith(beginning)]


def prune_jobs(home: CacheDirectory, before: float | None, function: str | None, dry_run: bool) -> int:
    """Remove the batches that have ended and were submitted before a time, with what their calls printed."""
    found = [folder for folder in folders(home) if _is_meant(folder, before, function)]
    for folder in found if not dry_run else ():
        folder.remove()
    return len(found)


def _is_meant(folder: BatchDirectory, before: float | None, function: str | None) -> bool:
    try:
        batch, news = folder.batch, folder.news()
    except (OSError, ValueError, CallyardError):
        return False
    ended = all(news.get(number) in ("end", "seen") for number in range(len(batch.calls)))
    named = function is None or {call.name for call in batch.calls} == {function}
    return ended and named and (before is None or batch.created < before)
