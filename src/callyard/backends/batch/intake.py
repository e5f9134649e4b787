"""The intake: it has the new calls of an executor attached to earlier submissions of the same, or written down."""

from __future__ import annotations

from functools import partial

from ...errors import CacheError, CallyardError, SchedulerError
from ...jobs.submission import waited_for
from ...utils.command_thread import CommandThread, Steps
from .call import JobCall
from .delivery import Delivery
from .earlier_batches import EarlierBatches
from .executor_state_machine import ExecutorState
from .scheduler_client import SchedulerClient, SubmissionRefused, mistake
from .submitter import Submitter
from .writer import BatchWriter, calls_of

__all__ = ["Intake"]


class Intake:
    """The new calls of one executor on their way to batches."""

    def __init__(
        self,
        commands: CommandThread,
        scheduler: SchedulerClient,
        state: ExecutorState,
        writer: BatchWriter,
        earlier: EarlierBatches,
        delivery: Delivery,
        submitter: Submitter,
    ) -> None:
        self._commands, self._scheduler, self._state = commands, scheduler, state
        self._writer, self._earlier, self._delivery, self._submitter = writer, earlier, delivery, submitter

    def write(self, now: float, at_last: bool) -> None:
        """Write new calls down, unless it is better to gather more; `at_last` there will be no more."""
        if not at_last and self._writer.is_crowded():
            self._state.crowded(now)
        else:
            self._commands.run(self._steps())

    def _steps(self) -> Steps:
        try:
            # Once it is known nothing is typed: what is submitted is written down also while a command hangs.
            most = self._scheduler.most if self._scheduler.most is not None else (yield self._scheduler.most_elements)
        except SubmissionRefused as refused:
            if refused.kind == "mistake":
                self._delivery.end(self._state.take_new(), partial(_refused, refused=refused))
            else:
                self._state.writing_failed()
                self._submitter.pause(refused, len(self._state.new))
            return
        except Exception as error:
            self._delivery.end(self._state.take_new(), partial(_not_written, error=error))
            return
        calls = self._state.take_new()
        try:
            self._write_down(calls, max(1, most))
        except Exception as error:  # of no batch, but of all: those that have been written go their way
            self._delivery.end([call for call in calls if call.directory is None], partial(_not_written, error=error))

    def _write_down(self, calls: list[JobCall], most: int) -> None:
        """Attach calls to earlier submissions, of this process or of others, and write down the rest."""
        self._earlier.refresh()
        rest = [call for call in calls if self._writer.is_prepared(call) and not self._earlier.attach(call)]
        for array in self._writer.arrays(rest, most):
            try:
                directory = self._writer.write(array)
            except Exception as error:  # a disk that is full, most likely: the other arrays may be smaller
                self._delivery.end(calls_of(array), partial(_not_written, error=error))
                continue
            if directory is not None:
                self._state.written(directory, calls_of(array), waited_for(directory))
                self._earlier.add_own(directory)


def _refused(call: JobCall, refused: SubmissionRefused) -> CallyardError:
    return mistake(call.name, refused)


def _not_written(call: JobCall, error: Exception) -> CallyardError:
    if isinstance(error, CallyardError):
        return error
    kind = CacheError if isinstance(error, OSError) else SchedulerError
    where = call.owner.home.path
    failure = kind(f"{call.name!r} cannot be written to {where} for a job: {error}; submit the call again once it can")
    failure.__cause__ = error
    return failure
