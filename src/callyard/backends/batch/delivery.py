"""The delivery of outcomes to the futures of calls, with the notes about it beside the jobs' files."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from ...cache.claims import Claims
from ...cache.directory import CacheDirectory
from ...cache.lookup import CachedResult, find
from ...cache.messages import RunReport
from ...errors import CacheError
from ...events.recorder import Recorder
from ...jobs.batch import CallOutcome, CallStart
from ...jobs.spool import BatchDirectory
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
    """The ends of the calls of one executor. Each future ends by itself: an error of its callbacks hurts no other."""

    def __init__(
        self,
        home: CacheDirectory,
        private: bool,
        state: ExecutorState,
        clock: Callable[[], float],
        executor: str = "",
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        self.home, self._state, self._clock = home, state, clock
        self.private = private  # results are of no use to others
        self.executor = executor  # its name, if several processes act for it in turn
        self.told_of_moves: Callable[[BatchDirectory, int], object] | None = None  # of calls that others have moved
        self.me = f"{this_process().label}+{executor or os.urandom(4).hex()}"  # our name among the waiting processes

    def show_running(self, calls: Iterable[JobCall]) -> None:
        """Let the futures say "running"."""
        for call in calls:
            if not call.future.done() and not call.future.running():
                call.future.set_running_or_notify_cancel()
                self._record_start(call, call.future.attempts)

    def _record_start(self, call: JobCall, attempt: int, has_ended: bool = False) -> None:
        """Tell the recorder of a run that it does not know, in the words of the job where it has left some.

        A call that `has_ended` without such words has not begun: an input has failed, say.
        """
        if self._recorder is None or call.told_attempt >= attempt or call.directory is None:
            return
        begun = None
        with suppress(OSError, CacheError):
            begun = call.directory.begun(call.number)
        if begun is None and has_ended:
            return
        if begun is not None:  # otherwise the scheduler has been faster; the job's own words follow
            call.told_attempt = attempt
        job = (begun and begun.job) or call.job
        worker = f"job {job}" if job else ""
        host, at = ("", None) if begun is None else (begun.node, begun.at or None)
        self._recorder.started(call.future, host, worker, attempt, job, at)

    def show_queued(self, calls: Iterable[JobCall]) -> None:
        """Let the futures say "waiting" again, after the return of the job into the queue."""
        for call in calls:
            call.future.again()
            if self._recorder is not None and call.told_attempt:
                call.told_attempt = 0
                self._recorder.waiting(call.future, "", call.job)

    def let_go(self, calls: Iterable[JobCall]) -> None:
        """End the wait for calls that go on, perhaps as running ones."""
        for call in calls:
            call.future.again()
            _tell(call, call.future.cancel)

    def once_more(self, calls: Iterable[JobCall]) -> None:
        """Submit calls of a lost batch anew."""
        calls = list(calls)
        for call in calls:
            call.future.again()
        self._state.once_more(calls)

    # -- failures ----------------------------------------------------------------------------------------------

    def end(self, calls: Iterable[JobCall], error_of: Callable[[JobCall], BaseException]) -> None:
        """End calls without a job, or without readable files, each with an error."""
        for call in calls:
            _tell(call, partial(call.future.fail_with, error_of(call)))

    def fail(
        self, batch: BatchState, number: int, error: BaseException | CallOutcome, *, has_ended: bool = True
    ) -> None:
        """Let a call fail. The reason is written first, so that no process attaches to a lost job.

        Its claim is released, too, if the job `has_ended` by the scheduler's word, on any node. A failing write is
        tried again until the grace is over; then the future is told all the same.
        """
        directory = batch.directory
        try:
            begun = directory.begun(number)  # first: its file may be where the outcome finds room
            if not write_down(directory, number, error if isinstance(error, CallOutcome) else failed(error)):
                raise CacheError(f"the end of a call cannot be written in {directory.path}")
            directory.received(number)
            if has_ended:
                self.release_claim(begun)
            batch.recovered(("end", number))
        except (OSError, CacheError):
            if not batch.stumbled(("end", number), self._clock()):
                raise
        for call in self._state.give_up(batch, number):
            if isinstance(error, CallOutcome):
                _tell(call, partial(call.future.fail, PackedJobError(error)))
            else:
                _tell(call, partial(call.future.fail_with, error))

    def release_claim(self, begun: CallStart | None) -> None:
        """Release the claim that a call took at this start; its job has certainly ended."""
        if begun is not None and begun.key:
            release_claim_of(Claims(self.home), begun.key, begun.job)

    # -- outcomes ----------------------------------------------------------------------------------------------

    def read_outcome(self, batch: BatchState, number: int) -> None:
        """Read the outcome of a call, and tell all futures of the call."""
        outcome = batch.directory.ended(number)
        if outcome is None or number not in batch.calls:
            return
        if outcome.state == "moved":
            self._follow_to(batch, number, outcome)
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
            # Before the ends of the futures, because callbacks may ask for the number.
            call.future.attempts = outcome.attempts
            if self._recorder is not None and outcome.state in ("finished", "failed"):
                self._record_start(call, outcome.attempts, has_ended=True)
        now = self._clock()
        for call, fate in self._state.outcome_read(batch, number, outcome, now, visible=found is not None):
            _tell(call, partial(self._end_as, call, fate, outcome, found))

    def follow_moved(self, inputs: Iterable[JobCall]) -> None:
        """Wait for moved calls where they go on, before their dependents are made to wait for jobs that have ended."""
        numbers = defaultdict[str, set[int]](set)
        for call in inputs:
            if call.directory is not None:
                numbers[call.directory.token].add(call.number)
        for batch in [self._state.batches[token] for token in numbers if token in self._state.batches]:
            with suppress(OSError, CacheError):  # the next look at the files finds the same
                ended = {number for number, reached in batch.directory.news().items() if reached == "end"}
                for number in ended & numbers[batch.token] & batch.calls.keys():
                    outcome = batch.directory.ended(number)
                    # One that is gone already is left to that look: it ends calls, or submits them anew.
                    if outcome is not None and outcome.state == "moved" and self._is_there(outcome.key):
                        self._follow_to(batch, number, outcome)

    def _is_there(self, token: str) -> bool:
        return os.path.exists(BatchDirectory(self.home, token).path)

    def _follow_to(self, batch: BatchState, number: int, moved: CallOutcome) -> None:
        """Wait for the calls where they go on."""
        successor, now = BatchDirectory(self.home, moved.key), self._clock()
        try:
            successor.attach(self.me, moved.number)  # first: after an error the calls are still here for the next look
            limit = successor.batch.limit
        except FileNotFoundError:  # it is over, and another process has removed it
            self._missed(self._state.give_up(batch, number), successor)
            return
        if self.told_of_moves is not None:
            self.told_of_moves(batch.directory, number)
        for call in self._state.give_up(batch, number):
            call.directory, call.number = successor, moved.number
            call.future.attempts = moved.attempts
            call.future.again()
            if self._recorder is not None and limit:
                call.told_attempt = 0
                self._recorder.waiting(call.future, f"for its next attempt, with {limit}")
            self._state.follow(call, now, is_complete=False, has_job=False)

    def _missed(self, calls: list[JobCall], removed: BatchDirectory) -> None:
        """Resubmit calls of a removed batch; those submitted here fail, because they are kept nowhere else."""
        for call in calls:
            call.directory = removed
        self.end([call for call in calls if call.ours], vanished)
        self.once_more(call for call in calls if not call.ours)

    def vanished(self, batch: BatchState) -> None:
        """End or resubmit the calls of a batch without its directory."""
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
        if outcome is not None and outcome.usage is not None:
            future.note_usage(outcome.usage)
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
    """End the future of a call, and let go of the future, except before another submission."""
    try:
        end()
    except BaseException as error:  # a callback of the user's with an exit, or a failure to note the result
        _log.exception("callyard: the end of %r was interrupted", call.name)
        call.future.fail_with(error)
    if call.future.done():
        call.future.call = None


def release_claim_of(claims: Claims, key: str, job: str) -> None:
    """Release the claim to a key, if held by an ended job."""
    holder = claims.holder(key)
    if holder is not None and holder.job_id == job:
        claims.force(key)
