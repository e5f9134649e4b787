"""The state machine of a submitted call: events in, actions out, time as an argument, no I/O.

    event                                      comes from
    ------------------------------------------ -----------------------------------------------------------------
    listed, stored_out_of_sight, directory_gone    the files of the batch
    exited                                     the file with the exit code of the job's script
    answered, history_answered                 the scheduler
    heartbeat_read, checked_heartbeat          the file touched by a running job
    ticked                                     the clock
    told                                       the module that has carried out `FAIL`, or has read the outcome

A call ends in one of two ways: its job writes an outcome, or the call is given up. The second needs three proofs: the
scheduler counts the job as ended (one answer without the job is not enough, because a controller just started knows
little), no file has come for as long as network file systems may hide one, and the job touches no file any more (a
scheduler may forget running jobs).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable
from enum import Enum
from typing import TypeVar

from ...jobs.batch import CallOutcome
from ...jobs.heartbeats import MISSING_BEATS, Heartbeats
from ...schedulers.base import CANCELLED, Status

__all__ = ["Action", "CallState", "Fate", "fate_of", "first_ready", "withdrawn_with"]

T = TypeVar("T")


class Action(Enum):
    """An act after an event: decided by the state machine, done by its caller."""

    READ_OUTCOME = "read how the call ended from its file"
    SHOW_RUNNING = "let its futures say that it runs"
    SHOW_QUEUED = "let its futures say that it waits again"
    READ_HEARTBEAT = "read when its job last touched its file"
    CHECK_HEARTBEAT = "read that again, and how often the job meant to touch it"
    LOOK_SOON = "look at the files without delay"
    ASK_NOW = "ask the scheduler, which knows by now how its job has ended"
    FORGET_EXIT = "remove the exit code of its job, which is going to be started again"
    ASK_SOON = "ask the scheduler again before long"
    CANCEL_HOPELESS = "cancel its job, which can never begin, and let the call fail"
    GIVE_UP = "give it up"
    FAIL_UNSEEN = "let it fail: its result is stored where it cannot be seen"
    ASK_HISTORY = "ask the scheduler's history how the job ended"
    LOOK_AGAIN = "look once more for a result before it fails"
    CHECK_INPUTS = "find out whether the outcome of one of its inputs is still to come"
    FAIL = "let it fail for what the scheduler says"


class CallState:
    """The state of one call, by its files and the scheduler's answers. All times are from the caller's clock (s).

    `grace` is the time after which network file systems show a file written on another machine.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self.status: Status | None = None  # the last answer with the job
        self.overdue_since: float | None = None  # the time of the first news of an ended job without an outcome
        self.final: Status | None = None  # the answer with the end of the job; None for an answer without the job
        self.verdict: Status | None = None  # the reason for giving up; None if the scheduler knows nothing of the job
        self._given_up_since = 0.0  # the former `overdue_since`
        self._is_given_up = False  # unless the scheduler changes the answer meanwhile
        self._missing = 0  # answers in a row without the job
        self._running_since: float | None = None
        self._heartbeats: Heartbeats | None = None  # of a job that the scheduler does not know, or has not seen end
        self._exited_at: float | None = None  # the time of the first news of the script's end
        self._out_of_sight = False  # the result was stored, and is not visible here yet
        self.is_over = False  # the futures have been told, or no caller waits

    # -- files -----------------------------------------------------------------------------------------------

    def listed(self, furthest: str | None, now: float) -> Action | None:
        """Take the progress of the call from a listing: see `BatchDirectory.news`."""
        if self.is_over or furthest is None:
            return None
        if furthest != "begun":
            return Action.READ_OUTCOME
        return self._runs(now)

    def exited(self, now: float) -> Action | None:
        """Note the end of the job's script, by its own word, without an outcome of the call.

        Files written before that are visible, too, so late files get no grace; but only the scheduler knows whether the
        job is started again.
        """
        if self.is_over or self._exited_at is not None:
            return None
        self._exited_at = now
        return Action.ASK_NOW

    @property
    def _patience(self) -> float:
        return self._grace if self._exited_at is None or self._out_of_sight else 0.0

    @property
    def running_since(self) -> float | None:
        """The time of the first news that the call runs; None while it does not."""
        return self._running_since

    @property
    def has_begun(self) -> bool:
        return self._running_since is not None

    def _runs(self, now: float) -> Action:
        if self._running_since is None:
            self._running_since = now
        return Action.SHOW_RUNNING

    def stored_out_of_sight(self, now: float) -> None:
        """Note a result stored by the job, by its own word, but not visible here."""
        if not self._out_of_sight:  # the file system has the whole grace, however long the job was missing
            self.overdue_since = None
        self._out_of_sight = True
        self._overdue(now, None)

    def _overdue(self, now: float, status: Status | None) -> None:
        if self.overdue_since is None:
            self.overdue_since = now
        self.final = self.final or status

    # -- the scheduler -----------------------------------------------------------------------------------------

    def answered(
        self, status: Status | None, asked: float, now: float, *, siblings_listed: bool = False, hopeless: bool = False
    ) -> list[Action]:
        """Take an answer to a question asked at the time `asked`; None for an answer without the job.

        `siblings_listed`: other elements of its array are in the answer. `hopeless`: the job can never begin.
        """
        if self.is_over:
            return []
        before = self.status
        if status is None and before is not None and before.phase == "waiting" and siblings_listed:
            # A scheduler may at once forget an element cancelled while waiting.
            status = CANCELLED
        self._missing = self._missing + 1 if status is None else 0
        self.status = status or before
        if status is None or status.phase == "ended":
            return self._ended_or_missing(status, now)
        self.overdue_since = self.final = self._heartbeats = None
        self._is_given_up = False
        if status.phase == "running":
            return [self._runs(now)]
        return self._waits(status, before, asked, hopeless)

    def _ended_or_missing(self, status: Status | None, now: float) -> list[Action]:
        self._overdue(now, status)
        if self._heartbeats is None and (status is None or not status.certain):
            return [Action.READ_HEARTBEAT, Action.LOOK_SOON]
        return [Action.LOOK_SOON]

    def _waits(self, status: Status, before: Status | None, asked: float, hopeless: bool) -> list[Action]:
        actions = []
        if self._running_since is None or self._running_since < asked:  # otherwise begun since the question
            self._running_since = None
            actions.append(Action.SHOW_QUEUED)
        if self._exited_at is not None and self._exited_at < asked:
            self._exited_at = None
            actions.append(Action.FORGET_EXIT)
        if hopeless and before is not None and before.reason == status.reason:  # twice, because such a reason may pass
            actions.append(Action.CANCEL_HOPELESS)
        return actions

    def heartbeat_read(self, heartbeat: int | None, now: float) -> None:
        """Note the heartbeat for comparison with later ones."""
        if self._heartbeats is None:
            self._heartbeats = Heartbeats(heartbeat, now)

    # -- jobs that have ended without a word -------------------------------------------------------------------

    def ticked(self, now: float) -> Action | None:
        """Return the action for a call whose job seems to have ended some time ago, without an outcome."""
        if self.is_over or self.overdue_since is None or self.overdue_since >= now - self._patience:
            return None
        if not (self._out_of_sight or self.final is not None or self._missing > 1):
            return Action.ASK_SOON
        if self._is_doubtful and not self._out_of_sight and self._heartbeats is not None:
            return Action.CHECK_HEARTBEAT
        return Action.GIVE_UP

    @property
    def _is_doubtful(self) -> bool:
        """True if only the silence of its files can tell the end of the job's processes."""
        word = self.final or self.last_word
        return self._exited_at is None and (word is None or not word.certain)

    @property
    def last_word(self) -> Status | None:
        """The scheduler's last answer, if already about an ended job: later the scheduler forgets the job."""
        return self.status if self.status is not None and self.status.phase == "ended" else None

    def checked_heartbeat(self, interval: float | None, heartbeat: int | None, now: float) -> Action | None:
        """Decide on the life of a job unknown to the scheduler, or ended by its word alone.

        `interval` is the time between beats; None: not begun.
        """
        if self._heartbeats is None or interval is None:
            return Action.GIVE_UP
        if self._heartbeats.stillness(heartbeat, now) > max(self._grace, MISSING_BEATS * interval):
            return Action.GIVE_UP
        self.overdue_since, self.final = now, None
        return None

    def given_up(self) -> Action:
        """Begin to give the call up: return the last question before the failure."""
        assert self.overdue_since is not None
        self._given_up_since, self.verdict = self.overdue_since, self.final or self.last_word
        self.overdue_since, self.final, self._is_given_up = None, None, True
        if self._out_of_sight:
            return Action.FAIL_UNSEEN
        return Action.ASK_HISTORY if self.verdict is None else Action.LOOK_AGAIN

    def looked_again(self, found: bool, history: Status | None) -> Action | None:
        """Conclude from a last look at the files, just before the end, because a listing may be older than a file.

        `found`: an outcome, or a result. `history`: the answer to `ASK_HISTORY`, if asked.
        """
        self.verdict = status = self.verdict or history
        if self.is_over or not self._is_given_up or (found and not self._out_of_sight):
            return None
        self._is_given_up = False
        if status is not None and status.phase != "ended":
            return None
        return Action.CHECK_INPUTS if status is not None and status.error == CANCELLED.error else Action.FAIL

    def checked_inputs(self, undecided: bool) -> Action | None:
        """Let the call fail, unless an input's outcome is still to come, which tells why the call was cancelled."""
        if undecided:
            self.overdue_since, self.final = self._given_up_since, self.verdict
            return None
        return Action.FAIL

    def told(self) -> None:
        """Note the end of all waiting; no event leads to an action from now on."""
        self.is_over = True


class Fate(Enum):
    """The fate of a caller after the end of a call."""

    RESULT = "its future has the result"
    ERROR = "its future fails with the error of the job"
    CANCELLED = "its future is cancelled"
    RESUBMIT = "it is submitted again"
    LOST = "its future fails, because nobody knows what has become of it"


def fate_of(outcome: CallOutcome, ours: bool) -> Fate:
    """Return the meaning of an outcome for a caller. `ours`: the same executor has submitted the call."""
    if outcome.state == "finished":
        return Fate.RESULT
    if outcome.state == "withdrawn" and not ours:  # given up by the submitter, without a look at us among the waiting
        return Fate.RESUBMIT
    return Fate.ERROR if outcome.state == "failed" else Fate.CANCELLED


def first_ready(
    waiting: Collection[T],
    token_of: Callable[[T], str],
    needs: Callable[[T], Iterable[str]],
    lacks_job: Callable[[str], bool],
) -> T | None:
    """Return the first batch after submitted ones only, because the scheduler cannot wait for an unknown job."""
    unsent = {token_of(each) for each in waiting}
    return next(
        (each for each in waiting if not any(token in unsent or lacks_job(token) for token in needs(each))), None
    )


def withdrawn_with(together: Collection[int], awaited: Container[int], cancelled: Container[int]) -> list[int]:
    """Return the calls ended together with one job; none while one of the calls has a caller."""
    if any(number in awaited for number in together):
        return []
    return [number for number in together if number in cancelled]
