"""The state machine of a submitted call: random events, files that come late, schedulers that forget, lost nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from callyard.backends.batch.call_state_machine import Action, CallState, Fate, fate_of, first_ready, withdrawn_with
from callyard.jobs.batch import CallOutcome
from callyard.schedulers.base import CANCELLED, Status

GRACE, BEAT = 10.0, 2.0  # s
CALLS = 4
NEVER = float("inf")
QUEUED, RUNNING = Status("waiting", "waits for free nodes"), Status("running", "runs")
COMPLETED = Status("ended", "ended with exit code 0", exit_code=0)
FAILED = Status("ended", "ended with exit code 1", "WorkerLost", exit_code=1)
NODE_FAILED = Status("ended", "lost its node", "NodeFailure")
LOST = Status("ended", "lost one of its nodes", "NodeFailure", certain=False)
TIMED_OUT = Status("ended", "reached its time limit", "TimeLimitExceeded")
LATE = st.sampled_from([0.0, GRACE / 4, GRACE / 2])  # s


# ------------------------------------------------------------------ any order of events


@dataclass
class Job:
    """What a job really does, wherever that is seen: it waits, runs, and ends with an outcome or without a word."""

    number: int
    phase: str = "queued"  # "running", "gone"
    ended_as: Status = COMPLETED  # what the scheduler says of its end
    is_known: bool = True  # by the scheduler
    begun_at: float = NEVER
    outcome_seen_at: float = NEVER  # when a network file system shows the file
    result_seen_at: float = NEVER
    is_lost: bool = False  # the scheduler says that its node has failed, while it runs or after that
    leaves_word: bool = False  # its script lives to write its exit code
    heartbeat: int = 0

    def status(self) -> Status | None:
        return self.kept_status() if self.is_known else None

    def kept_status(self) -> Status:
        if self.is_lost:
            return LOST
        return {"queued": QUEUED, "running": RUNNING}.get(self.phase, self.ended_as)


@dataclass
class Waiter:
    """Carries out the actions for one call, as the poller does, and notes what its future was told."""

    job: Job
    state: CallState = field(default_factory=lambda: CallState(GRACE))
    told: list[str] = field(default_factory=list)
    asks_history: bool = False

    def tell(self, what: str) -> None:
        self.told.append(what)
        self.state.told()


class Calls(RuleBasedStateMachine):
    """Jobs, each of which takes the result of the one before, their scheduler, and who waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.waiters = [Waiter(Job(number)) for number in range(CALLS)]
        self.asked: tuple[float, list[Status | None]] | None = None  # a question whose answer is on its way
        self.has_just_started = False  # the scheduler, when it answered last: then it knew nothing

    @initialize(begun=st.sets(st.integers(0, CALLS - 1)), forgotten=st.booleans())
    def some_have_begun(self, begun: set[int], forgotten: bool) -> None:
        for number in begun:
            job = self.waiters[number].job
            job.phase, job.begun_at, job.is_known = "running", self.now, not forgotten

    # -- the world -----------------------------------------------------------------------------------------

    def some(self, phase: str) -> list[Waiter]:
        return [waiter for waiter in self.waiters if waiter.job.phase == phase]

    @rule(seconds=st.sampled_from([0.1, GRACE / 4, GRACE / 2]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for waiter in self.some("running"):
            waiter.job.heartbeat += 1

    @precondition(lambda self: self.some("queued"))
    @rule(number=st.integers(1, CALLS), late=LATE)
    def jobs_begin(self, number: int, late: float) -> None:
        for waiter in self.some("queued")[:number]:
            waiter.job.phase, waiter.job.begun_at = "running", self.now + late

    @precondition(lambda self: self.some("running"))
    @rule(data=st.data(), late=LATE, later=LATE)
    def a_job_finishes(self, data: st.DataObject, late: float, later: float) -> None:
        job = data.draw(st.sampled_from(self.some("running"))).job
        job.phase, job.ended_as = "gone", COMPLETED
        job.outcome_seen_at, job.result_seen_at = self.now + late, self.now + late + later

    @precondition(lambda self: self.some("running"))
    @rule(data=st.data(), code=st.sampled_from([NODE_FAILED, FAILED, TIMED_OUT, CANCELLED]), leaves_word=st.booleans())
    def a_job_ends_without_an_outcome(self, data: st.DataObject, code: Status, leaves_word: bool) -> None:
        job = data.draw(st.sampled_from(self.some("running"))).job
        job.phase, job.ended_as, job.leaves_word = "gone", code, leaves_word

    @precondition(lambda self: self.some("queued"))
    @rule(data=st.data())
    def a_job_is_cancelled_before_it_begins(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.some("queued"))).job
        job.phase, job.ended_as = "gone", CANCELLED

    @precondition(lambda self: self.some("running"))
    @rule(data=st.data())
    def a_job_is_put_back_into_the_queue(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.some("running"))).job
        if job.is_known and not job.is_lost:
            job.phase, job.begun_at = "queued", NEVER

    @precondition(lambda self: self.some("running"))
    @rule(data=st.data())
    def the_scheduler_loses_a_node(self, data: st.DataObject) -> None:
        """The job there goes on all the same."""
        data.draw(st.sampled_from(self.some("running"))).job.is_lost = True

    @rule()
    def the_scheduler_forgets_what_runs(self) -> None:
        """It goes on all the same."""
        for waiter in self.some("running"):
            waiter.job.is_known = False

    @precondition(lambda self: self.some("queued"))
    @rule(data=st.data())
    def the_scheduler_forgets_what_waits(self, data: st.DataObject) -> None:
        """It is never going to begin."""
        job = data.draw(st.sampled_from(self.some("queued"))).job
        job.is_known, job.phase, job.ended_as = False, "gone", CANCELLED

    # -- events --------------------------------------------------------------------------------------------

    @rule()
    def look(self) -> None:
        for waiter in self.waiters:
            furthest = "begun" if waiter.job.begun_at <= self.now else None
            if waiter.job.outcome_seen_at <= self.now:
                furthest = "end"
            action = waiter.state.listed(furthest, self.now)
            if waiter.job.leaves_word and waiter.job.outcome_seen_at == NEVER:  # else it would be seen as well
                waiter.state.exited(self.now)
            if action is Action.READ_OUTCOME:
                if waiter.job.result_seen_at <= self.now:
                    waiter.tell("result")
                else:
                    waiter.state.stored_out_of_sight(self.now)
            self.tick(waiter)

    def tick(self, waiter: Waiter) -> None:
        action = waiter.state.ticked(self.now)
        if action is Action.CHECK_HEARTBEAT:
            interval = BEAT if waiter.job.begun_at <= self.now else None
            action = waiter.state.checked_heartbeat(interval, waiter.job.heartbeat, self.now)
        if action is Action.GIVE_UP:
            self.give_up(waiter)

    def give_up(self, waiter: Waiter) -> None:
        action = waiter.state.given_up()
        if action is Action.FAIL_UNSEEN:
            waiter.tell("unseen")
        elif action is Action.ASK_HISTORY:
            waiter.asks_history = True
        else:
            self.conclude(waiter, None)

    def conclude(self, waiter: Waiter, history: Status | None) -> None:
        action = waiter.state.looked_again(waiter.job.outcome_seen_at <= self.now, history)
        if action is Action.CHECK_INPUTS:
            before = self.waiters[waiter.job.number - 1] if waiter.job.number else None
            undecided = before is not None and not before.told and before.state.overdue_since is not None
            action = waiter.state.checked_inputs(undecided)
        if action is Action.FAIL:
            waiter.tell("failure")

    @precondition(lambda self: any(waiter.asks_history for waiter in self.waiters))
    @rule(is_kept=st.booleans())
    def the_history_answers(self, is_kept: bool) -> None:
        for waiter in self.waiters:
            if waiter.asks_history:
                waiter.asks_history = False
                self.conclude(waiter, waiter.job.kept_status() if is_kept else None)

    @precondition(lambda self: self.asked is None)
    @rule()
    def ask(self) -> None:
        self.asked = self.now, [waiter.job.status() for waiter in self.waiters]

    @precondition(lambda self: self.asked is not None)
    @rule(kind=st.sampled_from(["full", "silent", "empty"]))
    def answer(self, kind: str) -> None:
        assert self.asked is not None
        (asked, statuses), self.asked = self.asked, None
        if kind == "silent":
            return
        self.has_just_started = kind == "empty" and not self.has_just_started
        for waiter, status in zip(self.waiters, statuses, strict=True):
            actions = waiter.state.answered(None if self.has_just_started else status, asked, self.now)
            if Action.READ_HEARTBEAT in actions:
                waiter.state.heartbeat_read(waiter.job.heartbeat, self.now)

    @rule(rounds=st.integers(1, 6), is_kept=st.booleans())
    def nothing_happens(self, rounds: int, is_kept: bool) -> None:
        for _ in range(rounds):
            self.time_passes(GRACE / 2)
            if self.asked is None:
                self.ask()
            self.answer("full")
            self.look()
            if any(waiter.asks_history for waiter in self.waiters):
                self.the_history_answers(is_kept)

    @precondition(lambda self: not self.waiters[-1].told)
    @rule()
    def cancel(self) -> None:
        """The future of the last one is cancelled here, so nobody waits for that any more."""
        self.waiters[-1].tell("cancelled")

    # -- promises ------------------------------------------------------------------------------------------

    @invariant()
    def each_is_told_once(self) -> None:
        assert all(len(waiter.told) <= 1 for waiter in self.waiters)

    @invariant()
    def none_fails_that_lives_or_has_a_result(self) -> None:
        for waiter in self.waiters:
            if waiter.told and waiter.told != ["cancelled"]:
                finished = waiter.job.ended_as == COMPLETED
                assert waiter.job.phase == "gone"
                assert waiter.told == (["result"] if finished else ["failure"])

    def teardown(self) -> None:
        """Once all jobs have ended and the scheduler answers, every call ends."""
        for waiter in self.some("running") + self.some("queued"):
            waiter.job.phase, waiter.job.ended_as = "gone", NODE_FAILED
        for _ in range(5):
            self.nothing_happens(4, False)
        assert all(waiter.told for waiter in self.waiters)


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# ------------------------------------------------------------------ single decisions


def state(*answers: Status | None, asked: float = 0.0, now: float = 0.0) -> CallState:
    made = CallState(GRACE)
    for answer in answers:
        made.answered(answer, asked, now)
    return made


def test_a_hopeless_job_is_cancelled_when_that_is_said_twice() -> None:
    made, status = (
        CallState(GRACE),
        Status("waiting", "waits for nodes that are not there", "SchedulerError", "BadConstraints"),
    )
    assert Action.CANCEL_HOPELESS not in made.answered(status, 0.0, 0.0, hopeless=True)
    assert Action.CANCEL_HOPELESS in made.answered(status, 1.0, 1.0, hopeless=True)


def test_an_answer_to_an_old_question_does_not_put_a_job_back() -> None:
    made = CallState(GRACE)
    assert made.listed("begun", 5.0) is Action.SHOW_RUNNING
    assert made.answered(QUEUED, 4.0, 6.0) == []
    assert made.answered(QUEUED, 6.0, 7.0) == [Action.SHOW_QUEUED]


def test_an_element_that_alone_is_missing_was_cancelled() -> None:
    made = state(QUEUED)
    made.answered(None, 1.0, 1.0, siblings_listed=True)
    assert made.ticked(2 * GRACE) is Action.GIVE_UP
    assert made.given_up() is Action.LOOK_AGAIN
    assert made.looked_again(False, None) is Action.CHECK_INPUTS
    assert made.checked_inputs(True) is None
    assert made.ticked(2 * GRACE) is Action.GIVE_UP
    assert made.given_up() is Action.LOOK_AGAIN
    assert made.looked_again(False, None) is Action.CHECK_INPUTS
    assert made.checked_inputs(False) is Action.FAIL


def test_one_answer_without_a_job_is_not_enough() -> None:
    made = state(RUNNING, None)
    assert made.ticked(GRACE) is None
    assert made.ticked(2 * GRACE) is Action.ASK_SOON
    made.answered(None, 2 * GRACE, 2 * GRACE)
    made.heartbeat_read(1, 2 * GRACE)
    assert made.ticked(2 * GRACE) is Action.CHECK_HEARTBEAT
    assert made.checked_heartbeat(BEAT, 2, 3 * GRACE) is None
    assert made.ticked(3 * GRACE) is None
    assert made.checked_heartbeat(BEAT, 2, 5 * GRACE) is Action.GIVE_UP


def test_a_job_on_a_lost_node_is_given_up_when_its_process_is_silent() -> None:
    made = state(RUNNING)
    assert made.answered(LOST, 0.0, 0.0) == [Action.READ_HEARTBEAT, Action.LOOK_SOON]
    made.heartbeat_read(1, 0.0)
    assert made.ticked(GRACE) is None
    assert made.ticked(2 * GRACE) is Action.CHECK_HEARTBEAT
    assert made.checked_heartbeat(BEAT, 2, 2 * GRACE) is None
    made.answered(LOST, 3 * GRACE, 3 * GRACE)
    assert made.ticked(4 * GRACE) is Action.CHECK_HEARTBEAT
    assert made.checked_heartbeat(BEAT, 2, 4 * GRACE) is Action.GIVE_UP
    assert made.given_up() is Action.LOOK_AGAIN
    assert made.looked_again(False, None) is Action.FAIL
    assert made.verdict is LOST


def test_a_script_that_lived_to_its_end_leaves_no_doubt() -> None:
    made = state(RUNNING, LOST)
    made.heartbeat_read(1, 0.0)
    made.exited(1.0)
    assert made.ticked(1.1) is Action.GIVE_UP


def test_a_job_that_the_scheduler_has_again_is_not_given_up() -> None:
    made = state(None, None)
    assert made.ticked(2 * GRACE) is Action.GIVE_UP
    assert made.given_up() is Action.ASK_HISTORY
    made.answered(RUNNING, 2 * GRACE, 2 * GRACE)
    assert made.looked_again(False, None) is None


def test_no_grace_for_a_job_that_has_left_its_exit_code() -> None:
    made = state(RUNNING)
    assert made.exited(1.0) is Action.ASK_NOW
    assert made.exited(2.0) is None
    assert made.ticked(2.0) is None
    assert made.answered(FAILED, 1.0, 3.0) == [Action.LOOK_SOON]
    assert made.ticked(3.0) is None, "its files are looked at once more"
    assert made.ticked(3.1) is Action.GIVE_UP
    assert made.given_up() is Action.LOOK_AGAIN
    assert made.looked_again(False, None) is Action.FAIL


def test_the_exit_code_of_a_job_that_is_started_again_counts_no_more() -> None:
    made = state(RUNNING)
    made.exited(1.0)
    assert Action.FORGET_EXIT not in made.answered(QUEUED, 0.5, 1.5), "that was asked before"
    assert Action.FORGET_EXIT in made.answered(QUEUED, 2.0, 3.0)
    assert made.answered(FAILED, 4.0, 5.0) == [Action.LOOK_SOON]
    assert made.ticked(5.1) is None
    assert made.ticked(5.1 + GRACE) is Action.GIVE_UP


@pytest.mark.parametrize(
    ("outcome", "ours", "fate"),
    [
        (CallOutcome("finished", "key"), False, Fate.RESULT),
        (CallOutcome("failed", failure=b"."), True, Fate.ERROR),
        (CallOutcome("cancelled"), False, Fate.CANCELLED),
        (CallOutcome("withdrawn"), True, Fate.CANCELLED),
        (CallOutcome("withdrawn"), False, Fate.RESUBMIT),
    ],
)
def test_fates(outcome: CallOutcome, ours: bool, fate: Fate) -> None:
    assert fate_of(outcome, ours) is fate


@given(st.dictionaries(st.integers(0, 5), st.sets(st.integers(0, 8))), st.sets(st.integers(0, 8)))
def test_a_batch_is_ready_after_those_that_it_waits_for(needs: dict[int, set[int]], lacking: set[int]) -> None:
    def tokens(batch: int) -> set[str]:
        return set(map(str, needs[batch]))

    found = first_ready(needs, str, tokens, lambda token: int(token) in lacking)
    ready = [batch for batch in needs if not needs[batch] & (needs.keys() | lacking)]
    assert found == (ready[0] if ready else None)


def test_a_job_is_withdrawn_with_its_last_call() -> None:
    assert withdrawn_with(range(3), {2}, {0, 1}) == []
    assert withdrawn_with(range(3), {3}, {0, 2, 4}) == [0, 2]
