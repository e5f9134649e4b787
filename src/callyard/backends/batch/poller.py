"""The poller: it looks at the files of jobs, asks the scheduler about them, and does what follows for their calls.

A look costs one listing for each batch. One command asks about all jobs. Both are done less and less often as long as
nothing happens. The answers of the scheduler count only for jobs that wait, or that have ended without a file. Such a
job is looked at for a while longer, because network file systems show files late. The decisions are in `state`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

from ...cache.claims import Claims
from ...cache.lookup import find
from ...cache.messages import RunReport
from ...errors import CacheError, CallyardError, SchedulerError
from ...jobs.batch import BatchPart, CallOutcome
from ...schedulers.base import JobId, Status
from ...utils.command_thread import CommandThread, Steps
from ...worker.job_outcome import write_down
from .call import JobCall, PackedJobError, cache_at
from .call_state_machine import Action, Fate, Heartbeats, fate_of
from .job_errors import awaits, dependency_failed, gone, hopeless, unseen, vanished, why
from .scheduler_client import SchedulerClient
from .submitter import Submitter, claim_of
from .tracker import EarlierBatches, TrackedBatch, Tracker, release_claim_of

__all__ = ["FileWatcher", "Poller"]

_log = logging.getLogger("callyard")
_LONG = 45.0  # s without a heartbeat of a job of others


class Poller:
    """The questions about the jobs that are waited for, and what follows from the answers."""

    def __init__(
        self, commands: CommandThread, scheduler: SchedulerClient, tracker: Tracker, submitter: Submitter
    ) -> None:
        self._commands, self._scheduler, self._tracker, self._submitter = commands, scheduler, tracker, submitter
        # Of the claims of jobs that the scheduler does not know, by job and key.
        self._unknown: dict[str, dict[str, Heartbeats]] = {}

    def ask(self) -> None:
        """Ask about all jobs, if it is time for that."""
        tracker = self._tracker
        if tracker.batches and not tracker.asking and tracker.clock() >= tracker.questions.at:
            tracker.asking = True
            self._commands.run(self._steps())

    def _steps(self) -> Steps:
        tracker = self._tracker
        try:
            with _stumbling():
                yield from self._question(tracker.clock())
        finally:
            tracker.asking = False
            tracker.questions.done(tracker.clock())

    def _question(self, asked: float) -> Steps:
        self._adopt()
        parts = [(each, part) for each in self._tracker.batches.values() for part in each.directory.parts]
        if parts:
            holders = self._holders()
            statuses = yield partial(self._scheduler.statuses, [*(part.job for _, part in parts), *holders])
            if statuses is not None:
                self._release_claims_of(holders, statuses)
                for tracked, part in parts:
                    with _stumbling():
                        self._answered(tracked, part, statuses, asked)

    def _adopt(self) -> None:
        """Submit for processes that were killed before they had, or before they wrote down the job's name."""
        for tracked in self._tracker.batches.values():
            if tracked.directory.unsent is not None:
                claim = claim_of(tracked.directory)
                if claim is not None:
                    self._submitter.put(tracked.directory, tracked.all_calls(), claim)

    def _answered(self, tracked: TrackedBatch, part: BatchPart, statuses: dict[str, Status], asked: float) -> None:
        """Take the answer about those elements of a batch that the question was about."""
        each = tracked.directory.batch.calls_per_job
        for number in sorted(tracked.calls.keys() & range(part.first * each, part.end * each)):
            self._answered_about(tracked, number, statuses, asked)

    def _answered_about(self, tracked: TrackedBatch, number: int, statuses: dict[str, Status], asked: float) -> None:
        job = tracked.directory.job_of(number)
        status = statuses.get(job or "")
        calls = tracked.calls[number]
        for call in calls:
            call.future.submitted_as(job)
        error = hopeless(calls[0], status) if status is not None and status.phase == "waiting" else None
        actions = tracked.states[number].answered(
            status, asked, self._tracker.clock(),
            siblings_listed=_siblings_listed(job, statuses), hopeless=error is not None,
        )  # fmt: skip
        for action in actions:
            if action is Action.CANCEL_HOPELESS and status is not None:
                self._commands.run(self._cancel_hopeless(tracked, number, status))
            else:
                self._show(tracked, number, action)

    def _cancel_hopeless(self, tracked: TrackedBatch, number: int, status: Status) -> Steps:
        call = tracked.calls[number][0]
        largest = yield partial(self._scheduler.largest, call.resources.partition)
        error = hopeless(call, status, largest)
        if number not in tracked.calls or error is None:  # cancelled meanwhile
            return
        # The last command before the end, so that no answer about the cancelled job comes in between.
        yield partial(self._scheduler.cancel, [tracked.directory.job_of(number) or ""])
        if number in tracked.calls:
            self._tracker.fail(tracked, number, error)

    def _show(self, tracked: TrackedBatch, number: int, action: Action) -> None:
        if action is Action.READ_HEARTBEAT:
            heartbeat = tracked.directory.heart(number)
            tracked.states[number].heartbeat_read(heartbeat, self._tracker.clock())
        elif action is Action.LOOK_SOON:
            self._tracker.looks.sooner(self._tracker.clock())
        elif action is Action.SHOW_RUNNING:
            self._tracker.show_running(tracked.calls[number])
        else:
            for call in tracked.calls[number]:
                call.future.again()  # it was put back into the queue

    # -- jobs that have ended without a word -----------------------------------------------------------------

    def give_up_overdue(self, tracked: TrackedBatch, now: float) -> None:
        """Let the calls fail whose jobs have ended some time ago and have not said how."""
        lost = []
        for number, state in tracked.states.items():
            action = state.ticked(now)
            if action is Action.CHECK_HEARTBEAT:
                begun = tracked.directory.begun(number)
                heartbeat = None if begun is None else tracked.directory.heart(number)
                action = state.checked_heartbeat(None if begun is None else begun.beat, heartbeat, now)
            if action is Action.ASK_SOON:
                self._tracker.questions.sooner(now + self._tracker.questions.first)
            elif action is Action.GIVE_UP:
                lost.append(number)
        if lost:
            self._commands.run(self._give_up(tracked, lost))

    def _give_up(self, tracked: TrackedBatch, numbers: list[int]) -> Steps:
        directory = tracked.directory
        actions = {number: tracked.states[number].given_up() for number in numbers}
        for number in [number for number, action in actions.items() if action is Action.FAIL_UNSEEN]:
            del actions[number]
            self._tracker.fail(tracked, number, unseen(tracked.calls[number][0]))
        unknown = [number for number, action in actions.items() if action is Action.ASK_HISTORY]
        jobs = [job for number in unknown if (job := directory.job_of(number))]
        history = (yield partial(self._scheduler.history, jobs)) if jobs else {}
        with _stumbling():
            for number in actions:
                if number in tracked.calls:
                    self._conclude(tracked, number, history.get(directory.job_of(number) or ""))

    def _conclude(self, tracked: TrackedBatch, number: int, history: Status | None) -> None:
        """Let a call fail, unless its job may have more to say, or the job of an input has."""
        directory, state, inherited = tracked.directory, tracked.states[number], None
        action = state.looked_again(self._was_stored(tracked, number), history)
        if action is Action.CHECK_INPUTS:
            action = state.checked_inputs(awaits(directory, number, self._tracker.is_overdue))
            inherited = dependency_failed(directory, number) if action is not None else None
        if action is Action.FAIL:
            self._tracker.fail(tracked, number, inherited or why(tracked.calls[number][0], state.verdict))
            self._tracker.looks.sooner(self._tracker.clock())

    def _was_stored(self, tracked: TrackedBatch, number: int) -> bool:
        """Return whether there is an outcome, or a result that its job has stored without saying so."""
        directory = tracked.directory
        if directory.ended(number) is not None:
            return True  # which the next look at the files finds
        begun = directory.begun(number)
        if begun is None or not begun.key:
            return False
        order = tracked.calls[number][0].order
        outcome = CallOutcome("finished", begun.key, self._tracker.home.path if order is None else order.directory)
        if not cache_at(outcome.directory, self._tracker.home.trust).exists(begun.key):
            return False
        return write_down(directory, number, outcome)

    # -- claims of jobs that are gone --------------------------------------------------------------------------

    def _holders(self) -> dict[str, set[str]]:
        """Return the jobs that hold the claims for which jobs of ours wait, with the keys of those calls."""
        found: dict[str, set[str]] = defaultdict(set)
        for tracked in self._tracker.batches.values():
            for number, job in tracked.directory.waits().items():
                begun = tracked.directory.begun(number) if number in tracked.calls else None
                if begun is not None:
                    found[job].add(begun.key)
        return found

    def _release_claims_of(self, holders: dict[str, set[str]], statuses: dict[str, Status]) -> None:
        """Release claims of jobs that were lost with their nodes: nobody else can prove that nobody holds them."""
        claims, now = Claims(self._tracker.home), self._tracker.clock()
        for job, keys in holders.items():
            status = statuses.get(job)
            if status is not None:
                self._unknown.pop(job, None)
            if status is None or status.phase == "ended":
                for key in keys:
                    if status is not None or self._is_still(claims, key, job, now):
                        release_claim_of(claims, key, job)

    def _is_still(self, claims: Claims, key: str, job: str, now: float) -> bool:
        """Return whether a job that the scheduler does not know has not touched its claim for a long time."""
        heartbeat = claims.last_beat(key)
        heartbeats = self._unknown.setdefault(job, {}).setdefault(key, Heartbeats(heartbeat, now))
        return heartbeats.stillness(heartbeat, now) > max(self._tracker.grace, _LONG)


@contextlib.contextmanager
def _stumbling() -> Iterator[None]:
    """Go on where a file system stumbles, or a scheduler talks nonsense: the next question comes soon."""
    try:
        yield
    except (OSError, ValueError, CallyardError) as error:
        _log.warning("callyard: what has become of jobs is asked again: %s", error)


def _siblings_listed(job: str | None, statuses: dict[str, Status]) -> bool:
    array, element = JobId.parse(job or "")
    return element is not None and any(JobId.parse(name).job == array and name != array for name in statuses)


class FileWatcher:
    """The looks at the files of jobs. `resubmit` is called with calls that are to be submitted once more."""

    def __init__(
        self, tracker: Tracker, earlier: EarlierBatches, poller: Poller, resubmit: Callable[[JobCall], object]
    ) -> None:
        self._tracker, self._earlier, self._poller, self._resubmit = tracker, earlier, poller, resubmit

    def look(self) -> None:
        """Look at all batches, if it is time for that."""
        tracker, now = self._tracker, self._tracker.clock()
        if not tracker.batches or now < tracker.looks.at:
            return
        before = sum(1 for _ in tracker.calls())
        for tracked in list(tracker.batches.values()):
            try:
                self._look_at(tracked, now)
                tracked.trouble = None
            except (OSError, ValueError, CallyardError) as error:  # a file system that stumbles; the others go on
                self._note_trouble(tracked, now, error)
        tracker.looks.done(tracker.clock(), progress=sum(1 for _ in tracker.calls()) < before)

    def _look_at(self, tracked: TrackedBatch, now: float) -> None:
        news = tracked.directory.news()
        if not news and not os.path.exists(tracked.directory.path):
            self._vanished(tracked)
        for number in list(tracked.calls):
            action = tracked.states[number].listed(news.get(number), now)
            if action is Action.READ_OUTCOME:
                self._read_outcome(tracked, number, now)
            elif action is Action.SHOW_RUNNING:
                self._tracker.show_running(tracked.calls[number])
        self._poller.give_up_overdue(tracked, now)
        if not tracked.calls:
            self._earlier.settle(tracked.directory.token)

    def _note_trouble(self, tracked: TrackedBatch, now: float, error: Exception) -> None:
        tracked.trouble = tracked.trouble or now
        if now < tracked.trouble + self._tracker.grace:
            return
        del self._tracker.batches[tracked.directory.token]
        for call in tracked.all_calls():
            where = tracked.directory.path
            failure = SchedulerError(f"{call.name!r}: what its job wrote in {where} cannot be read: {error}")
            failure.__cause__ = error
            call.future.fail_with(failure)
            self._tracker.tell(call)

    def _vanished(self, tracked: TrackedBatch) -> None:
        """Take it that the batch was removed: by a process that did not see us come, or by somebody by mistake."""
        for number in list(tracked.calls):
            for call in tracked.pop(number):
                if call.ours:
                    call.future.fail_with(vanished(call))
                    self._tracker.tell(call)
                else:
                    self._once_more(call)

    def _once_more(self, call: JobCall) -> None:
        """Submit a call whose job is not going to make it: those who had submitted that have given it up."""
        call.directory = None
        call.future.again()
        self._resubmit(call)

    def _read_outcome(self, tracked: TrackedBatch, number: int, now: float) -> None:
        outcome = tracked.directory.ended(number)
        if outcome is None:
            return
        for call in tracked.calls.get(number, ()):
            call.future.attempts = outcome.attempts
        if outcome.state == "finished":
            self._finish(tracked, number, outcome, now)
            return
        if outcome.state == "failed":
            tracked.directory.received(number)
        for call in tracked.pop(number):
            fate = fate_of(outcome, call.ours)
            if fate is Fate.RESUBMIT:
                self._once_more(call)
                continue
            if fate is Fate.ERROR:
                call.future.fail(PackedJobError(outcome))
            elif not call.future.cancel():
                call.future.fail_with(gone(call, "was cancelled"))
            self._tracker.tell(call)

    def _finish(self, tracked: TrackedBatch, number: int, outcome: CallOutcome, now: float) -> None:
        tracker = self._tracker
        cache = cache_at(outcome.directory, tracker.home.trust)
        try:
            found = find(cache, outcome.key, whole=tracker.private)
        except CacheError as error:
            for call in tracked.pop(number):
                call.future.fail_with(error)
                tracker.tell(call)
            return
        if found is None:
            tracked.states[number].stored_out_of_sight(now)
            return
        for call in tracked.pop(number):
            call.future.stored = None if tracker.private else (cache.path, outcome.key)
            if call.ticket is not None:
                call.ticket.noted(RunReport(found.token, stored=True), outcome.key)
            call.future.fail(found) if found.failed else call.future.finish(found)
            tracker.tell(call)
