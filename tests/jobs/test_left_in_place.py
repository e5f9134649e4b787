"""Batches that `callyard resume` and `callyard check --repair` leave in place: their jobs run, or may be submitted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from batches import TOKEN, batch

from callyard.backends.batch.scheduler_client import SubmissionRefused
from callyard.backends.batch.submitter import claim_of
from callyard.cache.directory import CacheDirectory
from callyard.cli import ended_jobs, main
from callyard.jobs.batch import BatchPart, CallStart
from callyard.jobs.spool import BatchDirectory
from callyard.schedulers.base import Status


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


def test_a_batch_after_another_that_is_unsafe(command: Callable[..., Ended], folder: BatchDirectory) -> None:
    first = BatchDirectory(folder.home, TOKEN[::-1])
    first.create(batch(token=first.token), [b"call"] * 2, "")
    after = {"name": "relax", "after": [("any", first.token, None)]}
    folder.remove()
    folder.create(folder.batch.replace(request=after), [b"call"] * 2, "")
    open_to_group(first)
    said = command("resume")
    assert said.status == 1
    assert f"{folder.path} was not submitted" in said.words
    assert place(folder)


# ------------------------------------------------------------------ damaged batches whose jobs are over


class Client:
    """A scheduler that knows some jobs."""

    def __init__(self, phases: dict[str, str] | None) -> None:
        self.phases = phases

    def look_up(self, token: str) -> dict[str, str]:
        if self.phases is None:
            raise SubmissionRefused("silent", "it does not answer")
        return {}

    def statuses(self, jobs: list[str]) -> dict[str, Status]:
        assert jobs == ["17"]
        return {job: Status(phase, "") for job, phase in (self.phases or {}).items()}  # type: ignore[arg-type]


KNOWN = {
    "over": ({}, True),
    "ended": ({"17_0": "ended", "17_1": "ended", "170": "running"}, True),
    "running": ({"17_0": "ended", "17_1": "running"}, False),
    "waiting": ({"17_1": "waiting"}, False),
    "silent": (None, False),
}


@pytest.fixture
def damaged(folder: BatchDirectory) -> BatchDirectory:
    """A damaged batch whose job has run long ago."""
    run_job(folder)
    damage(folder)
    os.utime(f"{folder.path}/0.begun", (1.0, 1.0))
    return folder


@pytest.mark.parametrize("words", [("check", "--repair"), ("prune", "--older-than", "0s", "--yes")])
@pytest.mark.parametrize(("phases", "goes"), KNOWN.values(), ids=KNOWN)
def test_a_damaged_batch_goes_only_when_its_jobs_are_over(
    command: Callable[..., Ended],
    damaged: BatchDirectory,
    words: tuple[str, ...],
    phases: dict[str, str] | None,
    goes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ended_jobs, "scheduler_here", lambda environ: "Slurm")
    monkeypatch.setattr(ended_jobs, "client_of", lambda name: Client(phases))
    said = command(*words)
    assert place(damaged) != goes
    assert goes == (damaged.path in said.words) or words[0] == "check"


def test_a_damaged_batch_stays_where_no_scheduler_is_known(
    command: Callable[..., Ended], damaged: BatchDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended_jobs, "scheduler_here", lambda environ: "")
    assert "its jobs may not be over, so it stays" in command("check", "--repair").words
    assert place(damaged)


def test_a_damaged_batch_whose_call_shows_that_it_runs(
    command: Callable[..., Ended], damaged: BatchDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the cluster of another scheduler than the one here."""
    monkeypatch.setattr(ended_jobs, "scheduler_here", lambda environ: "Slurm")
    monkeypatch.setattr(ended_jobs, "client_of", lambda name: Client({}))
    os.utime(f"{damaged.path}/0.begun")
    command("check", "--repair")
    assert place(damaged)
