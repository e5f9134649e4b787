"""Calls on their way from `submit` to what is written down: in order, a moment later, many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Any

from ...errors import SchedulerError
from ...utils.command_thread import CommandThread, Steps
from .attach import EarlierBatches
from .call import JobCall, call_of
from .scheduler_client import SchedulerClient, SubmissionRefused
from .submitter import Submitter, refuse
from .writer import BatchWriter

__all__ = ["Intake", "give_up"]


class Intake:
    """Takes the calls of one executor, the `owner` of them."""

    def __init__(
        self,
        owner: Any,
        clerk: CommandThread,
        desk: SchedulerClient,
        writer: BatchWriter,
        earlier: EarlierBatches,
        sender: Submitter,
        pause: float,
    ) -> None:
        self._owner, self._clerk, self._desk = owner, clerk, desk
        self._writer, self._earlier, self._sender = writer, earlier, sender
        self._pause = pause
        self._at = 0.0  # when they may be written down
        self._asking = False  # how many elements an array may have
        self.new: list[JobCall] = []

    def due(self) -> float | None:
        """When the new calls are to be written down."""
        return max(self._sender.at, self._at) if self.new and not self._asking else None

    def take(self, calls: Iterable[JobCall]) -> None:
        """Calls that can be written down; not before those that they wait for, as one does that waits for a thread.

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
        """All new ones, which are then somebody else's."""
        calls = self.new[:]
        self.new.clear()
        return calls

    def write(self, at_last: bool) -> None:
        """Write new calls down, unless it is better to gather more; `at_last` there will be no more."""
        if self.new and not self._asking and (at_last or self._may_write()):
            self._asking = True
            self._clerk.run(self._steps())

    def _may_write(self) -> bool:
        now = monotonic()
        if now >= self._at and self._writer.is_crowded():
            self._at = now + self._pause
        return now >= self._at

    def _steps(self) -> Steps:
        try:
            # Once it is known nothing is typed: what is submitted is written down also while a command hangs.
            most = self._desk.most if self._desk.most is not None else (yield self._desk.most_elements)
        except SubmissionRefused as refused:
            if refused.kind == "mistake":
                refuse(self.take_all(), refused)
            else:
                self._sender.try_later(refused, len(self.new))
            return
        finally:
            self._asking = False
        calls = self.take_all()
        try:
            self._write_down(calls, max(1, most))
        except Exception as error:
            give_up([call for call in calls if call.folder is None], error)
            raise

    def _write_down(self, calls: list[JobCall], most: int) -> None:
        """Attach to what was submitted before, by whomever; write down the rest."""
        self._earlier.refresh()
        rest = [call for call in calls if self._writer.is_prepared(call) and not self._earlier.attach(call)]
        for folder, written in self._writer.write(rest, most):
            self._earlier.noted(folder)
            self._sender.put(folder, written)


def give_up(calls: list[JobCall], error: BaseException) -> None:
    """End calls that cannot be looked after."""
    for call in calls:
        failure = SchedulerError(f"{call.name!r} is not looked after any more: {error}")
        failure.__cause__ = error
        call.future.fail_with(failure)
