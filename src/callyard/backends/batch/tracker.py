"""The calls that are jobs and are waited for here, batch by batch, and what is known of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from time import monotonic

from ...cache.claims import Claims
from ...cache.directory import CacheDirectory
from ...jobs.batch import CallOutcome
from ...jobs.spool import BatchDirectory
from ...schedulers.base import Status
from ...system.process_identity import this_process
from ...utils.backoff import Backoff
from ...worker.job_outcome import failed
from .call import JobCall, PackedJobError

__all__ = ["Heartbeats", "TrackedBatch", "Tracker"]

_SOONEST, _LATEST, _RARER = 0.05, 2.0, 1.15  # s between two looks at the files, and how they grow
_SLOWER = 1.3  # how the time between two questions grows


class Heartbeats:
    """Of the life of a job that the scheduler does not know: a file that it touches now and then."""

    def __init__(self, heart: int | None, now: float) -> None:
        self._heart, self._since = heart, now

    def stillness(self, heart: int | None, now: float) -> float:
        """For how long it has not been touched, by the clock of who looks (s)."""
        if heart is not None and heart != self._heart:
            self._heart, self._since = heart, now
        return now - self._since


class TrackedBatch:
    """A batch with calls that are waited for."""

    def __init__(self, folder: BatchDirectory) -> None:
        self.folder = folder
        self.calls: dict[int, list[JobCall]] = {}
        self.late: dict[int, tuple[float, Status | None]] = {}  # since when, and what the scheduler said
        self.last: dict[int, Status] = {}  # what it said before
        self.unlisted: dict[int, int] = {}  # how often in a row it did not know the job
        self.signs: dict[int, Heartbeats] = {}  # of life, of those that it does not know
        self.hidden: set[int] = set()  # those whose results were stored, and are not visible here yet
        self.cancelled: set[int] = set()  # those that nobody here waits for any more, made by a job with others
        self.trouble: float | None = None  # since when the files cannot be read

    def has_ended(self, number: int) -> bool:
        """Whether that is certain. One answer in which a job is missing is not: controllers that begin know little."""
        _, status = self.late[number]
        return number in self.hidden or status is not None or self.unlisted.get(number, 0) > 1

    def last_word(self, number: int) -> Status | None:
        """What the scheduler said of a job that has ended, as long as it knew it."""
        status = self.last.get(number)
        return status if status is not None and status.phase == "ended" else None

    def all_calls(self) -> list[JobCall]:
        return [call for calls in self.calls.values() for call in calls]


class Tracker:
    """All of them. `tell` is called with each call that has ended."""

    def __init__(
        self, home: CacheDirectory, private: bool, poll: tuple[float, float], tell: Callable[[JobCall], object]
    ) -> None:
        self.home, self.tell = home, tell
        self.private = private  # results are of no use to others
        self.me = f"{this_process().label}+{os.urandom(4).hex()}"  # among those who wait
        self.batches: dict[str, TrackedBatch] = {}
        self.asking = False  # the scheduler's answer is waited for
        self.looks = Backoff(_SOONEST, _LATEST, _RARER)
        self.questions = Backoff(*poll, _SLOWER)

    def calls(self) -> Iterator[JobCall]:
        for followed in self.batches.values():
            yield from followed.all_calls()

    def due(self) -> float | None:
        """When something is to be looked at next."""
        if not self.batches:
            return None
        return self.looks.at if self.asking else min(self.looks.at, self.questions.at)

    def lacks_job(self, token: str) -> bool:
        """Whether it is a batch that is waited for and was perhaps never submitted, or not all of it."""
        followed = self.batches.get(token)
        return followed is not None and followed.folder.unsent is not None

    def follow(self, call: JobCall) -> None:
        """Wait for its end."""
        folder = call.folder
        assert folder is not None
        followed = self.batches.get(folder.token)
        if followed is None:
            followed = self.batches[folder.token] = TrackedBatch(folder)
            if call.ours:
                folder.attach(self.me)
        calls = followed.calls.setdefault(call.number, [])
        if call not in calls:
            calls.append(call)
        call.future.submitted_as(call.job)
        now = monotonic()
        self.looks.begin(min(self.looks.at, now) if self.looks.at else now)
        self.questions.begin(now + self.questions.first if call.job is not None else now)

    def is_running(self, calls: list[JobCall]) -> None:
        for call in calls:
            if not call.future.done() and not call.future.running():
                call.future.set_running_or_notify_cancel()
                call.seen_running = monotonic()

    def fail(
        self, followed: TrackedBatch, number: int, error: BaseException | CallOutcome, *, has_ended: bool = True
    ) -> None:
        """Write down why, so that nobody attaches to what is gone, and let go of its claim."""
        folder = followed.folder
        end = error if isinstance(error, CallOutcome) else failed(error)
        folder.end(number, end)
        folder.received(number)
        if has_ended:
            self._release_claim(folder, number)
        for call in followed.calls.pop(number, []):
            if isinstance(error, CallOutcome):
                call.future.fail(PackedJobError(error))
            else:
                call.future.fail_with(error)
            self.tell(call)

    def _release_claim(self, folder: BatchDirectory, number: int) -> None:
        """The scheduler says that the job has ended, so its claim is nobody's, wherever it ran."""
        begun = folder.begun(number)
        if begun is not None and begun.key:
            release_claim_of(Claims(self.home), begun.key, begun.job)

    def leave(self) -> None:
        """The jobs go on without us."""
        for followed in self.batches.values():
            followed.folder.leave(self.me)
        self.batches.clear()


def release_claim_of(claims: Claims, key: str, job: str) -> None:
    """Forget the claim to a key, if a job has it that has ended."""
    holder = claims.holder(key)
    if holder is not None and holder.job_id == job:
        claims.force(key)
