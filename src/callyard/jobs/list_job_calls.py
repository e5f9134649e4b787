"""Queries about the calls of a cache that are jobs, from their files; the scheduler is not asked."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..cache.directory import CacheDirectory
from ..cache.entry import open_entry
from ..cache.failures import describe
from ..cache.messages import arguments_in
from ..errors import CacheError, CallyardError
from ..events.event import Failure
from .batch import CallFile, CallInput
from .call_files import follow_moves
from .find_batches import folders, folders_by_age
from .spool import ENDED, BatchDirectory, CallStart

__all__ = ["JobCallStatus", "calls_of_jobs", "find_job_calls", "needed_keys", "over_batches", "without_result"]


@dataclass(frozen=True)
class JobCallStatus:
    """A call of a batch.

    `state` is "unsent", "queued", "running", "finished", "failed" or "cancelled". Times are in s since 1970: of the
    submission, of the last start (None before), and of the end (None before).
    """

    folder: BatchDirectory
    number: int
    name: str
    id: str  # its name until the key can be made
    key: str  # "" if unknown
    state: str
    job: str | None
    node: str
    submitted: float
    began: float | None
    ended: float | None
    ingredients: Mapping[str, str]  # of the key, once the call has begun

    @property
    def known_as(self) -> str:
        return self.key or self.id

    @property
    def arguments(self) -> str:
        """The arguments in words, by the names of the parameters."""
        ingredients = self.ingredients
        if not ingredients:
            packed = self.call_file
            ingredients = {} if packed is None else packed.order.facts.get("ingredients", {})
        return arguments_in(ingredients)

    @property
    def inputs(self) -> list[CallInput]:
        """The calls whose results this one takes; none of a call that has begun, once only the failure is kept."""
        packed = self.call_file
        return [] if packed is None else [given for given in packed.inputs if given.packed is None]

    @property
    def log(self) -> str | None:
        """The output of the call so far."""
        try:
            with open(self.folder.log(self.number), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return None

    @property
    def error(self) -> tuple[BaseException, str] | None:
        """The error of a failed call, and its traceback."""
        end = self.folder.ended(self.number)
        return end.error() if end is not None and end.failure else None

    @property
    def failure(self) -> Failure | None:
        """The failure in words; the cache has those of an error whose class cannot be found here."""
        ended = self.error  # read from its file at each look
        if ended is None:
            return None
        with suppress(OSError, CacheError):
            kept = open_entry(self.folder.home.failures, self.key).failure if self.key else None
            if kept is not None:
                return kept
        error, text = ended
        return Failure(**describe(error), traceback=text)

    @property
    def call_file(self) -> CallFile | None:
        """The call as its job reads it; None of a call that has begun, once only the failure is kept."""
        try:
            return CallFile.load(self.folder.call(self.number))
        except FileNotFoundError:
            return None


def calls_of_jobs(home: CacheDirectory) -> Iterator[JobCallStatus]:
    """Yield all calls in order of submission, without ended ones that were submitted again."""
    calls = list(_all_calls(home))
    last = {call.id: place for place, call in enumerate(calls)}
    for place, call in enumerate(calls):
        if last[call.id] == place or call.state in ("unsent", "queued", "running"):
            yield call


def _all_calls(home: CacheDirectory) -> Iterator[JobCallStatus]:
    for folder in folders_by_age(home):
        try:
            yield from _calls_of(folder)
        except (OSError, CacheError) as error:  # damaged, or just being removed
            warnings.warn(f"left out: {error}", stacklevel=2)


def _calls_of(folder: BatchDirectory) -> Iterator[JobCallStatus]:
    batch, progress = folder.batch, folder.news()
    for number, place in enumerate(batch.calls):
        reached = progress.get(number)
        if reached == "superseded":
            continue
        begun = _begun(folder, number) if reached else None
        if reached == "end" and _is_moved(folder, number):
            continue
        job = folder.job_of(number)
        known = begun or CallStart(job or "", "", "")
        yield JobCallStatus(
            folder=folder, number=number, name=place.name, id=place.id, key=known.key,
            state=_state(folder, number, reached, job), job=job, node=known.node, submitted=batch.created,
            began=known.at or None, ended=folder.ended_at(number), ingredients=known.ingredients,
        )  # fmt: skip


def _is_moved(folder: BatchDirectory, number: int) -> bool:
    try:
        end = folder.ended(number)
    except (OSError, CacheError):  # damaged
        return False
    return end is not None and end.state == "moved"


def _begun(folder: BatchDirectory, number: int) -> CallStart | None:
    try:
        return folder.begun(number)
    except (OSError, CacheError):  # damaged
        return None


def _state(folder: BatchDirectory, number: int, reached: str | None, job: str | None) -> str:
    if reached == "begun":
        return "running"
    if reached is None:
        return "unsent" if job is None else "queued"
    try:
        end = folder.ended(number)
    except (OSError, CacheError):  # damaged
        return "failed"
    if end is None:
        return "running"
    return "cancelled" if end.state == "withdrawn" else end.state


def find_job_calls(home: CacheDirectory, beginning: str) -> list[JobCallStatus]:
    """Return the calls with this beginning of their key or ID."""
    return [call for call in calls_of_jobs(home) if call.id.startswith(beginning) or call.key.startswith(beginning)]


def needed_keys(home: CacheDirectory) -> set[str]:
    """Return the keys of the entries that calls still take as inputs, because their jobs have not ended."""
    needed: set[str] = set()
    for folder in folders(home):
        with suppress(OSError, ValueError, CallyardError):  # damaged, of another version, or just being removed
            progress = folder.news()
            for number in range(len(folder.batch.calls)):
                if progress.get(number) not in ENDED:
                    needed.update(_keys_of_inputs(home, CallFile.load(folder.call(number)).inputs))
    return needed


def _keys_of_inputs(home: CacheDirectory, inputs: tuple[CallInput, ...]) -> Iterator[str]:
    for given in inputs:
        key, directory = given.key, given.directory
        if not key and given.token:
            with suppress(OSError, CacheError):
                _, _, end = follow_moves(home, given.token, given.number)
                key, directory = ("", "") if end is None else (end.key, end.directory)
        if key and directory in ("", home.path):
            yield key


def over_batches(home: CacheDirectory, before: float | None, function: str | None) -> list[BatchDirectory]:
    """Return the batches that have ended and were submitted before a time, all of whose calls are of a function."""
    return [folder for folder in folders(home) if _is_meant(folder, before, function)]


def without_result(batches: Iterable[BatchDirectory]) -> list[JobCallStatus]:
    """Return the calls of these batches that have no result, and so no entry."""
    found: list[JobCallStatus] = []
    for folder in batches:
        with suppress(OSError, CacheError):
            found += [call for call in _calls_of(folder) if call.state != "finished"]
    return found


def _is_meant(folder: BatchDirectory, before: float | None, function: str | None) -> bool:
    try:
        batch, ended = folder.batch, folder.is_over()
    except (OSError, ValueError, CallyardError):
        return False
    named = function is None or {call.name for call in batch.calls} == {function}
    return ended and named and (before is None or batch.created < before)
