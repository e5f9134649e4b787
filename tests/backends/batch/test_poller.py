"""What goes wrong with a question about jobs does not end the calls that wait for them."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from limited_calls import KEY, LimitedCalls

from callyard.backends.batch.batch_state import Ask
from callyard.backends.batch.call import JobCall, JobFuture
from callyard.backends.batch.delivery import Delivery
from callyard.backends.batch.executor_state_machine import ExecutorState
from callyard.backends.batch.job_errors import is_loss
from callyard.backends.batch.poller import FileWatcher, Poller
from callyard.cache.claims import Claim, Claims
from callyard.cache.directory import CacheDirectory
from callyard.jobs.batch import BatchPart, CallFile, CallOutcome
from callyard.jobs.find_batches import folders
from callyard.jobs.spool import BatchDirectory
from callyard.resources import Resources
from callyard.schedulers.base import Status
from callyard.utils.command_thread import CommandThread
from callyard.worker.job_outcome import UNWRITTEN

STALE = OSError(errno.ESTALE, "Stale file handle")


class Files:
    """A batch of one call; what cannot be read or written raises."""

    token, name, unsent = "0" * 16, "call", None
    calls_per_job, needs = 1, ()
    is_stored = False

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble
        self.batch = self.home = self
        self.path, self.calls = "/nowhere", [self]
        self.ends: list[Any] = []

    def _stumble(self, at: str) -> None:
        if self.trouble == at:
            raise STALE

    @property
    def parts(self) -> list[BatchPart]:
        self._stumble("parts")
        return [BatchPart(0, 1, "1")]

    def job_of(self, number: int) -> str:
        return "1"

    def again(self, number: int) -> None:
        """It has not asked to be run again."""

    def waits(self) -> dict[int, str]:
        self._stumble("waits")
        return {}

    def begun(self, number: int) -> None:
        self._stumble("begun")

    def ended(self, number: int) -> CallOutcome | None:
        return CallOutcome("finished") if self.is_stored else None

    def end(self, number: int, end: Any) -> None:
        self._stumble("end")
        self.ends.append(end)

    def received(self, number: int) -> None:
        pass

    def log(self, number: int) -> str:
        return "log"

    def temporary_name(self, place: str) -> str:
        return f"{place}/temporary"


class Call:
    """A call whose future only notes how it ended."""

    name, job, number = "call", "1", 0

    def __init__(self, folder: Files) -> None:
        self.directory, self.future = folder, self
        self.errors: list[BaseException] = []

    def submitted_as(self, job: str) -> None:
        pass

    def again(self) -> None:
        pass

    def done(self) -> bool:
        return bool(self.errors)

    def fail_with(self, error: BaseException) -> None:
        self.errors.append(error)


class Desk:
    """A scheduler that knows nothing of what has ended."""

    nonsense = forgets = False

    def statuses(self, jobs: Sequence[str]) -> dict[str, Status]:
        if self.nonsense:
            raise ValueError("squeue: what?")
        return {"1": Status("ended", "ended with exit code 0", exit_code=0)}

    def history(self, jobs: Sequence[str]) -> dict[str, Status]:
        return {}


class Asking:
    def __init__(self, tmp_path: Path, trouble: str = "") -> None:
        self.desk, self.folder = Desk(), Files(trouble)
        self.call, self.now = Call(self.folder), 1000.0
        self.state = ExecutorState((5.0, 60.0), 60.0)
        self.batch = self.state.follow(self.call, self.now, is_complete=True, has_job=False)  # type: ignore[arg-type]
        delivery = Delivery(CacheDirectory.open(tmp_path), False, self.state, lambda: self.now)
        self.poller = Poller(CommandThread(), self.desk, self.state, delivery, lambda: self.now)  # type: ignore[arg-type]

    def ask(self) -> None:
        """Ask what is due now; nothing that goes wrong makes that the last question."""
        [asks] = [action for action in self.state.decide(self.now) if isinstance(action, Ask)]
        self.poller.ask(asks.batches)
        due = self.state.due()
        assert due is not None
        self.now += 60

    @property
    def overdue_since(self) -> float | None:
        return self.batch.states[0].overdue_since


@pytest.mark.parametrize("trouble", ["parts", "waits"])
def test_a_file_system_stumbles(tmp_path: Path, trouble: str) -> None:
    asking = Asking(tmp_path, trouble)
    asking.ask()
    assert asking.overdue_since is None
    asking.folder.trouble = ""
    asking.ask()
    assert asking.overdue_since is not None


def test_a_scheduler_talks_nonsense(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    asking.desk.nonsense = True
    asking.ask()
    asking.ask()
    assert asking.overdue_since is None


def test_why_a_job_ended_cannot_be_written_yet(tmp_path: Path) -> None:
    asking = Asking(tmp_path, "end")
    for _ in range(2):
        asking.ask()
        since = asking.overdue_since
        assert since is not None
        asking.poller.give_up(asking.batch, asking.state.ticked(asking.batch, since + 100), since + 100)
        asking.folder.trouble = ""
    assert len(asking.call.errors) == len(asking.folder.ends) == 1


def test_why_a_job_ended_can_never_be_written(tmp_path: Path) -> None:
    """The error is told all the same, after a while."""
    asking = Asking(tmp_path, "end")
    for _ in range(2):
        asking.ask()
        asking.poller.give_up(asking.batch, asking.state.ticked(asking.batch, asking.now + 100), asking.now + 100)
    assert len(asking.call.errors) == 1
    assert asking.folder.ends == []
    assert "ended with exit code 0" in str(asking.call.errors[0])


def test_trouble_of_long_ago_does_not_end_a_call(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    for trouble in ("begun", "", "begun"):
        asking.folder.trouble = trouble
        asking.folder.is_stored = not trouble  # and the outcome comes later
        asking.ask()
        asking.poller.give_up(asking.batch, asking.state.ticked(asking.batch, asking.now + 100), asking.now + 100)
    assert asking.call.errors == []


# ------------------------------------------------------------------ a job that the scheduler has ended


class Ended:
    """A call with limits to try whose job was ended by the scheduler, before it could say anything."""

    def __init__(self, directory: Path, said: Status, restart_limit: int = 0) -> None:
        self.spool = LimitedCalls(directory / "cache", Resources(memory=[1, 2], restart_limit=restart_limit))
        self.folder, self.home, self.now = self.spool.folder, self.spool.home, 1000.0
        claim = Claims(self.home).take(KEY, "add", job_id="17")
        assert isinstance(claim, Claim)
        self.spool.run(self.folder)
        self.folder.submitted_as(BatchPart(0, 1, "17"))
        self.state = ExecutorState((5.0, 60.0), 0.0)
        self.future = JobFuture("add")
        call = JobCall(self.future, Resources(memory=[1, 2]), None, self, (), None, [])
        call.directory, call.ours = self.folder, True
        self.batch = self.state.follow(call, self.now, is_complete=True, has_job=True)
        delivery = Delivery(self.home, False, self.state, lambda: self.now)
        desk: Any = SimpleNamespace(statuses=lambda jobs: {"17": said}, forgets=False, cancels_dependents=True)
        poller = Poller(CommandThread(), desk, self.state, delivery, lambda: self.now)
        poller.ask([self.batch])
        for _ in range(3):
            self.now += 100
            poller.give_up(self.batch, self.state.ticked(self.batch, self.now), self.now)
        FileWatcher(self.state, delivery, poller, lambda: self.now).look([self.batch])

    def successors(self) -> list[BatchDirectory]:
        return [folder for folder in folders(self.home) if folder.token != self.folder.token]


def test_a_call_that_the_scheduler_has_ended_at_its_limit_goes_on(tmp_path: Path) -> None:
    """Its claim is free by then: nobody else can tell that its owner, on another node, has ended."""
    ended = Ended(tmp_path, Status("ended", "took more memory than it had asked for", "OutOfMemory"))
    (successor,) = ended.successors()
    assert CallFile.load(successor.call(0)).memory == 2 << 30
    assert Claims(ended.home).holder(KEY) is None
    assert not ended.future.done()
    assert ended.future.attempts == 2


@pytest.mark.parametrize("error", ["TimeLimitExceeded", "JobCancelled", "NodeFailure", "WorkerLost", None])
def test_a_call_that_was_ended_otherwise_does_not(tmp_path: Path, error: str | None) -> None:
    ended = Ended(tmp_path, Status("ended", "was ended", error))
    assert not ended.successors()
    assert ended.future.done()


def test_a_call_whose_job_has_lost_its_process_goes_on(tmp_path: Path) -> None:
    """Its claim is free by then."""
    ended = Ended(tmp_path, Status("ended", "was ended by SIGKILL", "WorkerLost", signal=9), restart_limit=1)
    (successor,) = ended.successors()
    assert successor.batch.restart_limit == 0
    assert CallFile.load(successor.call(0)).memory == 1 << 30, "its limits were not the cause"
    assert Claims(ended.home).holder(KEY) is None
    assert ended.future.attempts == 2


def test_a_job_that_would_end_so_again_does_not_go_on(tmp_path: Path) -> None:
    for place, said in enumerate(
        (
            Status("ended", "was ended by SIGKILL", "WorkerLost", signal=9, certain=False),
            Status("ended", "could not write", "WorkerLost", exit_code=UNWRITTEN),
            Status("ended", "found no interpreter", "WorkerLost", exit_code=127),
            Status("ended", "was cancelled", "JobCancelled", signal=15),
        )
    ):
        ended = Ended(tmp_path / str(place), said, restart_limit=1)
        assert not ended.successors(), said.sentence
        assert ended.future.done()


@pytest.mark.parametrize(
    ("said", "has_begun", "expected"),
    [({"signal": 9}, False, True), ({}, False, True), ({"exit_code": 1}, False, False), ({"exit_code": 1}, True, True)],
)
def test_a_script_that_ends_before_its_call_has_lost_nothing(
    said: dict[str, int], has_begun: bool, expected: bool
) -> None:
    assert is_loss(Status("ended", "ended", "WorkerLost", **said), has_begun) is expected  # type: ignore[arg-type]


def test_processes_that_may_go_on_keep_their_claim(tmp_path: Path) -> None:
    """Without a sign of life the call moves; the next job finds the claim, and asks for its owner."""
    ended = Ended(tmp_path, Status("ended", "took too much", "OutOfMemory", certain=False))
    assert len(ended.successors()) == 1
    assert Claims(ended.home).holder(KEY) is not None
