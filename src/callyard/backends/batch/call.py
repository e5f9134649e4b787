"""A call as a job: the future, the state on the way to the scheduler, and the futures among the arguments."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ...cache.directory import CacheDirectory
from ...cache.messages import RunRequest
from ...errors import RemoteTraceback
from ...futures import Future, whole_of
from ...hashing.call_key import Reference
from ...jobs.batch import CallInput
from ...jobs.planner import ArrayElement, PlannedCall
from ...jobs.spool import BatchDirectory, CallOutcome
from ...resources import Resources
from ...serialize.function_registry import dumps
from ...status.call_status import unfinished
from ..cached.cached_future import CachedCall, CachedFuture
from .call_pickles import CallPickle

__all__ = [
    "InputSource",
    "JobCall",
    "JobFuture",
    "PackedJobError",
    "after_of",
    "cache_at",
    "call_of",
    "input_of",
    "like_of",
    "written",
]


class JobFuture(Future[Any]):
    """The future of a call that is a job. `stored` has directory and key of the result, once stored."""

    __slots__ = ("_job_id", "call", "stored")

    def __init__(self, name: str, on_cancel: Callable[[], object] | None = None) -> None:
        super().__init__(name, on_cancel)
        self._job_id: str | None = None
        self.call: JobCall | None = None  # until the end
        self.stored: tuple[str, str] | None = None

    @property
    def job_id(self) -> str | None:
        return self._job_id

    def submitted_as(self, job: str | None) -> None:
        self._job_id = job or self._job_id


class JobCall(PlannedCall):
    """A call on the way to a job, and from there back."""

    def __init__(
        self,
        future: JobFuture,
        resources: Resources,
        ticket: CachedCall | None,
        owner: Any,
        data: tuple[CallPickle, ...],
        apart: tuple[CallPickle, ...] | None,
        sources: list[Any],
        references: tuple[Reference, ...] = (),
    ) -> None:
        super().__init__(like_of(resources))
        self.future, self.resources, self.ticket = future, resources, ticket
        self.owner = owner  # the backend that has made the call
        self.data, self.apart, self.sources = data, apart, sources  # see `CallFile`; until the call is written
        self.references = references  # of a call without a ticket: the user's code that it imports
        self.awaits = tuple(map(_weakly, sources))  # the futures among the arguments, as long as others keep them
        self.entered = False  # the call can be written down
        self.followers: list[JobCall] = []  # calls to be written after this one
        self.duplicates: list[JobCall] = []  # the same call, submitted again before the writing
        self.duplicate_of: JobCall | None = None  # the first of them, for which a job is planned
        self.id = ""  # the name for other processes
        self.order: RunRequest | None = None
        self.inputs: list[CallInput | InputSource] = []
        self.directory: BatchDirectory | None = None
        self.number = 0
        self.told_attempt = 0  # the last run whose start the recorder knows
        self.ours = False  # submitted by this backend
        self.ours_before = False  # submitted by an earlier process for the same executor

    @property
    def name(self) -> str:
        return self.future.name

    def unfinished_inputs(self) -> tuple[Any, ...]:
        """Return the futures among the arguments that are not done; those that nobody keeps are left out."""
        found = (reference() for reference in self.awaits)
        return unfinished(source for source in found if source is not None)

    @property
    def job(self) -> str | None:
        return None if self.directory is None else self.directory.job_of(self.number)

    def needs(self) -> Iterator[JobCall]:
        """Yield the calls of the same executor that have not ended and are inputs of this one."""
        for source in self.sources:
            call = call_of(source, self.owner)
            if call is not None:
                yield call

    def written(self) -> None:
        """Let go of all data in the file, above all of other calls, because these would keep their results alive."""
        self.data, self.apart, self.inputs, self.sources = (), None, [], []
        self.after, self.place = (), None


def _weakly(source: Any) -> Callable[[], Any]:
    """Return a weak reference: a call that is a job must not keep the results before it alive."""
    try:
        return weakref.ref(source)
    except TypeError:  # of another library
        return _gone


def _gone() -> None:
    return None


def like_of(resources: Resources) -> str:
    """Return a text common to calls with the same resources, the candidates for one array."""
    return repr(sorted(resources.asked().items(), key=lambda item: item[0]))


class PackedJobError:
    """The packed error of a failed call; the cause of the error is the traceback in the job."""

    __slots__ = ("_end",)

    def __init__(self, end: CallOutcome) -> None:
        self._end = end

    def load(self) -> BaseException:
        error, text = self._end.error()
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))  # the class may be frozen
        return error


# -- futures among the arguments ---------------------------------------------------------------------------


class InputSource(NamedTuple):
    """A call with its result, or a part of the result, as an input of another call; see `CallInput`."""

    call: JobCall
    name: str
    path: bytes


def call_of(source: Any, owner: Any) -> JobCall | None:
    """Return the call behind a future, if it is a job in the same directory and has not ended.

    A call of another executor without a job counts as none: the scheduler could not wait for it.
    """
    source, _ = whole_of(source)
    inner = source.inner if isinstance(source, CachedFuture) else source
    call = inner.call if isinstance(inner, JobFuture) and not inner.done() else None
    if call is None or call.owner is owner:
        return call
    return call if call.owner.home.path == owner.home.path and call.job is not None else None


def after_of(call: JobCall) -> PlannedCall | ArrayElement:
    """Return the call or the array element for the scheduler to wait for."""
    if call.directory is None:
        return call.duplicate_of or call
    batch = call.directory.batch
    element = batch.element_of(call.number)
    return ArrayElement(call.directory.token, 0 if element is None else element, len(batch.of_element(element)) > 1)


def input_of(source: Any, owner: Any) -> CallInput | InputSource:
    """Return the place of a future's result for the job; a value is packed now."""
    name = getattr(source, "name", type(source).__name__)
    whole, steps = whole_of(source)
    call = call_of(whole, owner)
    if call is not None:
        return InputSource(call, name, dumps(steps) if steps else b"")
    stored = source.stored if isinstance(source, (CachedFuture, JobFuture)) else None
    if stored is not None:
        return CallInput(name, key=stored[1], directory=stored[0])
    return CallInput(name, packed=dumps(source.result()))


def written(given: CallInput | InputSource) -> CallInput:
    """Return the input in the form for the job, once the call behind it has been written, too."""
    if isinstance(given, CallInput):
        return given
    call, name, path = given
    if call.directory is not None:
        return CallInput(name, token=call.directory.token, number=call.number, path=path)
    if call.future.stored is not None:
        return CallInput(name, directory=call.future.stored[0], key=call.future.stored[1], path=path)
    return CallInput(name)  # just failed, and so has the call with this input


_caches: dict[tuple[str, str | None], CacheDirectory] = {}


def cache_at(directory: str, trust: str | None) -> CacheDirectory:
    """Return the cache with a result; there is one object for each."""
    found = _caches.get((directory, trust))
    if found is None:
        found = _caches[directory, trust] = CacheDirectory.open(directory, trust="group" if trust else None)
    return found
