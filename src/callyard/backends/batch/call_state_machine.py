"""The state machine of a submitted call: events in, actions out, time as an argument. It does no I/O.

    event                                      comes from
    ------------------------------------------ -----------------------------------------------------------------
    listed, stored_out_of_sight, directory_gone    the files of its batch
    exited                                     the file with the exit code of its job's script
    answered, history_answered                 the scheduler
    heartbeat_read, checked_heartbeat          the file that a running job touches
    ticked                                     the clock
    told                                       whoever has carried out `FAIL`, or has read the outcome

A call ends in one of two ways: its job writes an outcome, or it is given up. It is given up only when three things
agree: the scheduler counts the job as ended (one answer in which the job is missing is not enough, because a controller
that has just started knows little), no file has said anything for as long as network file systems may hide one, and the
job touches no file any more (a scheduler may forget jobs that still run).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable
from enum import Enum
from typing import TypeVar

from ...jobs.batch import CallOutcome
from ...schedulers.base import CANCELLED, Status

__all__ = ["Action", "CallState", "Fate", "Heartbeats", "fate_of", "first_ready", "withdrawn_with"]

_BEATS = 3  # of a job that do not come before it counts as gone

T = TypeVar("T")


class Action(Enum):
    """An act that follows from an event; the state machine says it, and its caller does it."""

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


class Heartbeats:
    """The times of a file that a running job touches now and then."""

    def __init__(self, heartbeat: int | None, now: float) -> None:
        self._last, self._since = heartbeat, now

    def stillness(self, heartbeat: int | None, now: float) -> float:
        """Return for how long the file has not been touched, by the reader's clock (s): other clocks may be wrong."""
        if heartbeat is not None and heartbeat != self._last:
            self._last, self._since = heartbeat, now
        return now - self._since


class CallState:
    """The state of one call, as its files and the scheduler have shown it. Times are those of the caller's clock (s).

    `grace`: how long network file systems may take to show a file that a job on another machine has written.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self.status: Status | None = None  # the scheduler's last answer that named the job
        self.overdue_since: float | None = None  # when its job was first found to have ended without an outcome
        self.final: Status | None = None  # the answer by which it had ended; None if the job was missing in it
        self.verdict: Status | None = None  # by which it is given up; None if the scheduler knows nothing of the job
        self._given_up_since = 0.0  # what `overdue_since` was then
        self._is_given_up = False  # unless the scheduler takes back meanwhile that the job has ended
        self._missing = 0  # answers in a row in which the job was missing
        self._running_since: float | None = None
        self._heartbeats: Heartbeats | None = None  # of a job that the scheduler does not know
        self._exited_at: float | None = None  # when its job was seen to be over, or told to end
        self._out_of_sight = False  # its result was stored, and is not visible here yet
        self.is_over = False  # its futures have been told, or nobody waits for it

    # -- files -----------------------------------------------------------------------------------------------

    def listed(self, furthest: str | None, now: float) -> Action | None:
        """Take from a listing how far the call has come: see `BatchDirectory.news`."""
        if self.is_over or furthest is None:
            return None
        if furthest != "begun":
            return Action.READ_OUTCOME
        return self._runs(now)

    def exited(self, now: float) -> Action | None:
        """Note that its job has left word of its end, and the call none. What it has written is to be seen then, too.

        So there is no grace for files that come late; but only the scheduler knows whether the job is started again.
        """
        if self.is_over or self._exited_at is not None:
            return None
        self._exited_at = now
        return Action.ASK_NOW

    @property
    def _patience(self) -> float:
        return self._grace if self._exited_at is None or self._out_of_sight else 0.0

    def _runs(self, now: float) -> Action:
        if self._running_since is None:
            self._running_since = now
        return Action.SHOW_RUNNING

    def stored_out_of_sight(self, now: float) -> None:
        """Note that its job says it has stored a result, which is not visible here."""
        if not self._out_of_sight:  # the file system has the whole grace for it, however long the job was missing
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
        """Take an answer to a question that was asked at that time; None: the job is missing in it.

        `siblings_listed`: other elements of its array are not missing. `hopeless`: the job can never begin.
        """
        if self.is_over:
            return []
        before = self.status
        if status is None and before is not None and before.phase == "waiting" and siblings_listed:
            # A scheduler may forget an element at once that is cancelled while it waits.
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
        if status is None and self._heartbeats is None:
            return [Action.READ_HEARTBEAT, Action.LOOK_SOON]
        return [Action.LOOK_SOON]

    def _waits(self, status: Status, before: Status | None, asked: float, hopeless: bool) -> list[Action]:
        actions = []
        if self._running_since is None or self._running_since < asked:  # else it has begun since the question
            self._running_since = None
            actions.append(Action.SHOW_QUEUED)
        if self._exited_at is not None and self._exited_at < asked:
            self._exited_at = None
            actions.append(Action.FORGET_EXIT)
        if hopeless and before is not None and before.reason == status.reason:  # twice: it may pass
            actions.append(Action.CANCEL_HOPELESS)
        return actions

    def heartbeat_read(self, heartbeat: int | None, now: float) -> None:
        """Note the heartbeat with which later ones are compared."""
        if self._heartbeats is None:
            self._heartbeats = Heartbeats(heartbeat, now)

    # -- jobs that have ended without a word -------------------------------------------------------------------

    def ticked(self, now: float) -> Action | None:
        """Say what is to be done with a call whose job seems to have ended some time ago and has not said how."""
        if self.is_over or self.overdue_since is None or self.overdue_since >= now - self._patience:
            return None
        if not (self._out_of_sight or self.final is not None or self._missing > 1):
            return Action.ASK_SOON
        doubtful = self.final is None and self.last_word is None and self._exited_at is None
        if doubtful and not self._out_of_sight and self._heartbeats is not None:
            return Action.CHECK_HEARTBEAT
        return Action.GIVE_UP

    @property
    def last_word(self) -> Status | None:
        """The scheduler's last answer, if the job had ended by that: later it forgets the job."""
        return self.status if self.status is not None and self.status.phase == "ended" else None

    def checked_heartbeat(self, interval: float | None, heartbeat: int | None, now: float) -> Action | None:
        """Say whether the job lives though the scheduler does not know it. `interval` of its beats; None: not begun."""
        if self._heartbeats is None or interval is None:
            return Action.GIVE_UP
        if self._heartbeats.stillness(heartbeat, now) > max(self._grace, _BEATS * interval):
            return Action.GIVE_UP
        self.overdue_since, self.final = now, None
        return None

    def given_up(self) -> Action:
        """Begin to give it up: what must be found out before it fails."""
        assert self.overdue_since is not None
        self._given_up_since, self.verdict = self.overdue_since, self.final or self.last_word
        self.overdue_since, self.final, self._is_given_up = None, None, True
        if self._out_of_sight:
            return Action.FAIL_UNSEEN
        return Action.ASK_HISTORY if self.verdict is None else Action.LOOK_AGAIN

    def looked_again(self, found: bool, history: Status | None) -> Action | None:
        """Conclude from a last look at the files, which comes just before the end: a listing may be older than a file.

        `found`: an outcome, or a result. `history`: the answer to `ASK_HISTORY`, where that was asked.
        """
        self.verdict = status = self.verdict or history
        if self.is_over or not self._is_given_up or (found and not self._out_of_sight):
            return None
        self._is_given_up = False
        if status is not None and status.phase != "ended":
            return None
        return Action.CHECK_INPUTS if status is not None and status.error == CANCELLED.error else Action.FAIL

    def checked_inputs(self, undecided: bool) -> Action | None:
        """Let it fail, unless the outcome of one of its inputs is to come, which tells why it was cancelled."""
        if undecided:
            self.overdue_since, self.final = self._given_up_since, self.verdict
            return None
        return Action.FAIL

    def told(self) -> None:
        """Note that nobody waits for it any more; no event leads to an action from now on."""
        self.is_over = True


class Fate(Enum):
    """What becomes of one who waits for a call that has ended."""

    RESULT = "its future has the result"
    ERROR = "its future fails with the error of the job"
    CANCELLED = "its future is cancelled"
    RESUBMIT = "it is submitted again"
    LOST = "its future fails, because nobody knows what has become of it"


def fate_of(outcome: CallOutcome, ours: bool) -> Fate:
    """Say what an outcome means for one who waits. `ours`: the same executor has submitted the call."""
    if outcome.state == "finished":
        return Fate.RESULT
    if outcome.state == "withdrawn" and not ours:  # its submitter has given it up, and did not see us wait
        return Fate.RESUBMIT
    return Fate.ERROR if outcome.state == "failed" else Fate.CANCELLED


def first_ready(
    waiting: Collection[T],
    token_of: Callable[[T], str],
    needs: Callable[[T], Iterable[str]],
    lacks_job: Callable[[str], bool],
) -> T | None:
    """Return the first batch that waits for none that the scheduler has not got: it cannot wait for an unknown job."""
    unsent = {token_of(each) for each in waiting}
    return next(
        (each for each in waiting if not any(token in unsent or lacks_job(token) for token in needs(each))), None
    )


def withdrawn_with(together: Collection[int], awaited: Container[int], cancelled: Container[int]) -> list[int]:
    """Return the calls that end with the job that makes these; none as long as one of them is still waited for."""
    if any(number in awaited for number in together):
        return []
    return [number for number in together if number in cancelled]
