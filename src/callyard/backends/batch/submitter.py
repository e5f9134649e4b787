"""The submitter of batches to the scheduler: no more at once than accepted, and never a batch twice.

After an attempt without an answer, or after a killed process, the scheduler is first asked for the jobs of the batch.
An array too large for now goes out in parts: half of the elements, half of the half ..., the rest later.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from ...cache.claims import Claim, Claims
from ...errors import CallyardError, JobCancelled, UnsafeCache
from ...jobs.batch import BatchPart, CallOutcome
from ...jobs.spool import BatchDirectory
from ...jobs.submission import next_part, parts_of, request_of
from ...system.process_identity import may_live
from ...utils.command_thread import Command, CommandThread, Steps
from ...worker.job_outcome import failed, write_down
from .batch_state import BatchState
from .call import JobCall
from .delivery import Delivery
from .earlier_batches import EarlierBatches
from .executor_state_machine import ExecutorState
from .job_errors import gone, not_submitted
from .scheduler_client import SchedulerClient, SubmissionRefused, mistake

__all__ = ["Canceller", "Submitter", "claim_of", "submission", "unsent_calls"]

_log = logging.getLogger("callyard")


def claim_of(directory: BatchDirectory) -> Claim | None:
    """Claim a batch whose own process is gone and cannot submit it; return None if there is no need.

    There is none, either, if all of its calls go on elsewhere.

    Claim first, then look once more: another process may have submitted the batch in between.
    """
    if directory.batch.submitter and may_live(directory.batch.submitter):  # a job leaves its submission to anybody
        return None
    claim = Claims(directory.home).take(directory.token, "submission")
    if not isinstance(claim, Claim):
        return None
    if directory.unsent is None or directory.is_over():
        claim.release()
        return None
    return claim


def submission(
    scheduler: SchedulerClient,
    directory: BatchDirectory,
    perhaps: bool,
    known: Mapping[str, BatchDirectory] | None = None,
) -> Generator[Command, Any, None]:
    """Submit the elements of a batch still unknown to the scheduler, as far as accepted.

    Args:
        scheduler: the client.
        directory: the batch.
        perhaps: the scheduler may have some of the elements without having said so.
        known: other batches already read.

    Raises:
        SubmissionRefused: all, or the remaining elements, were refused.
    """
    known = known or {}
    if perhaps:
        yield from _look_up(scheduler, directory)
    most = _last_size(directory)
    full: SubmissionRefused | None = None
    while (part := next_part(directory, most, known, gaps=scheduler.gaps)) is not None:
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
            # At once: until this note only the token in the job's comment tells of the job.
            directory.submitted_as(part.replace(job=job))
            if full is not None and directory.unsent is not None:  # no room for twice as many
                raise full
            most = most and 2 * most


def _last_size(directory: BatchDirectory) -> int | None:
    """Return the number of elements accepted last, if not all were accepted."""
    parts = directory.parts
    return parts[-1].end - parts[-1].first if parts else None


def _look_up(scheduler: SchedulerClient, directory: BatchDirectory) -> Generator[Command, Any, None]:
    """Write down the elements already known to the scheduler."""
    found = yield partial(scheduler.look_up, directory.token)
    for part in parts_of(directory, found):
        directory.submitted_as(part)


def unsent_calls(directory: BatchDirectory) -> set[int]:
    """Return the numbers of the calls that the scheduler does not have, as far as written down."""
    each, left = directory.batch.calls_per_job, set(range(len(directory.batch.calls)))
    for part in directory.parts:
        left.difference_update(range(part.first * each, part.end * each))
    return left


class Submitter:
    """The submissions of one executor, one at a time."""

    def __init__(
        self,
        commands: CommandThread,
        scheduler: SchedulerClient,
        state: ExecutorState,
        earlier: EarlierBatches,
        delivery: Delivery,
        clock: Callable[[], float],
    ) -> None:
        self._commands, self._scheduler, self._state = commands, scheduler, state
        self._earlier, self._delivery, self._clock = earlier, delivery, clock

    def send(self, batch: BatchState) -> None:
        """Submit a batch, as far as accepted."""
        self._commands.run(self._steps(batch))

    def pause(self, refused: SubmissionRefused, calls: int) -> float:
        """Submit nothing for a while; return the end of the pause."""
        pause = self._scheduler.pause()
        _log.warning("callyard: %d calls are submitted %.0f s later: %s", calls, pause, refused.words)
        until = self._clock() + pause
        self._state.pause(until)
        return until

    def _steps(self, batch: BatchState) -> Steps:
        try:
            yield from self._submission(batch)
        except Exception as error:  # an unreadable or unwritable file, a senseless request
            # A directory that others can write to is somebody's mistake, and no fault of the batch.
            may_pass = isinstance(error, (OSError, UnsafeCache)) and not isinstance(error, FileNotFoundError)
            if self._state.not_sent(batch, self._clock(), may_pass=may_pass):
                _log.warning("callyard: the batch %s is submitted later: %s", batch.directory.path, error)
                return
            with contextlib.suppress(SubmissionRefused):  # silence: no call depends on the answer
                yield from self._give_up(batch, error)

    def _submission(self, batch: BatchState) -> Steps:
        if batch.directory.is_over():  # its calls go on elsewhere: the next look at the files follows them
            self._state.sent(batch, (), self._clock(), is_complete=True)
            _release(batch)
            return
        try:
            yield from submission(self._scheduler, batch.directory, batch.perhaps, self._earlier.known)
        except SubmissionRefused as refused:
            # First the parts already accepted: their calls go on, whatever happens to the rest.
            self._follow_sent(batch)
            if refused.kind == "mistake":
                self._refuse(batch, refused)
            else:
                waiting = sum(len(batch.calls.get(number, ())) for number in batch.unsent)
                # A claim is kept during the pause, so that no other process submits the same batch.
                self._state.refused(batch, self.pause(refused, waiting), perhaps=refused.kind == "silent")
            return
        self._follow_sent(batch)
        _release(batch)
        if not self._scheduler.cancels_dependents and (left := left_behind(batch.directory)):
            yield partial(self._scheduler.cancel, left)  # calls have moved while the command ran

    def _follow_sent(self, batch: BatchState) -> None:
        """Note the calls accepted by the scheduler."""
        directory, unsent = batch.directory, unsent_calls(batch.directory)
        if batch.ours and len(unsent) < len(directory.batch.calls):
            with contextlib.suppress(OSError):  # others see us by this; a failure is not worth an error
                directory.attach(self._delivery.me)
        for number, calls in batch.calls.items():
            if number not in unsent:
                job = directory.job_of(number)
                for call in calls:
                    call.future.submitted_as(job)
        self._state.sent(batch, unsent, self._clock(), is_complete=directory.unsent is None)

    def _refuse(self, batch: BatchState, refused: SubmissionRefused) -> None:
        """Let calls fail that the scheduler will never accept."""
        calls = self._state.give_up_sending(batch)
        _release(batch)
        self._delivery.end(calls, lambda call: mistake(call.name, refused))
        with _at_last(batch.directory):
            if _is_unused(batch.directory):
                self._earlier.forget_unsent(batch.directory)
            else:
                _end_rest(batch.directory, calls, lambda call: mistake(call.name, refused))

    def _give_up(self, batch: BatchState, error: Exception) -> Steps:
        """Move a poisoned batch out of the spool; its calls fail, or are submitted anew.

        The directory goes first: a job that the scheduler has taken all the same then makes no call, and is cancelled.
        Parts with a noted job go on. A batch that is only unsafe stays as it is: it can be submitted once it is safe.
        """
        directory, parts = batch.directory, list[BatchPart]()
        with _at_last(directory):
            parts = directory.parts
        calls = self._state.give_up_sending(batch)
        ours, where = [call for call in calls if call.ours], directory.path
        is_unsafe = isinstance(error, UnsafeCache)
        if not parts and not is_unsafe:
            self._earlier.forget(directory)
            where = directory.set_aside(f"it cannot be submitted: {error}")
        _release(batch)
        self._delivery.once_more([call for call in calls if not call.ours])
        self._delivery.end(ours, lambda call: not_submitted(call, error, where))
        if is_unsafe:
            return
        if parts:
            with _at_last(directory):
                _end_rest(directory, ours, lambda call: not_submitted(call, error, where))
        found = yield partial(self._scheduler.look_up, directory.token)
        jobs = sorted(set(found.values()) - {part.job for part in parts})
        if jobs:
            yield partial(self._scheduler.cancel, jobs)


def left_behind(directory: BatchDirectory) -> list[str]:
    """Return the jobs of a batch all of whose calls have ended without a begin: they go on elsewhere."""
    found = []
    for element in directory.batch.elements or (None,):
        numbers = directory.batch.of_element(element)
        job = directory.job_of(numbers[0])
        if job is not None and all(directory.ended(n) is not None and directory.begun(n) is None for n in numbers):
            found.append(job)
    return found


def _is_unused(directory: BatchDirectory) -> bool:
    """Return True for a batch without jobs, and without calls that go on elsewhere: others look here for these."""
    return not directory.parts and not directory.news()


def _release(batch: BatchState) -> None:
    if batch.claim is not None:
        with contextlib.suppress(OSError):
            batch.claim.release()
    batch.claim = None


def _end_rest(directory: BatchDirectory, calls: Iterable[JobCall], error_of: Callable[[JobCall], Exception]) -> None:
    """Write down the ends of the unsent calls of a batch, beside the others."""
    for call in calls:
        write_down(directory, call.number, failed(error_of(call)))
        directory.received(call.number)


@contextlib.contextmanager
def _at_last(directory: BatchDirectory) -> Iterator[None]:
    """Go on after trouble with the files of ended calls, because no future waits for them."""
    try:
        yield
    except (OSError, CallyardError) as error:
        _log.warning("callyard: %s is left as it is: %s", directory.path, error)


class Canceller:
    """The ends of jobs, of cancelled calls or of a whole executor; never of calls with other waiting processes."""

    def __init__(
        self,
        commands: CommandThread,
        scheduler: SchedulerClient,
        state: ExecutorState,
        earlier: EarlierBatches,
        delivery: Delivery,
    ) -> None:
        self._commands, self._scheduler, self._state = commands, scheduler, state
        self._earlier, self._delivery = earlier, delivery

    def abandon(self, calls: list[tuple[BatchState, int, JobCall]]) -> None:
        """End the jobs of calls without a caller here, unless other processes wait for the calls."""
        jobs = []
        for batch, number, call in calls:
            try:
                jobs.extend(self._cancellable(batch, number, call))
                if not call.ours:
                    batch.directory.leave_one(self._delivery.me, number)
                if self._note_failure(batch.directory, number, call) and not self._scheduler.cancels_dependents:
                    jobs.extend(self._stuck(batch.directory, number))
            except (OSError, CallyardError) as error:  # no caller waits for this
                _log.warning("callyard: the job of %r is left alone: %s", call.name, error)
        if jobs:
            self._commands.do(partial(self._scheduler.cancel, jobs))

    def end_left_behind(self, directory: BatchDirectory, number: int) -> None:
        """End the job that a call has left before its begin, where the scheduler would start that job in vain."""
        with _at_last(directory):
            job = directory.job_of(number)
            if not self._scheduler.cancels_dependents and job in left_behind(directory):
                self._commands.do(partial(self._scheduler.cancel, [job]))

    def drop(self, batch: BatchState, calls: list[JobCall]) -> None:
        """Forget calls that nobody submits any more, and their batch if no part of the batch was submitted."""
        directory = batch.directory
        _release(batch)
        with _at_last(directory):
            if batch.ours and _is_unused(directory):
                self._earlier.forget_unsent(directory)
                return
            # A batch that is not ours has a call of ours that goes on there: any process may submit it.
            for number in {call.number for call in calls if call.ours}:
                if directory.ended(number) is None and (batch.ours or not self._is_shared(directory, number)):
                    write_down(directory, number, CallOutcome("withdrawn"))

    def _note_failure(self, directory: BatchDirectory, number: int, call: JobCall) -> bool:
        """Write down the failure of a call with one of its inputs: the scheduler may end the job without an outcome."""
        if not call.ours or call.future.cancelled() or directory.ended(number) is not None:
            return False
        error = call.future.peek_exception()
        if error is None:
            return False
        write_down(directory, number, failed(error))
        directory.received(number)
        return True

    def _stuck(self, directory: BatchDirectory, number: int) -> list[str]:
        """Return the job of a call that has failed with an input, unless the job makes other calls."""
        job, together = directory.job_of(number), directory.batch.of_element(directory.batch.element_of(number))
        if job is None or self._is_shared(directory, number):
            return []
        return [job] if all(directory.ended(each) is not None for each in together) else []

    def _cancellable(self, batch: BatchState, number: int, call: JobCall) -> list[str]:
        """Return the job of a call without a caller, if the job makes nothing else."""
        directory = batch.directory
        ours = call.ours or call.ours_before
        if not ours or not call.future.cancelled() or self._is_shared(directory, number):
            return []
        if directory.ended(number) is not None:
            return []
        job, together = directory.job_of(number), directory.batch.of_element(directory.batch.element_of(number))
        withdrawn = batch.withdraw(number, together)
        # Before the cancellation, so that a process attached meanwhile submits the call anew. Without a job, too: a
        # call that goes on in another batch may have none yet, and any process may submit that batch.
        for each in withdrawn:
            write_down(directory, each, CallOutcome("withdrawn"))
        return [job] if job is not None and withdrawn else []

    def end_all(self) -> None:
        """End the jobs that only this executor waits for; their calls fail. The others go on, without a wait here."""
        ours = []
        for batch in [batch for batch in self._state.batches.values() if batch.is_followed]:
            for number in sorted(batch.calls.keys() - batch.unsent):
                job = self._only_our_job(batch, number)
                if job is None:
                    self._delivery.let_go(self._state.give_up(batch, number))
                else:
                    ours.append((batch, number, job))
        if ours:
            self._commands.do(partial(self._scheduler.cancel, [job for _, _, job in ours]))
        for batch, number, _ in ours:  # the claim ends with the job: until then the call may run
            error = _ended_here(batch.calls[number][0])
            try:
                self._delivery.fail(batch, number, error, has_ended=False)
            except (OSError, CallyardError):  # a full disk; others find the job cancelled
                self._delivery.end(self._state.give_up(batch, number), _ended_here)

    def _only_our_job(self, batch: BatchState, number: int) -> str | None:
        """Return the job of a call, if the files name no other process that waits for it."""
        try:
            call = batch.calls[number][0]
            ours = call.ours or call.ours_before
            return None if not ours or self._is_shared(batch.directory, number) else batch.directory.job_of(number)
        except (OSError, CallyardError):
            return None

    def _is_shared(self, directory: BatchDirectory, number: int) -> bool:
        """Return True if others wait for a call of the same job."""
        numbers = directory.batch.of_element(directory.batch.element_of(number))
        return directory.others(self._delivery.me, numbers, self._delivery.executor)


def _ended_here(call: JobCall) -> JobCancelled:
    return gone(call, "was cancelled, because its executor was ended")
