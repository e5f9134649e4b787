"""Batches that `callyard resume` and `callyard check --repair` leave in place: their jobs run, or may be submitted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from batches import TOKEN, batch

from callyard.backends.batch.submitter import claim_of
from callyard.cache.directory import CacheDirectory
from callyard.cli import main
from callyard.jobs.batch import BatchPart, CallStart
from callyard.jobs.spool import BatchDirectory


class Ended(NamedTuple):
    """The status and the words of a command."""

    status: int
    words: str


@pytest.fixture
def command(folder: BatchDirectory, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a command on the cache with the batch."""

    def run(*words: str) -> Ended:
        try:
            status = main([*words, folder.home.path])
        except SystemExit as ended:
            status = ended.code  # type: ignore[assignment]
        return Ended(status, "".join(capsys.readouterr()))

    return run


@pytest.fixture
def folder(tmp_path: Path) -> BatchDirectory:
    made = BatchDirectory(CacheDirectory.open(tmp_path / "cache"), TOKEN)
    made.create(batch(scheduler="Nowhere", submitter="", request={"name": "relax", "after": ()}), [b"call"] * 2, "")
    return made


def run_job(folder: BatchDirectory) -> None:
    folder.submitted_as(BatchPart(0, 1, "17"))
    folder.begin(0, CallStart("17_0", "node1", "ab" * 20))


def damage(folder: BatchDirectory) -> None:
    Path(folder.path, "batch").write_text("what?")


def open_to_group(folder: BatchDirectory) -> None:
    os.chmod(folder.path, 0o770)


def place(folder: BatchDirectory) -> bool:
    return os.path.exists(f"{folder.path}/batch") and not os.path.exists(f"{folder.home.path}/damaged/{TOKEN}")


@pytest.mark.parametrize("spoil", [damage, open_to_group])
@pytest.mark.parametrize("words", [("resume",), ("check", "--repair")])
def test_a_batch_with_jobs_stays(
    command: Callable[..., Ended],
    folder: BatchDirectory,
    words: tuple[str, ...],
    spoil: Callable[[BatchDirectory], None],
) -> None:
    run_job(folder)
    spoil(folder)
    said = command(*words)
    assert said.status == 1
    assert folder.path in said.words
    assert place(folder)


@pytest.mark.parametrize("words", [("resume",), ("check", "--repair")])
def test_an_unsafe_batch_stays(command: Callable[..., Ended], folder: BatchDirectory, words: tuple[str, ...]) -> None:
    open_to_group(folder)
    said = command(*words)
    assert said.status == 1
    assert "g-w" in said.words, "the remedy is named"
    assert place(folder)


def test_a_scheduler_that_is_not_installed_here(command: Callable[..., Ended], folder: BatchDirectory) -> None:
    said = command("resume")
    assert said.status == 1
    assert "does not speak with the scheduler 'Nowhere'" in said.words
    assert place(folder)
    claim = claim_of(folder)
    assert claim is not None, "a later attempt is free to submit it"
    claim.release()


@pytest.mark.parametrize("words", [("resume",), ("check", "--repair")])
def test_a_damaged_batch_without_jobs_is_set_aside(
    command: Callable[..., Ended], folder: BatchDirectory, words: tuple[str, ...]
) -> None:
    damage(folder)
    command(*words)
    assert not place(folder)
