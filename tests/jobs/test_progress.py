"""The progress of calls, as the files of their batch tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from batches import TOKEN, batch

from callyard.backends.batch.submitter import claim_of
from callyard.cache.claims import Claim, Claims
from callyard.cache.directory import CacheDirectory
from callyard.jobs.batch import BatchPart, CallAgain, CallOutcome, CallStart
from callyard.jobs.find_batches import folders
from callyard.jobs.list_job_calls import calls_of_jobs
from callyard.jobs.spool import BatchDirectory
from callyard.jobs.successor import move_to_successor


@pytest.fixture
def folder(tmp_path: Path) -> BatchDirectory:
    """A batch of two calls, both of which have begun."""
    made = BatchDirectory(CacheDirectory.open(tmp_path / "cache"), TOKEN)
    made.create(batch(), [b"call", b"call"], f"#!/bin/sh\nexec make {TOKEN}\n")
    made.begin(0, CallStart("17_0", "node1", "ab" * 20))
    made.begin(1, CallStart("17_1", "node1", "cd" * 20))
    for number in range(2):
        os.utime(f"{made.path}/{number}.begun", (1.0, 1.0))
    return made


def test_a_call_that_asks_to_be_run_again_has_not_ended(folder: BatchDirectory) -> None:
    folder.run_again(0, CallAgain(2, 0, b"arguments"))
    folder.end(1, CallOutcome("finished"))
    assert folder.news() == {0: "begun", 1: "end"}
    assert not folder.is_over()
    assert folder.elements_left() == 1
    assert [call.name for call in calls_of_jobs(folder.home)] == ["relax", "relax"]


def test_a_failure_that_was_submitted_once_more_is_none_with_arguments(folder: BatchDirectory) -> None:
    folder.end(0, CallOutcome("failed", failure=b"\x80\x05N."))
    folder.received(0)
    folder.superseded(0)
    assert folder.news() == {0: "superseded", 1: "begun"}
    assert folder.again(0) is None
    assert folder.elements_left() == 1
    assert len(list(calls_of_jobs(folder.home))) == 1


# ------------------------------------------------------------------ moved to a batch of its own


def successors(folder: BatchDirectory) -> list[BatchDirectory]:
    return [other for other in folders(folder.home) if other.token != folder.token]


def test_a_call_goes_on_in_a_batch_of_its_own(folder: BatchDirectory) -> None:
    assert not move_to_successor(folder, 1), "it has not asked for it"
    folder.run_again(1, CallAgain(3, 1, b"arguments"))
    assert move_to_successor(folder, 1)
    (successor,) = successors(folder)
    outcome = folder.ended(1)
    assert outcome is not None
    assert (outcome.state, outcome.key, outcome.attempts) == ("moved", successor.token, 3)
    assert (successor.batch.calls[0].id, successor.call(0)) == ("id1", b"call")
    assert (successor.batch.elements, successor.unsent) == ((1,), BatchPart(0, 1))
    assert successor.exit_file(0) == folder.exit_file(1), "the script is the same"
    assert successor.again(0) == CallAgain(3, 0, b"arguments")
    assert TOKEN not in successor.script()
    assert successor.token in successor.script()
    assert [(call.id, call.state) for call in calls_of_jobs(folder.home)] == [("id0", "running"), ("id1", "unsent")]
    claim = claim_of(successor)
    assert claim is not None, "anybody may submit it, as `callyard resume`"
    claim.release()
    assert move_to_successor(folder, 1)
    assert len(successors(folder)) == 1, "once"


def test_a_call_that_was_running_again_does_not_go_on_elsewhere(folder: BatchDirectory) -> None:
    folder.run_again(0, CallAgain(2, 0, b"arguments"))
    folder.begin(0, CallStart("17_0", "node1", "ab" * 20))
    assert not move_to_successor(folder, 0)
    assert not successors(folder)


def test_a_call_whose_node_was_lost_runs_again_as_often_as_allowed(folder: BatchDirectory) -> None:
    assert not move_to_successor(folder, 0, "NodeFailure")
    limited = BatchDirectory(folder.home, TOKEN[::-1])
    lanes = ["lane-0", "lane-1"]
    request = {
        "after": [],
        "after_each": [[], [["any", TOKEN, 0]]],
        "lanes": lanes,
        "resources": {"begin": "now+1hour"},
    }
    limited.create(
        batch(token=limited.token, restart_limit=1, request=request),
        [b"call", b"call"],
        f"#!/bin/sh\n# {limited.token}\n",
    )
    limited.begin(1, CallStart("f1", "node1", "ab" * 20))
    for number, (attempt, lane) in enumerate([(1, "lane-0"), (2, "lane-1")]):
        assert move_to_successor(limited, number, "NodeFailure")
        outcome = limited.ended(number)
        assert outcome is not None
        assert outcome.attempts == attempt, "the first had not begun"
        successor = BatchDirectory(folder.home, outcome.key)
        assert successor.again(0) == CallAgain(attempt, 0, b"")
        assert successor.batch.restart_limit == 0
        asked = successor.batch.request
        assert (asked["after_each"], asked["lanes"], asked["resources"]) == ([[]], [lane], {})
        assert not move_to_successor(successor, 0, "NodeFailure")


@pytest.mark.parametrize("error", ["NodeFailure", "WorkerLost"])
def test_losses_of_its_process_count_where_a_call_moves(folder: BatchDirectory, error: str) -> None:
    for losses, left in ((1, 0), (2, None)):
        limited = BatchDirectory(folder.home, f"{losses}" * 16)
        limited.create(batch(token=limited.token, restart_limit=2), [b"call", b"call"], f"# {limited.token}\n")
        limited.run_again(0, CallAgain(1 + losses, 0, b"", losses))
        limited.begin(0, CallStart("f1", "node1", "ab" * 20))
        assert move_to_successor(limited, 0, error) is (left is not None)
        outcome = limited.ended(0)
        assert (outcome is None) == (left is None)
        if outcome is not None:
            successor = BatchDirectory(folder.home, outcome.key)
            assert successor.again(0) == CallAgain(2 + losses, 0, b"")
            assert successor.batch.restart_limit == left


def test_another_process_moves_it(folder: BatchDirectory) -> None:
    folder.run_again(0, CallAgain(2, 0, b"arguments"))
    claim = Claims(folder.home).take(f"{TOKEN}-0", "successor")
    assert isinstance(claim, Claim)
    assert move_to_successor(folder, 0), "it is going to"
    assert not successors(folder)
    claim.release()
