"""The poller: it looks at the files of jobs, asks the scheduler about jobs, and acts on the results.

A look costs one listing for each batch. One command asks about all jobs. The answers count only for jobs that wait, or
that have ended without a file. Files of such a job are looked for during another while, because network file systems
show files late.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from ...cache.claims import Claims
from ...errors import WorkerLost
from ...jobs.batch import BatchPart, CallOutcome
from ...jobs.heartbeats import Heartbeats
from ...jobs.submission import is_behind, is_ready
from ...jobs.successor import move_after_inputs, move_to_successor
from ...resources import LIMITS
from ...schedulers.base import CANCELLED, JobId, Status
from ...utils.command_thread import CommandThread, Steps
from ...worker.job_outcome import write_down
from .batch_state import BatchState, CallAction
from .call import cache_at
from .call_state_machine import Action
from .delivery import Delivery, release_claim_of
from .executor_state_machine import ExecutorState
from .job_errors import awaits, dependency_failed, hopeless, is_loss, unreadable, unseen, why
from .scheduler_client import SchedulerClient
from .submitter import claim_of, unsent_calls

__all__ = ["FileWatcher", "Poller"]

_log = logging.getLogger("callyard")
_LONG = 45.0  # s without a heartbeat of a job of others


class Poller:
    """The questions about the awaited jobs, and the actions after the answers."""

    def __init__(
        self,
        commands: CommandThread,
        scheduler: SchedulerClient,
        state: ExecutorState,
        delivery: Delivery,
        clock: Callable[[], float],
    ) -> None:
        self._commands, self._scheduler, self._state = commands, scheduler, state
        self._delivery, self._clock = delivery, clock
        # Of the claims of jobs whose end the scheduler cannot tell, by job and key.
        self._unknown: dict[str, dict[str, Heartbeats]] = {}

    def ask(self, batches: list[BatchState]) -> None:
        """Ask about the jobs of some batches."""
        self._commands.run(self._steps(batches))

    def _steps(self, batches: list[BatchState]) -> Steps:
        try:
            with _stumbling():
                # The time is taken before the command, because a call may begin while the scheduler answers.
                yield from self._question(batches, self._clock())
        finally:
            # After errors, too: without this note there would be no further question.
            self._state.asked(self._clock())

    def _question(self, batches: list[BatchState], asked: float) -> Steps:
        parts = list[tuple[BatchState, BatchPart]]()
        holders = defaultdict[str, set[str]](set)
        for batch in batches:
            with _stumbling():  # no question about a batch with unreadable files
                self._adopt(batch)
                found = self._holders(batch)
                parts.extend((batch, part) for part in batch.directory.parts)
                for job, key in found:
                    holders[job].add(key)
        if parts:
            asked_about = [*(job for _, part in parts for job in part.jobs), *holders]
            statuses = yield partial(self._scheduler.statuses, asked_about)
            if statuses is not None:
                with _stumbling():
                    self._release_claims_of(holders, statuses)
                for batch, part in parts:
                    with _stumbling():
                        self._answered(batch, part, statuses, asked)

    def _adopt(self, batch: BatchState) -> None:
        """Submit for a process killed before the submission, or before the note of the job's name."""
        directory = batch.directory
        if not batch.queued and directory.unsent is not None and (not is_behind(directory) or is_ready(directory)):
            claim = claim_of(directory)
            if claim is not None:
                self._state.claimed(batch, claim, unsent_calls(directory), directory.batch.waited_for())

    def _answered(self, batch: BatchState, part: BatchPart, statuses: dict[str, Status], asked: float) -> None:
        """Take the answer about the elements of a batch in the question."""
        each = batch.directory.batch.calls_per_job
        for number in sorted(batch.calls.keys() & range(part.first * each, part.end * each)):
            self._answered_about(batch, number, statuses, asked)

    def _answered_about(self, batch: BatchState, number: int, statuses: dict[str, Status], asked: float) -> None:
        job = batch.directory.job_of(number)
        status = statuses.get(job or "")
        calls = batch.calls[number]
        for call in calls:
            call.future.submitted_as(job)
        error = hopeless(calls[0], status) if status is not None and status.phase == "waiting" else None
        actions = self._state.answered(
            batch, number, status, asked, self._clock(),
            siblings_listed=not self._scheduler.forgets and _siblings_listed(job, statuses), hopeless=error is not None,
        )  # fmt: skip
        for action in actions:
            if action is Action.CANCEL_HOPELESS and status is not None:
                self._commands.run(self._cancel_hopeless(batch, number, status))
            elif action is Action.READ_HEARTBEAT:
                batch.states[number].heartbeat_read(batch.directory.heart(number), self._clock())
            elif action is Action.FORGET_EXIT:
                batch.directory.forget_exit(number)
            elif action is Action.SHOW_RUNNING:
                self._delivery.show_running(calls)
            else:
                self._delivery.show_queued(calls)

    def _cancel_hopeless(self, batch: BatchState, number: int, status: Status) -> Steps:
        call = batch.calls[number][0]
        with _stumbling():
            largest = yield partial(self._scheduler.largest, call.resources.partition)
            error = hopeless(call, status, largest)
            if number not in batch.calls or error is None:  # cancelled meanwhile
                return
            # The last command before the end, so that no answer about the cancelled job comes in between.
            yield partial(self._scheduler.cancel, [batch.directory.job_of(number) or ""])
            # While the command ran, a caller may have cancelled the call.
            if number in batch.calls:
                self._delivery.fail(batch, number, error)

    # -- jobs that have ended without an outcome -------------------------------------------------------------

    def give_up(self, batch: BatchState, actions: Iterable[CallAction], now: float) -> None:
        """Carry out these actions: let calls fail some time after the ends of their jobs without an outcome."""
        lost = []
        for number, action in actions:
            followed: Action | None = action
            if action is Action.CHECK_HEARTBEAT:
                begun = batch.directory.begun(number)
                heartbeat = None if begun is None else batch.directory.heart(number)
                followed = batch.states[number].checked_heartbeat(None if begun is None else begun.beat, heartbeat, now)
            if followed is Action.GIVE_UP:
                lost.append(number)
        if lost:
            self._commands.run(self._give_up(batch, lost))

    def _give_up(self, batch: BatchState, numbers: list[int]) -> Steps:
        directory = batch.directory
        actions = {number: batch.states[number].given_up() for number in numbers}
        for number in [number for number, action in actions.items() if action is Action.FAIL_UNSEEN]:
            del actions[number]
            with _stumbling():
                self._delivery.fail(batch, number, unseen(batch.calls[number][0]))
        unknown = [number for number, action in actions.items() if action is Action.ASK_HISTORY]
        history: dict[str, Status] = {}
        with _stumbling():
            jobs = [job for number in unknown if (job := directory.job_of(number))]
            history = (yield partial(self._scheduler.history, jobs)) if jobs else {}
        for number in actions:
            try:
                if number in batch.calls:
                    self._conclude(batch, number, history.get(directory.job_of(number) or ""))
                    batch.recovered(("conclusion", number))
            except Exception as error:
                _log.warning("callyard: what has become of jobs is asked again: %s", error)
                if batch.stumbled(("conclusion", number), self._clock()):
                    self._delivery.end(self._state.give_up(batch, number), partial(unreadable, error=error))

    def _conclude(self, batch: BatchState, number: int, history: Status | None) -> None:
        """Let a call fail, unless its job, or the job of an input, may still write an outcome."""
        directory, state, inherited = batch.directory, batch.states[number], None
        action = state.looked_again(self._was_stored(batch, number), history)
        if action is Action.CHECK_INPUTS:
            action = state.checked_inputs(awaits(directory, number, self._state.is_overdue))
            inherited = dependency_failed(directory, number) if action is not None else None
        if action is Action.FAIL and inherited is None and self._goes_on(batch, number, state.verdict):
            self._state.look_soon(self._clock())  # the next look at the files finds the outcome
        elif action is Action.FAIL:
            call = batch.calls[number][0]
            if state.verdict is not None and (state.verdict.failed_node or state.verdict.failed_among):
                self._commands.run(call.owner.failed_nodes.learn(self._scheduler, [state.verdict]))
            self._delivery.fail(batch, number, inherited or why(call, state.verdict))
            self._state.look_soon(self._clock())

    def _goes_on(self, batch: BatchState, number: int, verdict: Status | None) -> bool:
        """Return whether a call goes on in another job.

        Either its inputs do so, and the scheduler has cancelled its own job. Or it has asked for that, its node or the
        process of its job was lost, or there are more limits to try, and its job has ended; not by a user, who wants
        the end of the call.
        """
        if move_after_inputs(batch.directory, [number]):
            return True
        if verdict is None or verdict.error == CANCELLED.error:
            return False
        error, directory = verdict.error or "", batch.directory
        lost = error == WorkerLost.__name__
        if lost or (error in LIMITS and directory.batch.has_next_limits):
            begun = directory.begun(number)
            if lost and not is_loss(verdict, has_begun=begun is not None):
                error = ""
            elif verdict.certain:
                self._delivery.release_claim(begun)  # first: a process that is killed in between leaves none behind
        return move_to_successor(directory, number, error)

    def _was_stored(self, batch: BatchState, number: int) -> bool:
        """Return True if there is an outcome, or a result that the job has stored without an outcome."""
        directory = batch.directory
        if directory.ended(number) is not None:
            return True  # for the next look at the files
        # A job may be killed after the storing of the result, before the writing of the outcome.
        begun = directory.begun(number)
        if begun is None or not begun.key:
            return False
        order = batch.calls[number][0].order
        outcome = CallOutcome("finished", begun.key, self._delivery.home.path if order is None else order.directory)
        if not cache_at(outcome.directory, self._delivery.home.trust).exists(begun.key):
            return False
        return write_down(directory, number, outcome)

    # -- claims of jobs that are gone --------------------------------------------------------------------------

    def _holders(self, batch: BatchState) -> list[tuple[str, str]]:
        """Return the jobs with the claims that jobs of a batch wait for, and the keys of the waiting calls."""
        found = []
        for number, job in batch.directory.waits().items():
            begun = batch.directory.begun(number) if number in batch.calls else None
            if begun is not None:
                found.append((job, begun.key))
        return found

    def _release_claims_of(self, holders: dict[str, set[str]], statuses: dict[str, Status]) -> None:
        """Release claims of jobs that were lost with their nodes: no other process can prove their end."""
        claims, now = Claims(self._delivery.home), self._clock()
        for job, keys in holders.items():
            status = statuses.get(job)
            told = status is not None and status.certain
            if told:
                self._unknown.pop(job, None)
            if status is None or status.phase == "ended":
                for key in keys:
                    if told or self._is_still(claims, key, job, now):
                        release_claim_of(claims, key, job)

    def _is_still(self, claims: Claims, key: str, job: str, now: float) -> bool:
        """Return True if a job, whose end the scheduler cannot tell, has not touched its claim for a long time."""
        heartbeat = claims.last_beat(key)
        heartbeats = self._unknown.setdefault(job, {}).setdefault(key, Heartbeats(heartbeat, now))
        return heartbeats.stillness(heartbeat, now) > max(self._state.grace, _LONG)


@contextlib.contextmanager
def _stumbling() -> Iterator[None]:
    """Log an error of a file system, or a senseless answer of a scheduler, and go on: the next question comes soon."""
    try:
        yield
    except Exception as error:
        _log.warning("callyard: what has become of jobs is asked again: %s", error)


def _siblings_listed(job: str | None, statuses: dict[str, Status]) -> bool:
    array, element = JobId.parse(job or "")
    return element is not None and any(JobId.parse(name).job == array and name != array for name in statuses)


class FileWatcher:
    """The looks at the files of the jobs of one executor."""

    def __init__(self, state: ExecutorState, delivery: Delivery, poller: Poller, clock: Callable[[], float]) -> None:
        self._state, self._delivery, self._poller, self._clock = state, delivery, poller, clock

    def look(self, batches: list[BatchState]) -> None:
        """Look at batches, at each by itself: trouble with one hurts no other."""
        now = self._clock()
        for batch in batches:
            with self._stumbling(batch, None, now):
                self._look_at(batch, now)
        self._state.looked(self._clock())

    def _look_at(self, batch: BatchState, now: float) -> None:
        directory = batch.directory
        listing = directory.listing()
        news = directory.news(listing)
        if not listing and not os.path.exists(directory.path):
            self._delivery.vanished(batch)
            return
        batch.is_complete = batch.is_complete or directory.unsent is None
        for number, action in self._state.listed(batch, news, now):
            if action is Action.READ_OUTCOME:
                with self._stumbling(batch, number, now):
                    self._delivery.read_outcome(batch, number)
            elif number in batch.calls:
                self._delivery.show_running(batch.calls[number])
        # After the reading of outcomes: an exit code matters only for calls still without an outcome.
        over = [number for number in batch.calls if directory.exit_file(number) in listing]
        self._state.exited(batch, over, now)
        self._poller.give_up(batch, self._state.ticked(batch, now), now)

    @contextlib.contextmanager
    def _stumbling(self, batch: BatchState, number: int | None, now: float) -> Iterator[None]:
        """Go on after trouble with the files of one call, or of all; when the grace is over, end these calls."""
        over = "files", number
        try:
            yield
        except Exception as error:
            if batch.stumbled(over, now):
                self._delivery.end(self._state.give_up(batch, number), partial(unreadable, error=error))
        else:
            batch.recovered(over)
