"""A job that begins once more while the process of its first start may still run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from callyard.cache.directory import CacheDirectory
from callyard.jobs.batch import Batch, CallFile, CallOutcome, CallPosition, CallStart
from callyard.jobs.spool import BatchDirectory
from callyard.worker import earlier_start
from callyard.worker.earlier_start import outcome_of_earlier_start

TOKEN = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchDirectory:
    made = BatchDirectory(CacheDirectory.open(tmp_path / "cache"), TOKEN)
    batch = Batch(
        token=TOKEN, scheduler="Flux", calls=(CallPosition("call", "add", 0, 4),), elements=None, calls_per_job=1,
        needs=(), resources={}, environment={}, restart_limit=0, paths=(), cwd="/", umask=0o77, submitter="",
        created=0.0, python="3.11", callyard="0", request={},
    )  # fmt: skip
    made.create(batch, [b"call"], "#!/bin/sh\n")

    class Packed:
        wait = 0.3

    monkeypatch.setattr(CallFile, "load", lambda packed: Packed)
    return made


def test_a_call_that_has_not_begun_is_not_waited_for(folder: BatchDirectory) -> None:
    assert outcome_of_earlier_start(folder, 0) is None


def test_a_call_whose_process_is_silent_begins_again(folder: BatchDirectory) -> None:
    folder.begin(0, CallStart("f1", "n1", "ab" * 20, 0.1))
    assert outcome_of_earlier_start(folder, 0) is None


def test_the_outcome_of_a_living_process_counts(folder: BatchDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.begin(0, CallStart("f1", "n1", "ab" * 20, 0.1))
    now = [0.0]
    monkeypatch.setattr(earlier_start.time, "monotonic", lambda: now[0])

    def beat(seconds: float) -> None:
        """Let time pass, with a beat; after a while the call ends."""
        now[0] += 0.25
        os.utime(f"{folder.path}/0.begun", (now[0], now[0]))
        if now[0] > 3:
            folder.end(0, CallOutcome("finished", "ab" * 20))

    monkeypatch.setattr(earlier_start.time, "sleep", beat)
    end = outcome_of_earlier_start(folder, 0)
    assert end is not None
    assert end.state == "finished"
