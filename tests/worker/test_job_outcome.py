"""The outcome of a call where its disk takes nothing more."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from callyard.cache.directory import CacheDirectory
from callyard.errors import CacheError
from callyard.jobs.batch import Batch, CallOutcome, CallPosition, CallStart
from callyard.jobs.spool import BatchDirectory
from callyard.version import VERSION
from callyard.worker.job_outcome import failed, write_down

pytestmark = pytest.mark.needs("linux")


def fill(disk: Path) -> Path:
    """Fill a disk to its last byte; return the file that has done it."""
    with open(disk / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(bytes(4096))
    return disk / "filler"


@pytest.fixture
def folder(small_disk: Path) -> BatchDirectory:
    """A batch of two calls, of which the first has begun, on a disk that is full."""
    home = CacheDirectory.open(small_disk / "cache")
    folder = BatchDirectory(home, "0123456789abcdef")
    calls = tuple(CallPosition(f"{number:040}", "relax", 0, 0) for number in range(2))
    batch = Batch(
        token=folder.token, scheduler="Slurm", calls=calls, elements=(0, 1), calls_per_job=1, needs=(), resources={},
        environment={}, restart_limit=0, paths=(), cwd="/", umask=0o077, submitter="", created=0.0, python="3",
        callyard=VERSION, request={},
    )  # fmt: skip
    folder.create(batch, [b""], "")
    folder.begin(0, CallStart("7", "node", ""))
    fill(small_disk)
    return folder


def test_an_error_fits_into_the_block_of_the_start(folder: BatchDirectory) -> None:
    assert write_down(folder, 0, failed(ValueError("too cold"), "the traceback"))
    outcome = folder.ended(0)
    assert outcome is not None
    error, text = outcome.error()
    assert repr(error) == "ValueError('too cold')"
    assert text == "the traceback"
    assert folder.news() == {0: "end"}
    assert not [name for name in os.listdir(folder.path) if name.startswith(".tmp")]


def test_a_long_traceback_is_cut(folder: BatchDirectory) -> None:
    assert write_down(folder, 0, failed(ValueError("too cold"), "x" * 10_000 + "the last line"))
    outcome = folder.ended(0)
    assert outcome is not None
    error, text = outcome.error()
    assert repr(error) == "ValueError('too cold')"
    assert "No space left on device" in text
    assert text.endswith("xxx" + "the last line")


def test_of_a_large_error_its_words_are_kept(folder: BatchDirectory) -> None:
    assert write_down(folder, 0, failed(ValueError("too cold" + "!" * 10_000)))
    outcome = folder.ended(0)
    assert outcome is not None
    error, _ = outcome.error()
    assert type(error) is CacheError
    assert "'relax' failed with ValueError: too cold!!!" in str(error)
    assert "No space left on device" in str(error)


def test_a_call_without_a_start_has_failed(folder: BatchDirectory) -> None:
    assert write_down(folder, 1, failed(ValueError("too cold")))
    outcome = folder.ended(1)
    assert outcome is not None
    assert outcome.state == "failed"
    error, _ = outcome.error()
    assert type(error) is CacheError
    assert "'relax' failed, and its error could not be stored" in str(error)
    folder.received(1)
    assert folder.news()[1] == "seen"


def test_a_result_is_noted(folder: BatchDirectory) -> None:
    outcome = CallOutcome("finished", "3f" * 20, "/cache")
    assert write_down(folder, 0, outcome)
    assert folder.ended(0) == outcome


def test_a_withdrawn_call_is_none_that_failed(folder: BatchDirectory) -> None:
    assert not write_down(folder, 1, CallOutcome("withdrawn"))
    assert folder.ended(1) is None


def test_a_file_system_that_takes_nothing(folder: BatchDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    assert not write_down(folder, 0, failed(ValueError("too cold")))


def test_the_failure_of_an_input_that_could_not_be_stored(folder: BatchDirectory) -> None:
    from callyard.worker.job_outcome import inherited

    write_down(folder, 1, failed(ValueError("too cold")))
    outcome = folder.ended(1)
    assert outcome is not None
    error, _ = pickle.loads(inherited(outcome, "next", "relax"))
    assert type(error) is CacheError
    assert error.__notes__ == ["callyard: next <- relax"]
