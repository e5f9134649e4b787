"""To end jobs: of calls that were cancelled here, or of a whole executor; never of calls that others wait for."""

from __future__ import annotations

from functools import partial

from ...jobs.batch import CallOutcome
from ...jobs.spool import BatchDirectory
from ...utils.command_thread import CommandThread
from ...worker.job_outcome import failed
from .attach import EarlierBatches
from .call import JobCall
from .job_errors import gone
from .scheduler_client import SchedulerClient
from .tracker import TrackedBatch, Tracker

__all__ = ["Canceller"]


class Canceller:
    """Takes back what one executor has submitted."""

    def __init__(
        self, clerk: CommandThread, desk: SchedulerClient, following: Tracker, earlier: EarlierBatches
    ) -> None:
        self._clerk, self._desk, self._following, self._earlier = clerk, desk, following, earlier

    def drop_cancelled(self) -> None:
        """End the jobs of calls that were cancelled here, if nobody else waits for them."""
        jobs = []
        for followed in list(self._following.batches.values()):
            for number, calls in list(followed.calls.items()):
                left = [call for call in calls if not call.future.done()]
                if len(left) == len(calls):
                    continue
                followed.calls[number] = left
                if not left:
                    del followed.calls[number]
                    jobs.extend(self._cancellable(followed, calls[0]))
                    if not calls[0].ours:
                        followed.folder.leave_one(self._following.me, number)
                    self._note_failure(followed.folder, calls[0])
            self._settle(followed)
        if jobs:
            self._clerk.do(partial(self._desk.cancel, jobs))

    def _settle(self, followed: TrackedBatch) -> None:
        if not followed.calls:
            self._earlier.settle(followed.folder.token)

    def _note_failure(self, folder: BatchDirectory, call: JobCall) -> None:
        """It failed with one of its inputs; its job is ended by the scheduler without a word, or finds out itself."""
        if call.ours and not call.future.cancelled() and folder.ended(call.number) is None:
            error = call.future.exception()
            if error is not None:
                folder.end(call.number, failed(error))
                folder.received(call.number)

    def _cancellable(self, followed: TrackedBatch, call: JobCall) -> list[str]:
        folder, number = followed.folder, call.number
        if not call.ours or not call.future.cancelled() or self._is_shared(folder, number):
            return []
        if folder.ended(number) is not None:
            return []
        job, together = folder.job_of(number), folder.batch.of_element(folder.batch.element_of(number))
        followed.cancelled.add(number)
        if job is None or any(other in followed.calls for other in together):
            return []  # others are made by the same job
        for each in followed.cancelled.intersection(together):
            folder.end(each, CallOutcome("withdrawn"))
        return [job]

    def end_all(self) -> None:
        """End the jobs that only this executor waits for; their calls fail. The others go on, and nobody here waits."""
        ours = []
        for followed in list(self._following.batches.values()):
            for number, calls in list(followed.calls.items()):
                job = followed.folder.job_of(number)
                if calls[0].ours and job is not None and not self._is_shared(followed.folder, number):
                    ours.append((followed, number, job))
                else:
                    self._let_go(followed.calls.pop(number))
        if ours:
            self._clerk.do(partial(self._desk.cancel, [job for _, _, job in ours]))
        for followed, number, _ in ours:  # its claim ends with the job: until then it may run
            error = gone(followed.calls[number][0], "was cancelled, because its executor was ended")
            self._following.fail(followed, number, error, has_ended=False)
        for followed in list(self._following.batches.values()):
            self._settle(followed)

    def _is_shared(self, folder: BatchDirectory, number: int) -> bool:
        """Whether others wait for what the same job makes."""
        return folder.others(self._following.me, folder.batch.of_element(folder.batch.element_of(number)))

    def _let_go(self, calls: list[JobCall]) -> None:
        for call in calls:
            call.future.again()  # it may be running
            call.future.cancel()
            self._following.tell(call)
