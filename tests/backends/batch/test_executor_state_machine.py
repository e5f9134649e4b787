"""An executor of jobs under random events: batches that cannot be written, sent or read, schedulers in a bad mood."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from callyard.backends.batch.batch_state import (
    Abandon,
    Ask,
    BatchState,
    Drop,
    ExecutorAction,
    Look,
    Settle,
    Submit,
    Write,
)
from callyard.backends.batch.call import JobCall, JobFuture
from callyard.backends.batch.call_state_machine import Action, Fate
from callyard.backends.batch.executor_state_machine import ExecutorState
from callyard.cache.directory import CacheDirectory
from callyard.dependencies.wait import when_done
from callyard.futures import Future, when_ended
from callyard.jobs.batch import CallOutcome
from callyard.jobs.spool import BatchDirectory
from callyard.resources import Resources
from callyard.schedulers.base import Status

POLL, GRACE, PAUSE = (5.0, 60.0), 30.0, 20.0  # s
HOME = CacheDirectory("/nowhere")
QUEUED, RUNNING = Status("waiting", "waits for free nodes"), Status("running", "runs")
LOST = Status("ended", "lost its node", "NodeFailure")


@dataclass
class Spooled:
    """A batch as it really is: its files, and the jobs that the scheduler has got of it."""

    numbers: list[int]
    foreign: bool = False  # written by another process, which is gone
    jobs: dict[int, str] = field(default_factory=dict)  # "queued", "running", "ended", by number
    noted: set[int] = field(default_factory=set)  # those jobs of which the files say so
    outcomes: dict[int, str] = field(default_factory=dict)  # states, as the files show them
    unreadable: bool = False
    unsendable: str = ""  # "passing" or "final": an error of its own when it is sent
    is_gone: bool = False


class Executor(RuleBasedStateMachine):
    """Carries out what is decided, as the I/O of an executor does, in a world where all kinds of things go wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.now = ExecutorState(POLL, GRACE), 1000.0
        self.tokens = count()
        self.calls: list[JobCall] = []
        self.inbox: deque[JobCall] = deque()  # those that have ended, as the thread has not heard yet
        self.told: list[JobCall] = []  # those that the state machine has let end
        self.disk: dict[str, Spooled] = {}
        self.writing = False
        self.sending: BatchState | None = None
        self.asking: tuple[float, list[BatchState]] | None = None
        self.is_peaceful = False  # nothing goes wrong from now on

    # -- calls -------------------------------------------------------------------------------------------------

    @precondition(lambda self: sum(not call.future.done() for call in self.calls) < 10)
    @rule(data=st.data(), number=st.integers(1, 3))
    def submit(self, data: st.DataObject, number: int) -> None:
        open_calls = [call for call in self.calls if not call.future.done()]
        for _ in range(number):
            sources: list[Future[Any]] = []
            if open_calls and data.draw(st.booleans()):
                sources = [data.draw(st.sampled_from(open_calls)).future]
            future = JobFuture("call")
            call = future.call = JobCall(future, Resources(), None, self, b"", None, sources)
            self.calls.append(call)
            when_ended(future, partial(self._ended, call))
            if sources:
                when_done(tuple(sources), future, lambda: None)
            self.state.enter([call])
        self.act()

    def _ended(self, call: JobCall, future: object) -> None:
        self.inbox.append(call)

    @precondition(lambda self: any(not call.future.done() for call in self.calls))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([call for call in self.calls if not call.future.done()])).future.cancel()

    @precondition(lambda self: self.inbox)
    @rule()
    def hear_of_ends(self) -> None:
        while self.inbox:
            call = self.inbox.popleft()
            self.state.left(call)
            call.future.call = None
        self.act()

    def end(self, calls: Iterable[JobCall], batch: BatchState | None = None) -> None:
        """Let calls fail: of one batch only, if it is that with which something went wrong."""
        for call in list(calls):
            assert batch is None or call.directory is batch.directory, (
                "what fails for one batch ends its own calls only"
            )
            self.tell(call)

    def tell(self, call: JobCall, fails: bool = True) -> None:
        assert call not in self.told, "each call ends once"
        self.told.append(call)
        if fails:
            call.future.fail_with(ValueError())
        else:
            call.future.set_result(1) if not call.future.done() else None

    # -- the disk ----------------------------------------------------------------------------------------------

    def spooled(self, batch: BatchState) -> Spooled:
        return self.disk[batch.token]

    def new_directory(self) -> BatchDirectory:
        return BatchDirectory(HOME, f"{next(self.tokens):016x}")

    @precondition(lambda self: self.writing or self.sending or self.asking)
    @rule(data=st.data())
    def what_is_under_way_ends(self, data: st.DataObject) -> None:
        if self.writing:
            self.write(data, data.draw(st.sampled_from(["ok", "ok", "ok", "full", "crowded", "silent"])))
        elif self.sending is not None:
            self.answer_to_submission(data.draw(st.sampled_from(["ok", "ok", "some", "deaf", "mute", "mistake"])))
        if self.asking is not None:
            self.answer_to_question(data.draw(st.booleans()))
        self.act()

    def write(self, data: st.DataObject, how: str) -> None:
        self.writing = False
        if how == "silent":  # the scheduler does not say how large an array may be
            self.state.writing_failed()
            self.state.pause(self.now + PAUSE)
            return
        if how == "crowded":
            self.state.crowded(self.now)
            return
        group: list[JobCall] = []
        for call in [call for call in self.state.take_new() if not call.future.done()]:
            if data.draw(st.integers(0, 5)) == 0:
                self.attach(call)
                continue
            if any(other in group for other in call.needs()) or data.draw(st.booleans()):
                self.write_batch(group, data.draw(st.booleans()) and how == "full")
                group = []
            if not call.future.done():
                group.append(call)
        self.write_batch(group, False)

    def write_batch(self, group: list[JobCall], is_full: bool) -> None:
        if is_full:
            self.end(group)
        elif group:
            directory = self.new_directory()
            after = {other.directory.token for call in group for other in call.needs() if other.directory is not None}
            for number, call in enumerate(group):
                call.directory, call.number, call.ours = directory, number, True
                call.written()
            self.disk[directory.token] = Spooled(list(range(len(group))))
            self.state.written(directory, group, after)

    def attach(self, call: JobCall) -> None:
        """Wait for a call that another process has written before it was killed."""
        call.directory, call.number = self.new_directory(), 0
        self.disk[call.directory.token] = Spooled([0, 1], foreign=True)
        self.state.follow(call, self.now, is_complete=False, has_job=False)

    # -- the scheduler -----------------------------------------------------------------------------------------

    def take(self, batch: BatchState, numbers: Iterable[int], noted: bool = True) -> None:
        """The scheduler takes these calls of a batch."""
        spooled = self.spooled(batch)
        for number in numbers:
            assert number not in spooled.jobs, "no call is submitted twice"
            spooled.jobs[number] = "queued"
            if noted:
                spooled.noted.add(number)

    def answer_to_submission(self, how: str) -> None:
        batch, self.sending = self.sending, None
        assert batch is not None
        spooled = self.spooled(batch)
        if spooled.unsendable or spooled.is_gone:
            if how in ("mute", "ok") and not spooled.is_gone:  # the scheduler takes it, and that cannot be noted
                known = spooled.jobs.keys() if batch.perhaps else spooled.noted
                self.take(batch, [number for number in spooled.numbers if number not in known], noted=False)
            may_pass = spooled.unsendable == "passing" and not spooled.is_gone
            if not self.state.not_sent(batch, self.now, may_pass=may_pass):
                self.set_aside(batch)
            return
        if batch.perhaps:  # it asks first which jobs there are
            spooled.noted |= spooled.jobs.keys()
        left = [number for number in spooled.numbers if number not in spooled.noted]
        if how in ("ok", "some", "mute"):
            self.take(batch, left[:1] if how == "some" else left, how != "mute")
        unsent = set(spooled.numbers) - spooled.noted
        if how != "mistake":
            self.state.sent(batch, unsent, self.now, is_complete=not unsent)
        if how not in ("ok", "mistake"):
            self.state.refused(batch, self.now + PAUSE, perhaps=how in ("deaf", "mute"))
        if how == "mistake":
            self.state.sent(batch, unsent, self.now, is_complete=not unsent)
            self.end(self.state.give_up_sending(batch), batch)
            spooled.is_gone = not spooled.noted

    def set_aside(self, batch: BatchState) -> None:
        calls = self.state.give_up_sending(batch)
        self.spooled(batch).is_gone = not self.spooled(batch).noted
        self.end([call for call in calls if call.ours], batch)
        self.state.once_more([call for call in calls if not call.ours])

    @precondition(lambda self: any(spooled.jobs for spooled in self.disk.values()))
    @rule(data=st.data())
    def jobs_go_on(self, data: st.DataObject) -> None:
        for spooled in self.disk.values():
            for number, phase in spooled.jobs.items():
                if phase == "ended" or spooled.is_gone:
                    continue
                now = data.draw(st.sampled_from([phase, "running", "finished", "failed", "withdrawn", "silence"]))
                self.job_becomes(spooled, number, now)

    def job_becomes(self, spooled: Spooled, number: int, now: str) -> None:
        spooled.jobs[number] = now if now in ("queued", "running") else "ended"
        if now in ("finished", "failed", "withdrawn"):
            spooled.outcomes.setdefault(number, now)

    @precondition(lambda self: self.disk and not self.is_peaceful)
    @rule(data=st.data(), how=st.sampled_from(["unreadable", "readable", "passing", "final", "sendable", "gone"]))
    def something_happens_to_a_batch(self, data: st.DataObject, how: str) -> None:
        spooled = self.disk[data.draw(st.sampled_from(sorted(self.disk)))]
        if how in ("unreadable", "readable"):
            spooled.unreadable = how == "unreadable"
        elif how in ("passing", "final", "sendable"):
            spooled.unsendable = "" if how == "sendable" else how
        else:
            spooled.is_gone = True

    def answer_to_question(self, silent: bool) -> None:
        assert self.asking is not None
        (asked, batches), self.asking = self.asking, None
        for batch in batches:
            spooled = self.spooled(batch)
            if silent or spooled.unreadable or spooled.is_gone:
                continue
            self.adopt(batch, spooled)
            for number in sorted(batch.calls.keys() & spooled.noted):
                status = {"queued": QUEUED, "running": RUNNING}.get(spooled.jobs[number], LOST)
                self.state.answered(batch, number, status, asked, self.now, siblings_listed=False, hopeless=False)
        self.state.asked(self.now)

    def adopt(self, batch: BatchState, spooled: Spooled) -> None:
        left = set(spooled.numbers) - spooled.noted
        if spooled.foreign and left and not batch.queued:
            self.state.claimed(batch, None, left, ())  # type: ignore[arg-type]

    # -- what is decided ---------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 3.0, GRACE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.act()

    def act(self) -> None:
        for _ in range(100):
            actions = self.state.decide(self.now)
            self.carry_out(actions)
            due = self.state.due()
            if due is None or due > self.now:
                return
        raise AssertionError("what is due is decided")

    def carry_out(self, actions: Sequence[ExecutorAction]) -> None:
        for action in actions:
            match action:
                case Write():
                    assert not self.writing, "one at a time"
                    self.writing = True
                case Submit(batch):
                    assert self.sending is None, "one at a time"
                    others = batch.after & self.state.batches.keys()
                    assert all(self.state.batches[token].is_complete for token in others), "what it waits for is first"
                    self.sending = batch
                case Look(batches):
                    for batch in batches:
                        self.look(batch)
                    self.state.looked(self.now)
                case Ask(batches):
                    assert self.asking is None, "one question at a time"
                    self.asking = self.now, batches
                case _:
                    self.let_go(action)

    def let_go(self, action: ExecutorAction) -> None:
        match action:
            case Abandon(calls):
                for batch, number, call in calls:
                    assert call.future.done()
                    if call.ours and self.spooled(batch).jobs.get(number) == "queued":
                        self.job_becomes(self.spooled(batch), number, "withdrawn")
            case Drop(batch, calls):
                assert all(call.future.done() for call in calls), "nothing is dropped that is waited for"
                spooled = self.spooled(batch)
                spooled.is_gone = spooled.is_gone or (not spooled.noted and not spooled.foreign)
            case Settle(batch):
                assert not batch.calls
                assert batch.token not in self.state.batches

    def look(self, batch: BatchState) -> None:
        spooled = self.spooled(batch)
        if spooled.unreadable:
            if batch.stumbled("files", self.now):
                self.end(self.state.give_up(batch), batch)
            return
        batch.recovered("files")
        if spooled.is_gone:
            self.end(call for call, fate in self.state.vanished(batch) if fate is Fate.LOST)
            return
        seen = {
            n: "end" if n in spooled.outcomes else "begun" for n, phase in spooled.jobs.items() if phase != "queued"
        }
        for number, action in self.state.listed(batch, seen, self.now):
            if action is Action.READ_OUTCOME:
                outcome = CallOutcome(spooled.outcomes[number], failure=b".")
                for call, fate in self.state.outcome_read(batch, number, outcome, self.now, visible=True):
                    if fate is not Fate.RESUBMIT:
                        self.tell(call, fate is not Fate.RESULT)
        for number, _ in self.state.ticked(batch, self.now):
            batch.states[number].given_up()
            if batch.states[number].looked_again(False, None) is Action.FAIL:
                self.end(self.state.give_up(batch, number), batch)

    # -- promises ----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_sleeps_for_ever(self) -> None:
        waiting = [call for call in self.calls if not call.future.done()]
        if waiting and not self.inbox and not self.writing and self.sending is None and self.asking is None:
            assert self.state.due() is not None, "somebody waits, and nothing would be done"

    @invariant()
    def all_that_wait_are_known(self) -> None:
        """Each call that waits is in one place: new, kept by another, or in its batch."""
        if not self.inbox:
            for call in self.calls:
                batch = None if call.directory is None else self.state.batches.get(call.directory.token)
                places = [call in self.state.new, batch is not None and call in batch.calls.get(call.number, ())]
                kept = not call.entered and any(call in other.followers for other in self.calls)
                assert sum([*places, kept]) == (0 if call.future.done() else 1)

    @invariant()
    def no_job_waits_for_nobody(self) -> None:
        for call in self.calls if not self.inbox and self.sending is None else ():
            if call.ours and call.directory is not None and call.future.cancelled():
                spooled = self.disk[call.directory.token]
                assert call.number not in spooled.noted or spooled.jobs[call.number] != "queued" or spooled.is_gone

    def teardown(self) -> None:
        """Once the scheduler answers and all jobs end, every call ends, whatever has happened to its batch."""
        self.is_peaceful = True
        for _ in range(60):
            self.time_passes(GRACE)
            while self.inbox or self.writing or self.sending or self.asking:
                self.hear_of_ends()
                self.all_is_answered()
            for spooled in self.disk.values():
                for number in spooled.jobs:
                    self.job_becomes(spooled, number, "silence")
        assert all(call.future.done() for call in self.calls)
        assert self.state.is_idle
        assert self.state.due() is None

    def all_is_answered(self) -> None:
        if self.writing:
            self.writing = False
            for call in self.state.take_new():
                self.write_batch([call], False)
        elif self.sending is not None:
            self.answer_to_submission("ok")
        elif self.asking is not None:
            self.answer_to_question(False)
        self.act()


TestExecutor = Executor.TestCase
TestExecutor.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
