"""What is written down goes to the scheduler: in order, no more at once than it takes, and never twice.

What an attempt that was not answered has done, or a process that was killed, is looked up first. An array that the
scheduler finds too large for now goes out in parts: half of it, half of that ..., the rest later.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from time import monotonic
from typing import Any

from ...cache.claims import Claim, Claims
from ...jobs.batch import CallOutcome
from ...jobs.request import next_part, parts_of, request_of, waited_for
from ...jobs.spool import BatchDirectory
from ...system.process_identity import may_live
from ...utils.command_thread import Command, CommandThread, Steps
from ...worker.job_outcome import failed
from .attach import EarlierBatches
from .call import JobCall
from .scheduler_client import SchedulerClient, SubmissionRefused, mistake
from .tracker import Tracker

__all__ = ["Submitter", "claim_of", "refuse", "submission"]

_log = logging.getLogger("callyard")


def claim_of(folder: BatchDirectory) -> Claim | None:
    """The right to submit what another process has written and is not going to submit: None if nobody needs to.

    There may be others who have come to the same conclusion, so who has the claim looks once more.
    """
    if may_live(folder.batch.submitter):
        return None
    claim = Claims(folder.home).take(folder.token, "submission")
    if not isinstance(claim, Claim):
        return None
    if folder.unsent is None:
        claim.release()
        return None
    return claim


def submission(
    desk: SchedulerClient, folder: BatchDirectory, perhaps: bool, known: Mapping[str, BatchDirectory] | None = None
) -> Generator[Command, Any, None]:
    """Submit what the scheduler has not got of a batch, as far as it takes it; `perhaps` it has got some of it.

    `known`: other batches that were read before. Raises Refused, if only for what is left then.
    """
    known = known or {}
    if perhaps:
        yield from _look_up(desk, folder)
    most = _last_size(folder)
    full: SubmissionRefused | None = None
    while (part := next_part(folder, most, known)) is not None:
        try:
            job = yield partial(desk.submit, request_of(folder, part, known))
        except SubmissionRefused as refused:
            count = part.end - part.first
            if not refused.full or count == 1:
                raise
            if refused.kind == "silent":
                yield from _look_up(desk, folder)
            most, full = count // 2, refused
        else:
            folder.submitted_as(part.replace(job=job))
            if full is not None and folder.unsent is not None:  # there was no room for twice as many
                raise full
            most = most and 2 * most


def _last_size(folder: BatchDirectory) -> int | None:
    """How many elements it took last, if it did not take all of them."""
    parts = folder.parts
    return parts[-1].end - parts[-1].first if parts else None


def _look_up(desk: SchedulerClient, folder: BatchDirectory) -> Generator[Command, Any, None]:
    """Write down what the scheduler has got of it already."""
    found = yield partial(desk.look_up, folder.token)
    for part in parts_of(folder, found):
        folder.submitted_as(part)


class _UnsentBatch:
    """A batch that is written down and not completely submitted. `perhaps`: an attempt was not answered."""

    def __init__(self, folder: BatchDirectory, calls: list[JobCall], claim: Claim | None) -> None:
        self.folder, self.calls = folder, calls
        self.perhaps = claim is not None
        self._claim = claim  # to submit what another process has written

    @property
    def is_ours(self) -> bool:
        return self._claim is None

    def end(self) -> None:
        if self._claim is not None:
            self._claim.release()


class Submitter:
    """Submits the batches of one executor."""

    def __init__(
        self, clerk: CommandThread, desk: SchedulerClient, following: Tracker, earlier: EarlierBatches
    ) -> None:
        self._clerk, self._desk, self._following, self._earlier = clerk, desk, following, earlier
        self._unsent: deque[_UnsentBatch] = deque()
        self._sending = False
        self.at = 0.0  # when the next attempt may be made

    def put(self, folder: BatchDirectory, calls: list[JobCall], claim: Claim | None = None) -> None:
        self._unsent.append(_UnsentBatch(folder, calls, claim))

    def calls(self) -> list[JobCall]:
        return [call for unsent in self._unsent for call in unsent.calls]

    def clear(self) -> None:
        while self._unsent:
            self._unsent.pop().end()

    def due(self) -> float | None:
        """When something may be submitted next."""
        return self.at if not self._sending and self._first_ready() is not None else None

    def try_later(self, refused: SubmissionRefused, calls: int) -> None:
        pause = self._desk.pause()
        self.at = monotonic() + pause
        _log.warning("callyard: %d calls are submitted %.0f s later: %s", calls, pause, refused.words)

    def send(self) -> None:
        """Submit what is written, as far as the scheduler takes it; what others take results of goes first."""
        if not self._sending:
            self.drop_cancelled()
            self._sending = True
            self._clerk.run(self._steps())

    def _steps(self) -> Steps:
        try:
            while monotonic() >= self.at:
                unsent = self._first_ready()
                if unsent is None:
                    return
                yield from self._send(unsent)
        finally:
            self._sending = False

    def drop_cancelled(self) -> None:
        """Do not wait to submit what nobody waits for any more."""
        if not self._sending:
            for unsent in list(self._unsent):
                if all(call.future.done() for call in unsent.calls):
                    self._drop(unsent)

    def _first_ready(self) -> _UnsentBatch | None:
        """What waits for nothing that is not submitted: the scheduler cannot wait for what it does not know."""
        before = {unsent.folder.token for unsent in self._unsent}

        def is_missing(token: str) -> bool:
            return token in before or self._following.lacks_job(token)

        return next((each for each in self._unsent if not any(map(is_missing, waited_for(each.folder)))), None)

    def _send(self, unsent: _UnsentBatch) -> Steps:
        if all(call.future.done() for call in unsent.calls):
            self._drop(unsent)
            return
        try:
            yield from submission(self._desk, unsent.folder, unsent.perhaps, self._earlier.known)
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
        """Wait for those that the scheduler has got."""
        sent = [call for call in unsent.calls if call.job is not None]
        unsent.calls = [call for call in unsent.calls if call.job is None]
        for call in sent:
            self._following.follow(call)

    def _done_with(self, unsent: _UnsentBatch) -> None:
        if unsent in self._unsent:
            self._unsent.remove(unsent)
        unsent.end()

    def _drop(self, unsent: _UnsentBatch) -> None:
        """Nobody waits for what is left of it."""
        self._done_with(unsent)
        if not unsent.folder.parts:
            self._earlier.forgotten(unsent.folder, unsent.is_ours)
            return
        for number in {call.number for call in unsent.calls if call.ours}:
            unsent.folder.end(number, CallOutcome("withdrawn"))

    def _refused(self, unsent: _UnsentBatch, refused: SubmissionRefused) -> None:
        self._done_with(unsent)
        self._follow_sent(unsent)
        refuse(unsent.calls, refused)
        if not unsent.folder.parts:
            self._earlier.forgotten(unsent.folder, True)
            return
        for call in unsent.calls:
            unsent.folder.end(call.number, failed(mistake(call.name, refused)))
            unsent.folder.received(call.number)


def refuse(calls: Iterable[JobCall], refused: SubmissionRefused) -> None:
    for call in calls:
        call.future.fail_with(mistake(call.name, refused))
