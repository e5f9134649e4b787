"""The canceller: it lets go of calls that nobody here waits for any more, and never ends a job that others need."""

from __future__ import annotations

import logging
from functools import partial

from ...errors import CallyardError, JobCancelled
from ...jobs.batch import CallOutcome
from ...jobs.spool import BatchDirectory
from ...utils.command_thread import CommandThread
from ...worker.job_outcome import failed
from .batch_state import BatchState
from .call import JobCall
from .delivery import Delivery
from .earlier_batches import EarlierBatches
from .executor_state_machine import ExecutorState
from .job_errors import gone
from .scheduler_client import SchedulerClient

__all__ = ["Canceller"]

_log = logging.getLogger("callyard")


class Canceller:
    """The ends of jobs, of cancelled calls or of a whole executor; never of calls for which others wait."""

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
        """End the jobs of calls that nobody here waits for any more, if nobody else does."""
        jobs = []
        for batch, number, call in calls:
            try:
                jobs.extend(self._cancellable(batch, number, call))
                if not call.ours:
                    batch.directory.leave_one(self._delivery.me, number)
                self._note_failure(batch.directory, number, call)
            except (OSError, CallyardError) as error:  # nobody waits for that
                _log.warning("callyard: the job of %r is left alone: %s", call.name, error)
        if jobs:
            self._commands.do(partial(self._scheduler.cancel, jobs))

    def drop(self, batch: BatchState, calls: list[JobCall]) -> None:
        """Forget calls that are not submitted any more, and their batch if nothing of it was."""
        directory = batch.directory
        if batch.claim is not None:
            batch.claim.release()
            batch.claim = None
        if not directory.parts:
            self._earlier.forget_unsent(directory, batch.ours)
            return
        for number in {call.number for call in calls if call.ours}:
            directory.end(number, CallOutcome("withdrawn"))

    def _note_failure(self, directory: BatchDirectory, number: int, call: JobCall) -> None:
        """Write down that a call failed with one of its inputs: the scheduler may end its job without a word."""
        if call.ours and not call.future.cancelled() and directory.ended(number) is None:
            error = call.future.exception()
            if error is not None:
                directory.end(number, failed(error))
                directory.received(number)

    def _cancellable(self, batch: BatchState, number: int, call: JobCall) -> list[str]:
        """Return the job of a call that nobody waits for any more, if that makes nothing else."""
        directory = batch.directory
        if not call.ours or not call.future.cancelled() or self._is_shared(directory, number):
            return []
        if directory.ended(number) is not None:
            return []
        job, together = directory.job_of(number), directory.batch.of_element(directory.batch.element_of(number))
        withdrawn = batch.withdraw(number, together)
        if job is None:
            return []
        for each in withdrawn:
            directory.end(each, CallOutcome("withdrawn"))
        return [job] if withdrawn else []

    def end_all(self) -> None:
        """End the jobs that only this executor waits for; their calls fail. The others go on, and nobody here waits."""
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
        for batch, number, _ in ours:  # its claim ends with the job: until then it may run
            error = _ended_here(batch.calls[number][0])
            try:
                self._delivery.fail(batch, number, error, has_ended=False)
            except (OSError, CallyardError):  # a disk that is full; others find the job cancelled
                self._delivery.end(self._state.give_up(batch, number), _ended_here)

    def _only_our_job(self, batch: BatchState, number: int) -> str | None:
        """Return the job of a call if only this executor waits for it, as far as the files say."""
        try:
            shared = not batch.calls[number][0].ours or self._is_shared(batch.directory, number)
            return None if shared else batch.directory.job_of(number)
        except (OSError, CallyardError):
            return None

    def _is_shared(self, directory: BatchDirectory, number: int) -> bool:
        """Return whether others wait for a call that the same job makes."""
        return directory.others(self._delivery.me, directory.batch.of_element(directory.batch.element_of(number)))


def _ended_here(call: JobCall) -> JobCancelled:
    return gone(call, "was cancelled, because its executor was ended")
