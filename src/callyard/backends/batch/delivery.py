"""The delivery of outcomes: what the futures of calls are told, and what is written about it beside the jobs' files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ...cache.claims import Claims
from ...cache.directory import CacheDirectory
from ...cache.lookup import CachedResult, find
from ...cache.messages import RunReport
from ...errors import CacheError
from ...jobs.batch import CallOutcome
from ...system.process_identity import this_process
from ...worker.job_outcome import failed, write_down
from .batch_state import BatchState
from .call import JobCall, PackedJobError, cache_at
from .call_state_machine import Fate
from .executor_state_machine import ExecutorState
from .job_errors import gone, vanished

__all__ = ["Delivery", "release_claim_of"]

_log = logging.getLogger("callyard")


class Delivery:
    """The ends of the calls of one executor. Each call is told by itself: what one's callback raises hurts no other."""

    def __init__(self, home: CacheDirectory, private: bool, state: ExecutorState, clock: Callable[[], float]) -> None:
        self.home, self._state, self._clock = home, state, clock
        self.private = private  # results are of no use to others
        self.me = f"{this_process().label}+{os.urandom(4).hex()}"  # among those who wait

    def show_running(self, calls: Iterable[JobCall]) -> None:
        """Let the futures say that the call runs."""
        for call in calls:
            if not call.future.done() and not call.future.running():
                call.future.set_running_or_notify_cancel()

    def show_queued(self, calls: Iterable[JobCall]) -> None:
        """Let the futures say that the call waits again: it was put back into the queue."""
        for call in calls:
            call.future.again()

    def let_go(self, calls: Iterable[JobCall]) -> None:
        """End the wait for calls that go on, and may be running."""
        for call in calls:
            call.future.again()
            _tell(call, call.future.cancel)

    def once_more(self, calls: Iterable[JobCall]) -> None:
        """Submit calls anew whose batch is not going to be submitted."""
        calls = list(calls)
        for call in calls:
            call.future.again()
        self._state.once_more(calls)

    # -- failures ----------------------------------------------------------------------------------------------

    def end(self, calls: Iterable[JobCall], error_of: Callable[[JobCall], BaseException]) -> None:
        """Let calls fail that have no job, or whose files cannot be read."""
        for call in calls:
            _tell(call, partial(call.future.fail_with, error_of(call)))

    def fail(
        self, batch: BatchState, number: int, error: BaseException | CallOutcome, *, has_ended: bool = True
    ) -> None:
        """Let a call fail. Why is written down first, so that nobody attaches to a job that is gone.

        Its claim is released, too: the scheduler says that the job `has_ended`, wherever that ran. What cannot be
        written is tried again until it has been tried for long enough.
        """
        directory = batch.directory
        try:
            begun = directory.begun(number)  # first: its file may be where the outcome finds room
            if not write_down(directory, number, error if isinstance(error, CallOutcome) else failed(error)):
                raise CacheError(f"the end of a call cannot be written in {directory.path}")
            directory.received(number)
            if has_ended and begun is not None and begun.key:
                release_claim_of(Claims(self.home), begun.key, begun.job)
            batch.recovered(("end", number))
        except (OSError, CacheError):
            if not batch.stumbled(("end", number), self._clock()):
                raise
        for call in self._state.give_up(batch, number):
            if isinstance(error, CallOutcome):
                _tell(call, partial(call.future.fail, PackedJobError(error)))
            else:
                _tell(call, partial(call.future.fail_with, error))

    # -- outcomes ----------------------------------------------------------------------------------------------

    def read_outcome(self, batch: BatchState, number: int) -> None:
        """Read how a call ended, and tell all who wait for it."""
        outcome = batch.directory.ended(number)
        if outcome is None or number not in batch.calls:
            return
        found: CachedResult | CacheError | None = None
        if outcome.state == "finished":
            try:
                found = find(cache_at(outcome.directory, self.home.trust), outcome.key, whole=self.private)
            except CacheError as error:
                found = error
        elif outcome.state == "failed":
            batch.directory.received(number)
        for call in batch.calls[number]:
            call.future.attempts = outcome.attempts
        now = self._clock()
        for call, fate in self._state.outcome_read(batch, number, outcome, now, visible=found is not None):
            _tell(call, partial(self._end_as, call, fate, outcome, found))

    def vanished(self, batch: BatchState) -> None:
        """Tell those who wait for a batch whose directory is gone."""
        for call, fate in self._state.vanished(batch):
            _tell(call, partial(self._end_as, call, fate))

    def _end_as(
        self,
        call: JobCall,
        fate: Fate,
        outcome: CallOutcome | None = None,
        found: CachedResult | CacheError | None = None,
    ) -> None:
        future = call.future
        if fate is Fate.RESUBMIT:
            future.again()
        elif fate is Fate.LOST:
            future.fail_with(vanished(call))
        elif isinstance(found, CacheError):
            future.fail_with(found)
        elif outcome is not None and found is not None:
            self._finish(call, outcome, found)
        elif fate is Fate.ERROR and outcome is not None:
            future.fail(PackedJobError(outcome))
        elif not future.cancel():
            future.fail_with(gone(call, "was cancelled"))

    def _finish(self, call: JobCall, outcome: CallOutcome, found: CachedResult) -> None:
        call.future.stored = None if self.private else (cache_at(outcome.directory, self.home.trust).path, outcome.key)
        if call.ticket is not None:
            call.ticket.noted(RunReport(found.token, stored=True), outcome.key)
        call.future.fail(found) if found.failed else call.future.finish(found)


def _tell(call: JobCall, end: Callable[[], Any]) -> None:
    """End the future of a call, and let go of it unless it is submitted again."""
    try:
        end()
    except BaseException as error:  # a callback of the user's that exits, or a result that cannot be noted
        _log.exception("callyard: the end of %r was interrupted", call.name)
        call.future.fail_with(error)
    if call.future.done():
        call.future.call = None


def release_claim_of(claims: Claims, key: str, job: str) -> None:
    """Release the claim to a key, if a job holds it that has ended."""
    holder = claims.holder(key)
    if holder is not None and holder.job_id == job:
        claims.force(key)
