"""What goes wrong with one batch while it is sent: it is tried again, never submitted twice, and set aside at last."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from test_submitter import written

from callyard.backends.batch.batch_state import Abandon, Drop, Settle, Submit
from callyard.backends.batch.call import JobCall, JobFuture
from callyard.backends.batch.delivery import Delivery
from callyard.backends.batch.earlier_batches import EarlierBatches
from callyard.backends.batch.executor_state_machine import ExecutorState
from callyard.backends.batch.submitter import Canceller, Submitter, claim_of
from callyard.cache.directory import CacheDirectory
from callyard.errors import JobLost, SchedulerError, UnsafeCache
from callyard.jobs.batch import BatchPart, CallOutcome
from callyard.jobs.spool import BatchDirectory
from callyard.resources import Resources
from callyard.schedulers.base import JobRequest
from callyard.utils.command_thread import CommandThread

GRACE = 60.0
FULL = OSError(errno.ENOSPC, "No space left on device")


class Client:
    """A scheduler that takes everything."""

    gaps = cancels_dependents = True

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        self.cancelled: list[str] = []

    def submit(self, request: JobRequest) -> str:
        assert request.token not in self.jobs, "nothing is submitted twice"
        self.jobs[request.token] = str(len(self.jobs) + 1)
        return self.jobs[request.token]

    def look_up(self, token: str) -> dict[str, str]:
        return {token: self.jobs[token]} if token in self.jobs else {}

    def cancel(self, jobs: list[str]) -> None:
        self.cancelled += jobs


class Sending:
    """An executor that sends two batches of one call each."""

    def __init__(self, directory: Path) -> None:
        os.chmod(directory, 0o700)
        self.now, self.client = 1000.0, Client()
        self.home = CacheDirectory.open(directory)
        self.state = ExecutorState((5.0, 60.0), GRACE)
        clock = lambda: self.now  # noqa: E731
        delivery = Delivery(self.home, False, self.state, clock)
        earlier = self.earlier = EarlierBatches(self.home, self.state, delivery, clock)
        self.submitter = Submitter(CommandThread(), self.client, self.state, earlier, delivery, clock)  # type: ignore[arg-type]
        self.canceller = Canceller(CommandThread(), self.client, self.state, earlier, delivery)  # type: ignore[arg-type]
        self.bad, self.lost = self.add("0" * 16)
        self.good, self.other = self.add("1" * 16)

    def add(self, token: str) -> tuple[BatchDirectory, JobFuture]:
        directory, future = written(self.home, token, 1), JobFuture("call")
        call = future.call = JobCall(future, Resources(), None, self, b"", None, [])
        call.directory, call.number, call.ours = directory, 0, True
        self.state.written(directory, [call], ())
        return directory, future

    def send(self, seconds: float = 0.0) -> None:
        """Send what is to be sent after a while."""
        self.now += seconds
        while batches := [action.batch for action in self.state.decide(self.now) if isinstance(action, Submit)]:
            for batch in batches:
                self.submitter.send(batch)

    def let_go(self, future: JobFuture) -> None:
        """Cancel a call, and do the work that follows."""
        call = future.call
        assert call is not None
        assert future.cancel()
        self.state.left(call)
        for action in self.state.decide(self.now):
            if isinstance(action, Abandon):
                self.canceller.abandon(action.calls)
            elif isinstance(action, Drop):
                self.canceller.drop(action.batch, action.calls)
            elif isinstance(action, Settle):
                self.earlier.settle(action.batch.directory)


@pytest.fixture
def sending(tmp_path: Path) -> Sending:
    return Sending(tmp_path)


def refuse_notes(sending: Sending, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def submitted_as(part: BatchPart) -> None:
        raise error

    monkeypatch.setattr(sending.bad, "submitted_as", submitted_as)


def test_a_job_that_cannot_be_noted_yet(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        refuse_notes(sending, patch, FULL)
        sending.send()
    assert sending.good.unsent is None
    assert not sending.lost.done()
    sending.send(10.0)
    assert sending.bad.job_of(0) == "1_0"
    assert sending.lost.job_id == "1_0"


def test_a_job_that_can_never_be_noted(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_notes(sending, monkeypatch, FULL)
    sending.send()
    sending.send(GRACE)
    error: Any = sending.lost.exception()
    assert type(error) is SchedulerError
    assert "No space left on device" in str(error)
    assert sending.client.cancelled == ["1"]
    assert not os.path.exists(sending.bad.path)
    assert not sending.other.done()
    assert sending.good.unsent is None


def test_a_batch_that_others_could_have_written_is_not_to_blame(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sending.client, "submit", lambda request: refuse_all())
        sending.send()
        assert not sending.lost.done(), "somebody may mend that in time"
        sending.send(GRACE)
    error = sending.lost.exception()
    assert type(error) is SchedulerError
    assert "`callyard resume` submits it" in str(error)
    assert sending.bad.ended(0) is None
    assert sending.bad.unsent is not None, "it stays as it is"
    assert not os.path.exists(f"{sending.home.path}/damaged")


def refuse_all() -> str:
    raise UnsafeCache("a directory is writable for others: chmod g-w")


def test_a_request_that_cannot_be_made(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    sending.bad.batch.request["resources"]["slurm_cmd_args"] = 5
    monkeypatch.setattr(sending.client, "submit", lambda request: next(iter(request.resources.slurm_cmd_args or "7")))
    sending.send()
    error = sending.lost.exception()
    assert type(error) is SchedulerError
    aside = str(error).rpartition(" ")[2]
    assert "it cannot be submitted" in Path(f"{aside}.txt").read_text()
    assert sending.good.job_of(0) == "7_0"


def test_a_batch_that_somebody_has_removed(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_notes(sending, monkeypatch, FileNotFoundError("gone"))
    sending.bad.remove()
    sending.send()
    assert type(sending.lost.exception()) is JobLost
    assert sending.good.unsent is None


@pytest.mark.parametrize("progress", ["sent", "refused"])
def test_trouble_of_long_ago_does_not_end_a_batch(sending: Sending, progress: str) -> None:
    batch = sending.state.batches[sending.bad.token]
    assert sending.state.not_sent(batch, 0.0, may_pass=True)
    if progress == "sent":
        sending.state.sent(batch, {0}, 1.0, is_complete=False)
    else:
        sending.state.refused(batch, 1.0, perhaps=False)
    assert sending.state.not_sent(batch, GRACE, may_pass=True), "it is tried again"
    assert not sending.state.not_sent(batch, 2 * GRACE, may_pass=True)


# ------------------------------------------------------------------ a cancelled call that goes on in another batch


def followed(sending: Sending, claimed: bool) -> tuple[BatchDirectory, JobFuture]:
    """A call of this executor in a batch of its own that any process may submit; perhaps this one is about to."""
    directory, future = written(sending.home, "2" * 16, 1), JobFuture("call")
    call = future.call = JobCall(future, Resources(), None, sending, (), None, [])
    call.directory, call.ours, call.entered = directory, True, True
    batch = sending.state.follow(call, sending.now, is_complete=False, has_job=False)
    if claimed:
        claim = claim_of(directory)
        assert claim is not None
        sending.state.claimed(batch, claim, {0}, ())
    return directory, future


@pytest.mark.parametrize("claimed", [False, True])
def test_a_cancelled_call_is_not_left_for_others_to_submit(sending: Sending, claimed: bool) -> None:
    directory, future = followed(sending, claimed)
    sending.let_go(future)
    assert not os.path.exists(directory.path)


@pytest.mark.parametrize("claimed", [False, True])
def test_a_cancelled_call_goes_on_for_others_that_wait(sending: Sending, claimed: bool) -> None:
    directory, future = followed(sending, claimed)
    directory.attach("another", 0)
    sending.let_go(future)
    assert directory.unsent is not None
    assert directory.ended(0) is None
    claim = claim_of(directory)
    assert claim is not None, "the others may submit it"
    claim.release()


# ------------------------------------------------------------------ batches whose calls go on elsewhere


def test_a_batch_whose_calls_have_moved_is_not_submitted(sending: Sending) -> None:
    sending.bad.end(0, CallOutcome("moved", "2" * 16))
    sending.send()
    assert sending.bad.token not in sending.client.jobs
    batch = sending.state.batches[sending.bad.token]
    assert batch.is_followed, "a look at its files finds out where they go on"
    assert claim_of(sending.bad) is None


def test_a_batch_whose_call_has_moved_stays_for_those_that_wait_for_the_call(sending: Sending) -> None:
    sending.bad.end(0, CallOutcome("moved", "2" * 16))
    sending.let_go(sending.lost)
    outcome = sending.bad.ended(0)
    assert outcome is None or outcome.state == "moved"
