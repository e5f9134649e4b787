"""The submitter: it sends batches to the scheduler in order, no more at once than that takes, and never twice.

After an attempt that was not answered, or a process that was killed, the scheduler is asked first which jobs it has
got. An array that it finds too large for now goes out in parts: half of it, half of that ..., the rest later.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from typing import Any

from ...cache.claims import Claim, Claims
from ...jobs.batch import CallOutcome
from ...jobs.spool import BatchDirectory
from ...jobs.submission import next_part, parts_of, request_of, waited_for
from ...system.process_identity import may_live
from ...utils.command_thread import Command, CommandThread, Steps
from ...worker.job_outcome import failed, write_down
from .call import JobCall
from .call_state_machine import first_ready, withdrawn_with
from .job_errors import gone
from .scheduler_client import SchedulerClient, SubmissionRefused, mistake
from .tracker import EarlierBatches, TrackedBatch, Tracker

__all__ = ["Canceller", "Submitter", "claim_of", "refuse", "submission"]

_log = logging.getLogger("callyard")


def claim_of(directory: BatchDirectory) -> Claim | None:
    """Claim a batch that its own process is not going to submit, as that is gone; None if nobody needs to submit it.

    Claim first, then look once more: another process may have submitted it in between.
    """
    if may_live(directory.batch.submitter):
        return None
    claim = Claims(directory.home).take(directory.token, "submission")
    if not isinstance(claim, Claim):
        return None
    if directory.unsent is None:
        claim.release()
        return None
    return claim


def submission(
    scheduler: SchedulerClient,
    directory: BatchDirectory,
    perhaps: bool,
    known: Mapping[str, BatchDirectory] | None = None,
) -> Generator[Command, Any, None]:
    """Submit the elements of a batch that the scheduler has not got, as far as it takes them.

    `perhaps`: it may have got some of them without saying so. `known`: other batches that were read before. Raises
    SubmissionRefused, if only for the elements that are left.
    """
    known = known or {}
    if perhaps:
        yield from _look_up(scheduler, directory)
    most = _last_size(directory)
    full: SubmissionRefused | None = None
    while (part := next_part(directory, most, known)) is not None:
        try:
            job = yield partial(scheduler.submit, request_of(directory, part, known))
        except SubmissionRefused as refused:
            count = part.end - part.first
            if not refused.full or count == 1:
                raise
            if refused.kind == "silent":
                yield from _look_up(scheduler, directory)
            most, full = count // 2, refused
        else:
            directory.submitted_as(part.replace(job=job))
            if full is not None and directory.unsent is not None:  # there was no room for twice as many
                raise full
            most = most and 2 * most


def _last_size(directory: BatchDirectory) -> int | None:
    """Return how many elements it took last, if it did not take all of them."""
    parts = directory.parts
    return parts[-1].end - parts[-1].first if parts else None


def _look_up(scheduler: SchedulerClient, directory: BatchDirectory) -> Generator[Command, Any, None]:
    """Write down which elements the scheduler has got already."""
    found = yield partial(scheduler.look_up, directory.token)
    for part in parts_of(directory, found):
        directory.submitted_as(part)


class _UnsentBatch:
    """A batch that is written down and not completely submitted. `perhaps`: an attempt was not answered."""

    def __init__(self, directory: BatchDirectory, calls: list[JobCall], claim: Claim | None) -> None:
        self.directory, self.calls = directory, calls
        self.perhaps = claim is not None
        self._claim = claim  # to submit what another process has written

    @property
    def is_ours(self) -> bool:
        return self._claim is None

    def end(self) -> None:
        if self._claim is not None:
            self._claim.release()


class Submitter:
    """The queue of the batches of one executor that the scheduler has not got completely."""

    def __init__(
        self, commands: CommandThread, scheduler: SchedulerClient, tracker: Tracker, earlier: EarlierBatches
    ) -> None:
        self._commands, self._scheduler, self._tracker, self._earlier = commands, scheduler, tracker, earlier
        self._unsent: deque[_UnsentBatch] = deque()
        self._sending = False
        self.at = 0.0  # when the next attempt may be made

    def put(self, directory: BatchDirectory, calls: list[JobCall], claim: Claim | None = None) -> None:
        self._unsent.append(_UnsentBatch(directory, calls, claim))

    def calls(self) -> list[JobCall]:
        return [call for unsent in self._unsent for call in unsent.calls]

    def clear(self) -> None:
        while self._unsent:
            self._unsent.pop().end()

    def due(self) -> float | None:
        """Return when a batch may be submitted next."""
        return self.at if not self._sending and self._first_ready() is not None else None

    def try_later(self, refused: SubmissionRefused, calls: int) -> None:
        pause = self._scheduler.pause()
        self.at = self._tracker.clock() + pause
        _log.warning("callyard: %d calls are submitted %.0f s later: %s", calls, pause, refused.words)

    def send(self) -> None:
        """Submit the written batches, as far as the scheduler takes them, and none before those that it waits for."""
        if not self._sending:
            self.drop_cancelled()
            self._sending = True
            self._commands.run(self._steps())

    def _steps(self) -> Steps:
        try:
            while self._tracker.clock() >= self.at:
                unsent = self._first_ready()
                if unsent is None:
                    return
                yield from self._send(unsent)
        finally:
            self._sending = False

    def drop_cancelled(self) -> None:
        """Drop the batches for which nobody waits any more."""
        if not self._sending:
            for unsent in list(self._unsent):
                if all(call.future.done() for call in unsent.calls):
                    self._drop(unsent)

    def _first_ready(self) -> _UnsentBatch | None:
        return first_ready(
            self._unsent, lambda unsent: unsent.directory.token,
            lambda unsent: waited_for(unsent.directory), self._tracker.lacks_job,
        )  # fmt: skip

    def _send(self, unsent: _UnsentBatch) -> Steps:
        if all(call.future.done() for call in unsent.calls):
            self._drop(unsent)
            return
        try:
            yield from submission(self._scheduler, unsent.directory, unsent.perhaps, self._earlier.known)
        except SubmissionRefused as refused:
            if refused.kind == "mistake":
                self._refused(unsent, refused)
                return
            unsent.perhaps = refused.kind == "silent"
            self._follow_sent(unsent)
            self.try_later(refused, len(unsent.calls))
            return
        self._follow_sent(unsent)
        self._done_with(unsent)

    def _follow_sent(self, unsent: _UnsentBatch) -> None:
        """Track the calls that the scheduler has got."""
        sent = [call for call in unsent.calls if call.job is not None]
        unsent.calls = [call for call in unsent.calls if call.job is None]
        for call in sent:
            self._tracker.follow(call)

    def _done_with(self, unsent: _UnsentBatch) -> None:
        if unsent in self._unsent:
            self._unsent.remove(unsent)
        unsent.end()

    def _drop(self, unsent: _UnsentBatch) -> None:
        """Drop the rest of a batch, for which nobody waits."""
        self._done_with(unsent)
        if not unsent.directory.parts:
            self._earlier.forget_unsent(unsent.directory, unsent.is_ours)
            return
        for number in {call.number for call in unsent.calls if call.ours}:
            write_down(unsent.directory, number, CallOutcome("withdrawn"))

    def _refused(self, unsent: _UnsentBatch, refused: SubmissionRefused) -> None:
        self._done_with(unsent)
        self._follow_sent(unsent)
        refuse(unsent.calls, refused)
        if not unsent.directory.parts:
            self._earlier.forget_unsent(unsent.directory, True)
            return
        for call in unsent.calls:
            write_down(unsent.directory, call.number, failed(mistake(call.name, refused)))
            unsent.directory.received(call.number)


def refuse(calls: Iterable[JobCall], refused: SubmissionRefused) -> None:
    for call in calls:
        call.future.fail_with(mistake(call.name, refused))


class Canceller:
    """The ends of jobs, of cancelled calls or of a whole executor; never of calls for which others wait."""

    def __init__(
        self, commands: CommandThread, scheduler: SchedulerClient, tracker: Tracker, earlier: EarlierBatches
    ) -> None:
        self._commands, self._scheduler, self._tracker, self._earlier = commands, scheduler, tracker, earlier

    def drop_cancelled(self) -> None:
        """End the jobs of calls that were cancelled here, if nobody else waits for them."""
        jobs = []
        for tracked in list(self._tracker.batches.values()):
            for number, calls in list(tracked.calls.items()):
                left = [call for call in calls if not call.future.done()]
                if left:
                    tracked.calls[number] = left
                    continue
                tracked.pop(number)
                jobs.extend(self._cancellable(tracked, calls[0]))
                if not calls[0].ours:
                    tracked.directory.leave_one(self._tracker.me, number)
                self._note_failure(tracked.directory, calls[0])
            self._settle(tracked)
        if jobs:
            self._commands.do(partial(self._scheduler.cancel, jobs))

    def _settle(self, tracked: TrackedBatch) -> None:
        if not tracked.calls:
            self._earlier.settle(tracked.directory.token)

    def _note_failure(self, directory: BatchDirectory, call: JobCall) -> None:
        """Write down that a call failed with one of its inputs: the scheduler may end its job without a word."""
        if call.ours and not call.future.cancelled() and directory.ended(call.number) is None:
            error = call.future.exception()
            if error is not None:
                write_down(directory, call.number, failed(error))
                directory.received(call.number)

    def _cancellable(self, tracked: TrackedBatch, call: JobCall) -> list[str]:
        """Return the job of a call that nobody waits for any more, if that makes nothing else."""
        directory, number = tracked.directory, call.number
        if not call.ours or not call.future.cancelled() or self._is_shared(directory, number):
            return []
        if directory.ended(number) is not None:
            return []
        job, together = directory.job_of(number), directory.batch.of_element(directory.batch.element_of(number))
        tracked.cancelled.add(number)
        withdrawn = withdrawn_with(together, tracked.calls, tracked.cancelled) if job is not None else []
        for each in withdrawn:
            write_down(directory, each, CallOutcome("withdrawn"))
        return [job] if job is not None and withdrawn else []

    def end_all(self) -> None:
        """End the jobs that only this executor waits for; their calls fail. The others go on, and nobody here waits."""
        ours = []
        for tracked in list(self._tracker.batches.values()):
            for number, calls in list(tracked.calls.items()):
                job = tracked.directory.job_of(number)
                if calls[0].ours and job is not None and not self._is_shared(tracked.directory, number):
                    ours.append((tracked, number, job))
                else:
                    self._let_go(tracked.pop(number))
        if ours:
            self._commands.do(partial(self._scheduler.cancel, [job for _, _, job in ours]))
        for tracked, number, _ in ours:  # its claim ends with the job: until then it may run
            error = gone(tracked.calls[number][0], "was cancelled, because its executor was ended")
            self._tracker.fail(tracked, number, error, has_ended=False)
        for tracked in list(self._tracker.batches.values()):
            self._settle(tracked)

    def _is_shared(self, directory: BatchDirectory, number: int) -> bool:
        """Return whether others wait for a call that the same job makes."""
        return directory.others(self._tracker.me, directory.batch.of_element(directory.batch.element_of(number)))

    def _let_go(self, calls: list[JobCall]) -> None:
        for call in calls:
            call.future.again()  # it may be running
            call.future.cancel()
            self._tracker.tell(call)
