"""What cannot be read of one call, or of one batch, ends that call or that batch, after a while; the others go on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_submitter import written

from callyard.backends.batch.call import JobCall, JobFuture
from callyard.backends.batch.delivery import Delivery
from callyard.backends.batch.executor_state_machine import ExecutorState
from callyard.backends.batch.poller import FileWatcher, Poller
from callyard.cache.directory import CacheDirectory
from callyard.errors import JobLost, SchedulerError
from callyard.jobs.batch import BatchPart, CallOutcome, CallStart
from callyard.jobs.spool import BatchDirectory
from callyard.resources import Resources
from callyard.utils.command_thread import CommandThread
from callyard.worker.job_outcome import failed

GRACE = 60.0


class Watched:
    """Batches of two calls each that are looked at; nobody is asked."""

    def __init__(self, directory: Path) -> None:
        os.chmod(directory, 0o700)
        self.home = self  # as the owner of the calls
        self.path, self.now = str(directory), 1000.0
        self.cache = CacheDirectory.open(directory)
        self.state = ExecutorState((5.0, 60.0), GRACE)
        delivery = self.delivery = Delivery(self.cache, False, self.state, lambda: self.now)
        poller = Poller(CommandThread(), None, self.state, delivery, lambda: self.now)  # type: ignore[arg-type]
        self.watcher = FileWatcher(self.state, delivery, poller, lambda: self.now)

    def add(self, token: str) -> tuple[BatchDirectory, list[JobFuture]]:
        directory = written(self.cache, token, 2)
        directory.submitted_as(BatchPart(0, 2, "7"))
        futures = []
        for number in range(2):
            future = JobFuture("call")
            call = future.call = JobCall(future, Resources(), None, self, b"", None, [])
            call.directory, call.number, call.ours = directory, number, True
            self.state.follow(call, self.now, is_complete=True, has_job=True)
            futures.append(future)
        return directory, futures

    def look(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.watcher.look(list(self.state.batches.values()))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_an_outcome_that_is_damaged(watched: Watched) -> None:
    directory, (damaged, other) = watched.add("0" * 16)
    Path(directory.path, "0.end").write_text("what?")
    directory.end(1, failed(ValueError("its own")))
    watched.look()
    assert not damaged.done(), "it may be a file system that stumbles"
    assert str(other.exception()) == "its own"
    watched.look(GRACE)
    error = damaged.exception()
    assert type(error) is SchedulerError
    assert f"what its job wrote in {directory.path} cannot be read" in str(error)


def test_files_are_looked_at_soon_after_a_call_has_begun(watched: Watched) -> None:
    directory, _ = watched.add("0" * 16)

    def pause() -> float:
        watched.look()
        due = watched.state.due()
        assert due is not None
        return due - watched.now

    pauses = [pause() for _ in range(9)]
    assert pauses == sorted(pauses)
    directory.begin(0, CallStart("7", "node", "", 1.0))
    soon = pause()
    assert soon < pauses[0]
    assert pause() > soon, "it begins once"


def test_an_outcome_that_can_be_read_after_all(watched: Watched) -> None:
    directory, (late, _) = watched.add("0" * 16)
    Path(directory.path, "0.end").write_text("what?")
    watched.look()
    directory.end(0, CallOutcome("cancelled"))
    watched.look(GRACE)
    assert late.cancelled()


def raises(error: BaseException) -> Callable[..., Any]:
    def method(*_: object) -> None:
        raise error

    return method


@pytest.mark.parametrize("error", [OSError("stale"), RuntimeError("nobody has thought of that")], ids=repr)
def test_a_batch_that_cannot_be_listed(watched: Watched, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    bad, lost = watched.add("0" * 16)
    good, others = watched.add("1" * 16)
    monkeypatch.setattr(bad, "listing", raises(error))
    watched.look()
    assert not any(future.done() for future in lost)
    watched.look(GRACE)
    assert all(str(error) in str(future.exception()) for future in lost)
    assert not any(future.done() for future in others)
    for number, future in enumerate(others):
        good.end(number, CallOutcome("cancelled"))
        watched.look()
        assert future.cancelled()


def test_a_batch_that_somebody_has_removed(watched: Watched) -> None:
    directory, lost = watched.add("0" * 16)
    _, others = watched.add("1" * 16)
    directory.remove()
    watched.look()
    assert all(type(future.exception()) is JobLost for future in lost)
    assert not any(future.done() for future in others)


def test_a_callback_that_exits_hurts_no_other(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    directory, (first, second) = watched.add("0" * 16)
    first.add_done_callback(raises(SystemExit()))
    for number in range(2):
        directory.end(number, CallOutcome("cancelled"))
    watched.look()
    assert [first.cancelled(), second.cancelled()] == [True, True]
    assert "the end of 'call' was interrupted" in caplog.text


# ------------------------------------------------------------------ a call that goes on in another batch


def moved(watched: Watched) -> tuple[BatchDirectory, BatchDirectory, list[JobFuture]]:
    """A batch of which the first call goes on in another."""
    directory, futures = watched.add("0" * 16)
    successor = written(watched.cache, "1" * 16, 1)
    directory.end(0, CallOutcome("moved", successor.token))
    return directory, successor, futures


def test_a_call_is_followed_once_its_new_batch_can_be_written_to(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, successor, (call, _) = moved(watched)
    with monkeypatch.context() as patch:
        patch.setattr(BatchDirectory, "attach", raises(OSError("no space left")))
        watched.look()
    watched.look()
    assert successor.others("somebody")
    successor.end(0, CallOutcome("cancelled"))
    watched.look()
    assert call.cancelled()


def test_a_call_whose_new_batch_can_never_be_written_to(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, (call, _) = moved(watched)
    monkeypatch.setattr(BatchDirectory, "attach", raises(OSError("no space left")))
    watched.look()
    watched.look(GRACE)
    assert "no space left" in str(call.exception(0))


@pytest.mark.parametrize("ours", [True, False])
def test_a_call_whose_new_batch_has_been_removed(watched: Watched, ours: bool) -> None:
    """What another executor has submitted is submitted anew; what this one has written is not kept in memory."""
    directory, successor, (call, other) = moved(watched)
    watched.state.batches[directory.token].calls[0][0].ours = ours
    successor.remove()
    watched.look()
    assert [each.future for each in watched.state.new] == ([] if ours else [call])
    assert call.done() == ours
    assert not ours or successor.path in str(call.exception(0))
    assert not other.done()


def test_a_call_is_followed_before_another_is_made_to_wait_for_it(watched: Watched) -> None:
    directory, successor, (call, other) = moved(watched)
    inputs = [future.call for future in (call, other) if future.call is not None]
    watched.delivery.follow_moved(inputs)
    assert [each.directory and each.directory.token for each in inputs] == [successor.token, directory.token]
    assert successor.others("somebody")


def test_an_input_that_cannot_be_read_does_not_hold_up_its_dependents(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, _, (call, _) = moved(watched)
    monkeypatch.setattr(BatchDirectory, "ended", raises(OSError("stale")))
    assert call.call is not None
    watched.delivery.follow_moved([call.call])
    assert call.call.directory is directory


def test_an_input_whose_new_batch_has_been_removed_is_left_to_the_next_look(watched: Watched) -> None:
    directory, successor, (call, _) = moved(watched)
    successor.remove()
    assert call.call is not None
    watched.delivery.follow_moved([call.call])
    assert call.call.directory is directory
    assert not call.done()
