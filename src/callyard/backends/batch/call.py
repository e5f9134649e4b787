"""Futures of calls that are jobs, and what is known of a call until it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...cache.messages import RunRequest
from ...errors import RemoteTraceback
from ...futures import Future
from ...jobs.call_file import CallInput
from ...jobs.planner import PlannedCall
from ...jobs.spool import BatchDirectory, CallOutcome
from ...resources import Resources
from ..cached.future import CachedCall

if TYPE_CHECKING:
    from .inputs import InputSource

__all__ = ["JobCall", "JobFuture", "PackedJobError"]


class JobFuture(Future[Any]):
    """The future of a call that is a job. `stored`: directory and key of its result, once that is there."""

    __slots__ = ("_job_id", "call", "stored")

    def __init__(self, name: str, on_cancel: Callable[[], object] | None = None) -> None:
        super().__init__(name, on_cancel)
        self._job_id: str | None = None
        self.call: JobCall | None = None  # until it has ended
        self.stored: tuple[str, str] | None = None

    @property
    def job_id(self) -> str | None:
        return self._job_id

    def submitted_as(self, job: str | None) -> None:
        self._job_id = job or self._job_id


class JobCall:
    """A call on its way to a job, and from there back."""

    def __init__(
        self,
        future: JobFuture,
        resources: Resources,
        ticket: CachedCall | None,
        owner: Any,
        data: bytes,
        apart: bytes | None,
        sources: list[Any],
    ) -> None:
        self.future, self.resources, self.ticket = future, resources, ticket
        self.owner = owner  # the backend that it was submitted to
        self.data, self.apart, self.sources = data, apart, sources  # see `Parcel`; until they have been written
        self.entered = False  # it can be written down
        self.followers: list[JobCall] = []  # which can once this one is
        self.twins: list[JobCall] = []  # the same call, submitted again before this one was written down
        self.wanted = PlannedCall(repr(sorted(resources.asked().items(), key=lambda item: item[0])))
        self.id = ""  # by which other processes find it
        self.order: RunRequest | None = None
        self.inputs: list[CallInput | InputSource] = []
        self.folder: BatchDirectory | None = None
        self.number = 0
        self.ours = False  # whether this executor has submitted it
        self.seen_running = 0.0  # when that was noticed

    @property
    def name(self) -> str:
        return self.future.name

    @property
    def job(self) -> str | None:
        return None if self.folder is None else self.folder.job_of(self.number)

    def written(self) -> None:
        """What has been written is not needed here any more."""
        self.data, self.apart, self.inputs, self.sources = b"", None, [], []


class PackedJobError:
    """The error of a call that failed in a job; opened, the exception with the traceback there as its cause."""

    __slots__ = ("_end",)

    def __init__(self, end: CallOutcome) -> None:
        self._end = end

    def load(self) -> BaseException:
        error, text = self._end.error()
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))  # the class may be frozen
        return error
