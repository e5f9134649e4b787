"""Calls that take the result of a call that goes on in another batch: a move is no failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batches import TOKEN, batch

from callyard.backends.batch.delivery import Delivery
from callyard.backends.batch.earlier_batches import EarlierBatches
from callyard.backends.batch.executor_state_machine import ExecutorState
from callyard.backends.batch.job_errors import dependency_failed
from callyard.cache.directory import CacheDirectory
from callyard.cache.messages import RunRequest
from callyard.errors import JobLost
from callyard.jobs.batch import CallFile, CallInput, CallOutcome, CallPosition
from callyard.jobs.call_files import follow_moves
from callyard.jobs.list_job_calls import needed_keys
from callyard.jobs.spool import BatchDirectory
from callyard.jobs.successor import move_after, move_after_inputs
from callyard.worker.job_inputs import inputs_of
from callyard.worker.job_outcome import InputFailed, InputMoved, failed

KEY = "ab" * 20


class Graph:
    """A call that has moved twice, and one in a third batch that takes its result."""

    def __init__(self, directory: Path) -> None:
        self.home = CacheDirectory.open(directory)
        first, second, self.last = (self.batch(digit * 16, [b"call"] * 2) for digit in "123")
        first.end(1, CallOutcome("moved", second.token))
        second.end(0, CallOutcome("moved", self.last.token))
        order = RunRequest(
            directory=self.home.path, inode=self.home.inode(), trust=None, key=KEY, name="add", afresh=False,
            failures=False, references=(), code_only=False, source="", facts={},
        )  # fmt: skip
        self.call_file = CallFile(
            data=(), apart=None, inputs=(CallInput("relax", token=first.token, number=1),), order=order, meaning=None,
            initializer=None, options={}, run_time=None, memory=None, ranks=1, launcher=(), wait=0.0,
        )  # fmt: skip
        self.first, self.dependent = first, self.batch(TOKEN, [self.call_file.dump()], needs=(first.token,))

    def batch(self, token: str, calls: list[bytes], **changes: Any) -> BatchDirectory:
        made = BatchDirectory(self.home, token)
        places = tuple(CallPosition(f"{token}{n}", "relax", 0, len(call)) for n, call in enumerate(calls))
        made.create(
            batch(token=token, calls=places, elements=tuple(range(len(calls))), **changes), calls, "#!/bin/sh\n"
        )
        return made

    def may_come(self) -> bool:
        """Whether the dependent call is attached to."""
        state = ExecutorState((5.0, 60.0), 60.0)
        earlier = EarlierBatches(self.home, state, Delivery(self.home, False, state, lambda: 0.0), lambda: 0.0)
        earlier.refresh()
        return earlier._may_come(self.first.token, 1)


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return Graph(tmp_path / "cache")


def test_an_input_that_goes_on_has_not_failed(graph: Graph) -> None:
    assert follow_moves(graph.home, graph.first.token, 1) == (graph.last.token, 0, None)
    assert dependency_failed(graph.dependent, 0) is None
    assert graph.may_come()
    with pytest.raises(InputMoved) as moved:
        inputs_of(graph.dependent, graph.call_file)
    assert (moved.value.token, moved.value.number) == (graph.last.token, 0)


def test_a_job_that_has_waited_for_the_input_where_it_goes_on(graph: Graph) -> None:
    move_after(graph.dependent, 0, graph.last.token, 0)
    outcome = graph.dependent.ended(0)
    assert outcome is not None
    successor = BatchDirectory(graph.home, outcome.key)
    assert successor.batch.waited_for() == {graph.last.token}
    assert set(successor.batch.needs) == {graph.first.token, graph.last.token}
    with pytest.raises(JobLost, match="is not there"):
        inputs_of(successor, graph.call_file)


def test_an_input_that_may_run_again(graph: Graph) -> None:
    """Whoever waits for it decides that in a while; if there is nobody, the call begins after its next submission."""
    first = graph.batch("4" * 16, [b"call"], restart_limit=1)
    call_file = graph.call_file.replace(inputs=(CallInput("relax", token=first.token, number=0),))
    with pytest.raises(InputMoved) as moved:
        inputs_of(graph.dependent, call_file)
    assert moved.value.token == first.token


def test_a_call_follows_its_input_once(graph: Graph) -> None:
    assert move_after_inputs(graph.dependent, [0])
    outcome = graph.dependent.ended(0)
    assert outcome is not None
    successor = BatchDirectory(graph.home, outcome.key)
    assert successor.batch.waited_for() == {graph.last.token}
    assert graph.last.token in successor.batch.needs
    assert not move_after_inputs(successor)
    assert not move_after_inputs(graph.dependent)


def test_an_input_that_has_failed_at_last(graph: Graph) -> None:
    graph.last.end(0, failed(ValueError("its own")))
    inherited = dependency_failed(graph.dependent, 0)
    assert inherited is not None
    assert str(inherited.error()[0]) == "its own"
    assert not graph.may_come()
    with pytest.raises(InputFailed):
        inputs_of(graph.dependent, graph.call_file)


def test_the_result_of_an_input_that_went_on_is_kept(graph: Graph) -> None:
    graph.last.end(0, CallOutcome("finished", "cd" * 20, graph.home.path))
    for folder in (graph.first, graph.last):
        for number in range(2):
            if folder.ended(number) is None:
                folder.end(number, CallOutcome("cancelled"))
    BatchDirectory(graph.home, "2" * 16).end(1, CallOutcome("cancelled"))
    assert needed_keys(graph.home) == {"cd" * 20}
    assert graph.may_come()


def test_a_call_that_others_have_ended_waits_for_no_input(graph: Graph) -> None:
    """They know of the failure of its input, and have removed the files of that."""
    removed = CallInput("relax", token="f" * 16, number=1)
    patient = graph.call_file.replace(inputs=(removed,), wait=1e6)
    graph.dependent.end(0, CallOutcome("withdrawn"))
    with pytest.raises(JobLost):
        inputs_of(graph.dependent, patient, 0)
