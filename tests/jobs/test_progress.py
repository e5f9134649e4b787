"""The progress of calls, as the files of their batch tell it."""

from __future__ import annotations

from pathlib import Path

import pytest
from batches import TOKEN, batch

from callyard.cache.directory import CacheDirectory
from callyard.jobs.batch import CallOutcome, CallStart
from callyard.jobs.list_job_calls import calls_of_jobs
from callyard.jobs.spool import BatchDirectory


@pytest.fixture
def folder(tmp_path: Path) -> BatchDirectory:
    """A batch of two calls, both of which have begun."""
    made = BatchDirectory(CacheDirectory.open(tmp_path / "cache"), TOKEN)
    made.create(batch(), [b"call", b"call"], "#!/bin/sh\n")
    made.begin(0, CallStart("17_0", "node1", "ab" * 20))
    made.begin(1, CallStart("17_1", "node1", "cd" * 20))
    return made


def test_a_call_that_asks_to_be_run_again_has_not_ended(folder: BatchDirectory) -> None:
    folder.run_again(0, 2, 0, b"arguments")
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
