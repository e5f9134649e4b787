"""The intake: it gathers submitted calls for a moment, and has them written down in order, many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from ...errors import SchedulerError
from ...utils.command_thread import CommandThread, Steps
from .call import JobCall, call_of
from .scheduler_client import SchedulerClient, SubmissionRefused
from .submitter import Submitter, refuse
from .tracker import EarlierBatches
from .writer import BatchWriter

__all__ = ["Intake", "give_up"]


class Intake:
    """The new calls of one executor, their `owner`, that are not written down yet."""

    def __init__(
        self,
        owner: Any,
        commands: CommandThread,
        scheduler: SchedulerClient,
        writer: BatchWriter,
        earlier: EarlierBatches,
        submitter: Submitter,
        pause: float,
    ) -> None:
        self._owner, self._commands, self._scheduler = owner, commands, scheduler
        self._writer, self._earlier, self._submitter = writer, earlier, submitter
        self._pause = pause
        self._at = 0.0  # when they may be written down
        self._asking = False  # how many elements an array may have
        self.new: list[JobCall] = []

    def due(self) -> float | None:
        """Return when the new calls are to be written down."""
        return max(self._submitter.at, self._at) if self.new and not self._asking else None

    def take(self, calls: Iterable[JobCall]) -> None:
        """Take calls that can be written down, but none before those that it waits for.

        Those that wait for one that has ended before it was written are not kept by it any more.
        """
        ready = deque(calls)
        while ready:
            call = ready.popleft()
            known = (call_of(source, self._owner) for source in call.sources)
            first = next((other for other in known if other is not None and not other.entered), None)
            if first is not None:
                first.followers.append(call)
            elif not call.entered:
                call.entered = True
                self.new.append(call)
                ready.extend(call.followers)

    def take_all(self) -> list[JobCall]:
        """Return all new calls, which are not looked after here any more."""
        calls = self.new[:]
        self.new.clear()
        return calls

    def write(self, now: float, at_last: bool) -> None:
        """Write new calls down, unless it is better to gather more; `at_last` there will be no more."""
        if self.new and not self._asking and (at_last or self._may_write(now)):
            self._asking = True
            self._commands.run(self._steps())

    def _may_write(self, now: float) -> bool:
        if now >= self._at and self._writer.is_crowded():
            self._at = now + self._pause
        return now >= self._at

    def _steps(self) -> Steps:
        try:
            # Once it is known nothing is typed: what is submitted is written down also while a command hangs.
            most = self._scheduler.most if self._scheduler.most is not None else (yield self._scheduler.most_elements)
        except SubmissionRefused as refused:
            if refused.kind == "mistake":
                refuse(self.take_all(), refused)
            else:
                self._submitter.try_later(refused, len(self.new))
            return
        finally:
            self._asking = False
        calls = self.take_all()
        try:
            self._write_down(calls, max(1, most))
        except Exception as error:
            give_up([call for call in calls if call.directory is None], error)
            raise

    def _write_down(self, calls: list[JobCall], most: int) -> None:
        """Attach calls to earlier submissions, of this process or of others, and write down the rest."""
        self._earlier.refresh()
        rest = [call for call in calls if self._writer.is_prepared(call) and not self._earlier.attach(call)]
        for directory, written in self._writer.write(rest, most):
            self._earlier.add_own(directory)
            self._submitter.put(directory, written)


def give_up(calls: list[JobCall], error: BaseException) -> None:
    """End calls that cannot be looked after."""
    for call in calls:
        failure = SchedulerError(f"{call.name!r} is not looked after any more: {error}")
        failure.__cause__ = error
        call.future.fail_with(failure)
