"""The state machine of an executor of jobs: events in, actions out, time as an argument. It does no I/O.

How often the scheduler is asked follows from `Slurm(poll=)`, and is decided here.

    action               carried out by          its events
    -------------------- ----------------------- ----------------------------------------------------------------
    `Write`              `writer`                `take_new`, then `written` and `follow`; or `writing_failed`
    `Submit`             `submitter`             `sent`, `refused`, `not_sent`
    `Look`               `poller`                `listed`, `outcome_read`, `vanished`, then `looked`
    `Ask`                `poller`                `claimed`, `answered`, then `asked`
    `Abandon`, `Drop`,   `submitter`             none: no caller here waits any more
    `Settle`

The fate of one call is decided by its `CallState`; the writing, submission, looks, questions and ends of batches are
decided here. Any trouble is an event of one batch (`stumbled`, `not_sent`), so it ends no calls of other batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from math import inf

from ...cache.claims import Claim
from ...jobs.batch import CallOutcome
from ...jobs.spool import BatchDirectory
from ...schedulers.base import Status
from ...utils.backoff import Backoff
from .batch_state import (
    Abandon,
    Ask,
    BatchState,
    CallAction,
    Drop,
    EndCall,
    ExecutorAction,
    Look,
    Settle,
    Submit,
    Write,
)
from .call import JobCall
from .call_state_machine import Action, Fate, fate_of, first_ready

__all__ = ["ExecutorState"]

_SOONEST, _LATEST, _RARER = 0.05, 2.0, 1.15  # s between two looks at the files, and their growth
_SLOWER = 1.3  # the growth of the time between two questions


class ExecutorState:
    """The calls and batches of one executor, from `submit` to their ends. Times are those of the caller's clock (s).

    `poll` has the shortest and the longest time between two questions; `grace` is the time that files may take to show.
    """

    def __init__(self, poll: tuple[float, float], grace: float) -> None:
        self.grace, self._pause = grace, poll[0]
        self.new: dict[JobCall, None] = {}  # to be written, in order
        self.batches: dict[str, BatchState] = {}  # by token
        self._queue: list[BatchState] = []  # to be submitted, in order
        self._sending: BatchState | None = None
        self._writing = self._asking = self._asks_again = False
        self._send_at = self._write_at = -inf
        self._changed = False  # a call or a batch may have to be let go of
        self._looks = Backoff(_SOONEST, _LATEST, _RARER)
        self._questions = Backoff(*poll, _SLOWER)
        self._waited_for = 0  # calls, at the last look
        self._begin = False  # calls have begun since then

    # -- what is due -------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[ExecutorAction]:
        """Return the actions for the present moment."""
        actions = list(self._ends()) if self._changed else []
        if now >= self._send_at:
            if self.new and not self._writing and now >= self._write_at:
                self._writing = True
                actions.append(Write())
            batch = self._next_to_send(now)
            if batch is not None:
                self._sending = batch
                actions.append(Submit(batch))
        followed = self._followed()
        if followed and now >= self._looks.at:
            self._waited_for = sum(len(batch.all_calls()) for batch in followed)
            actions.append(Look(followed))
        if followed and now >= self._questions.at and not self._asking:
            self._asking = True
            actions.append(Ask(followed))
        return actions

    def due(self) -> float | None:
        """Return the time of the next action; None if an event must come first."""
        times = [-inf] if self._changed else []
        if self.new and not self._writing:
            times.append(max(self._send_at, self._write_at))
        for at in sorted({batch.send_at for batch in self._queue}):
            if self._next_to_send(at) is not None:
                times.append(max(self._send_at, at))
                break
        if any(batch.is_followed for batch in self.batches.values()):
            times.append(self._looks.at)
            if not self._asking:
                times.append(self._questions.at)
        return min(times, default=None)

    @property
    def sends_at(self) -> float:
        """The time before which the scheduler takes nothing."""
        return self._send_at

    @property
    def is_idle(self) -> bool:
        return not self.new and not self.batches

    def unsent_calls(self) -> list[JobCall]:
        """Return the calls unknown to the scheduler."""
        written = [call for batch in self._queue for number in batch.unsent for call in batch.calls.get(number, ())]
        return [*self.new, *written]

    def _followed(self) -> list[BatchState]:
        return [batch for batch in self.batches.values() if batch.is_followed]

    def _next_to_send(self, now: float) -> BatchState | None:
        if self._sending is not None:
            return None
        return first_ready(
            self._queue,
            lambda batch: batch.token,
            lambda batch: batch.after if batch.send_at <= now else {batch.token},  # after itself: later
            self._lacks_job,
        )

    def _lacks_job(self, token: str) -> bool:
        """Return True for an awaited batch, if some part was perhaps never submitted."""
        batch = self.batches.get(token)
        return batch is not None and not batch.is_complete

    def _ends(self) -> Iterator[ExecutorAction]:
        """Yield the ends of calls and of batches without a waiting future."""
        self._changed = False
        abandoned = list[tuple[BatchState, int, JobCall]]()
        ends: list[ExecutorAction] = []
        for batch in list(self.batches.values()):
            if batch is self._sending:  # after the sending there is another look
                continue
            if batch.queued and not batch.is_wanted:
                ends.append(self._drop(batch))
            for number in [number for number in batch.left if number not in batch.unsent]:
                abandoned.append((batch, number, batch.left.pop(number)))
            if not batch.calls and not batch.queued and self.batches.pop(batch.token, None) is not None:
                ends.append(Settle(batch))
        if abandoned:
            yield Abandon(abandoned)
        yield from ends

    def _drop(self, batch: BatchState) -> Drop:
        """Submit no more of a batch, because no future waits for the rest."""
        self._dequeue(batch)
        calls = [batch.left.pop(number) for number in sorted(batch.unsent & batch.left.keys())]
        batch.unsent.clear()
        return Drop(batch, calls)

    # -- new calls ---------------------------------------------------------------------------------------------

    def enter(self, calls: Iterable[JobCall]) -> None:
        """Take calls for writing, but none before its inputs."""
        ready = deque(calls)
        while ready:
            call = ready.popleft()
            first = next((other for other in call.needs() if not other.entered), None)
            if first is not None:
                first.followers.append(call)
            elif not call.entered:
                call.entered = True
                self.new[call] = None
                ready.extend(call.followers)

    def left(self, call: JobCall) -> None:
        """Let go of a call after an end decided elsewhere: by a cancellation, or by the failure of an input.

        After an end before the writing, nothing keeps the followers of the call any longer.
        """
        self.new.pop(call, None)
        if not call.entered:
            call.entered = True
            self.enter(call.followers)
            return
        batch = None if call.directory is None else self.batches.get(call.directory.token)
        if batch is not None and batch.leave(call):
            self._changed = True

    def take_new(self) -> list[JobCall]:
        """Return the new calls: the caller writes them now."""
        self._writing = False
        calls = list(self.new)
        self.new.clear()
        return calls

    def crowded(self, now: float) -> None:
        """Gather more calls, because each array would have to name too many others."""
        self._writing, self._write_at = False, now + self._pause

    def writing_failed(self) -> None:
        """Write later, because the scheduler has not told the largest array."""
        self._writing = False

    def pause(self, until: float) -> None:
        """Neither write nor submit before the given time, because the scheduler takes nothing."""
        self._send_at = until

    def hurry(self) -> None:
        """Write and submit at once, although the scheduler has asked for a pause: there is no later."""
        self._send_at = self._write_at = -inf
        for batch in self._queue:
            batch.send_at = -inf

    def written(self, directory: BatchDirectory, calls: Iterable[JobCall], after: Iterable[str]) -> BatchState:
        """Submit a batch written here."""
        batch = self.batches[directory.token] = BatchState(directory, self.grace, ours=True, after=after)
        for call in calls:
            batch.add(call)
            batch.unsent.add(call.number)
        self._enqueue(batch)
        return batch

    def follow(self, call: JobCall, now: float, *, is_complete: bool, has_job: bool) -> BatchState:
        """Wait for a call with an earlier submission."""
        assert call.directory is not None
        token = call.directory.token
        batch = self.batches.get(token) or BatchState(call.directory, self.grace, ours=False)
        self.batches[token] = batch
        batch.is_complete = batch.is_complete or is_complete
        batch.add(call)
        self._begin_to_follow(now, has_job)
        return batch

    def _begin_to_follow(self, now: float, has_job: bool) -> None:
        self._looks.begin(min(self._looks.at, now) if self._looks.at else now)
        # A batch without a job may wait for a process that is gone: a question at once finds out, see `Poller`.
        self._questions.begin(now + self._questions.first if has_job else now)

    # -- submission --------------------------------------------------------------------------------------------

    def _enqueue(self, batch: BatchState) -> None:
        batch.queued, self._changed = True, True
        self._queue.append(batch)

    def _dequeue(self, batch: BatchState) -> None:
        if batch.queued:
            self._queue.remove(batch)
        batch.queued, self._changed = False, True

    def claimed(self, batch: BatchState, claim: Claim, unsent: Iterable[int], after: Iterable[str]) -> None:
        """Submit a batch for a process that is gone; the batch may have been submitted, without a note."""
        batch.claim, batch.perhaps, batch.unsent = claim, True, set(unsent) & batch.calls.keys()
        batch.after = frozenset(after)
        self._enqueue(batch)

    def sent(self, batch: BatchState, unsent: Container[int], now: float, *, is_complete: bool) -> None:
        """Note the arrival of a batch's calls at the scheduler, except for `unsent`."""
        self._sending, self._changed = None, True
        batch.recovered("submission")
        batch.is_complete, batch.perhaps = is_complete, False
        got = {number for number in batch.unsent if number not in unsent}
        batch.unsent -= got
        if got & (batch.calls.keys() | batch.left.keys()):
            self._begin_to_follow(now, True)
        if is_complete:
            self._dequeue(batch)

    def refused(self, batch: BatchState, until: float, *, perhaps: bool) -> None:
        """Note a refusal for now. `perhaps`: the scheduler may have taken the last part without saying so."""
        self._sending, self._changed = None, True
        batch.recovered("submission")
        batch.perhaps = perhaps
        self.pause(until)

    def not_sent(self, batch: BatchState, now: float, *, may_pass: bool) -> bool:
        """Note an error with this batch during the submission; return True if there is going to be another attempt."""
        self._sending, self._changed = None, True
        if not may_pass or batch.stumbled("submission", now):
            return False
        # The scheduler may have taken a part, and the error be one of the note about that part.
        batch.perhaps, batch.send_at = True, now + self._pause
        return True

    def give_up_sending(self, batch: BatchState) -> list[JobCall]:
        """Return the calls of a batch never to be submitted, and end the wait for these calls."""
        self._sending = None if batch is self._sending else self._sending
        self._dequeue(batch)
        calls = [call for number in sorted(batch.unsent) for call in batch.pop(number)]
        for number in batch.unsent & batch.left.keys():
            del batch.left[number]
        batch.unsent.clear()
        return calls

    # -- files -------------------------------------------------------------------------------------------------

    def listed(self, batch: BatchState, news: Mapping[int, str], now: float) -> list[CallAction]:
        """Take the progress of a batch's calls from a listing; return the actions that follow."""
        actions = []
        for number, state in batch.states.items():
            waited = not state.has_begun
            action = state.listed(news.get(number), now)
            self._begin |= waited and state.has_begun
            if action is not None:
                actions.append(CallAction(number, action))
        return actions

    def exited(self, batch: BatchState, numbers: Iterable[int], now: float) -> None:
        """The jobs of these calls have left an exit code, and the calls no outcome yet."""
        for number in numbers:
            if number in batch.states and batch.states[number].exited(now) is Action.ASK_NOW:
                self._questions.begin(now)
                self._asks_again = self._asking  # the question on the way came too early

    def ticked(self, batch: BatchState, now: float) -> list[CallAction]:
        """Return the actions for calls without an outcome some time after the ends of their jobs."""
        actions = []
        for number, state in batch.states.items():
            action = state.ticked(now)
            if action is Action.ASK_SOON:
                self._questions.sooner(now + self._questions.first)
            elif action is not None:
                actions.append(CallAction(number, action))
        return actions

    def outcome_read(
        self, batch: BatchState, number: int, outcome: CallOutcome, now: float, *, visible: bool
    ) -> list[EndCall]:
        """End the calls that waited for this one. `visible`: the result, if any, can be seen here."""
        if outcome.state == "finished" and not visible:
            batch.states[number].stored_out_of_sight(now)
            return []
        ends = [EndCall(call, fate_of(outcome, call.ours)) for call in batch.pop(number)]
        return self._ended(ends)

    def vanished(self, batch: BatchState) -> list[EndCall]:
        """Note the loss of a batch's directory: removed by a process that did not see us come, or by mistake."""
        calls = [call for number in sorted(batch.calls) for call in batch.pop(number)]
        return self._ended([EndCall(call, Fate.LOST if call.ours else Fate.RESUBMIT) for call in calls])

    def give_up(self, batch: BatchState, number: int | None = None) -> list[JobCall]:
        """Return the calls that waited for this one, or for any of the batch, and end the wait."""
        self._changed = True
        numbers = sorted(batch.calls) if number is None else [number]
        return [call for each in numbers for call in batch.pop(each)]

    def _ended(self, ends: list[EndCall]) -> list[EndCall]:
        self._changed = True
        self.once_more(end.call for end in ends if end.fate is Fate.RESUBMIT)
        return ends

    def once_more(self, calls: Iterable[JobCall]) -> None:
        """Submit calls anew, after the loss of their jobs."""
        for call in calls:
            call.directory = None
            self.new[call] = None

    def look_soon(self, now: float) -> None:
        self._looks.sooner(now)

    def looked(self, now: float) -> None:
        """Note a look at all files: look again soon after ends and beginnings, and rarely while nothing happens.

        Most calls that are short end soon after their beginning.
        """
        left = sum(len(batch.all_calls()) for batch in self._followed())
        self._looks.done(now, progress=left < self._waited_for or self._begin)
        self._begin = False

    # -- the scheduler -----------------------------------------------------------------------------------------

    def answered(
        self, batch: BatchState, number: int, status: Status | None, asked: float, now: float, *,
        siblings_listed: bool, hopeless: bool,
    ) -> list[Action]:  # fmt: skip
        """Take the answer about one call; see `CallState.answered`."""
        actions = batch.states[number].answered(status, asked, now, siblings_listed=siblings_listed, hopeless=hopeless)
        if Action.LOOK_SOON in actions:
            self.look_soon(now)
        return [action for action in actions if action is not Action.LOOK_SOON]

    def asked(self, now: float) -> None:
        """Note the end of a question about all jobs, answered or not."""
        self._asking = False
        self._questions.done(now)
        if self._asks_again:
            self._asks_again = False
            self._questions.sooner(now)

    def is_overdue(self, token: str, number: int) -> bool:
        """Return True for an awaited call with an ended job and without an outcome so far."""
        batch = self.batches.get(token)
        state = None if batch is None else batch.states.get(number)
        return state is not None and state.overdue_since is not None
