"""What goes wrong with a question about jobs does not end the calls that wait for them."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from callyard.backends.batch.poller import Poller
from callyard.backends.batch.tracker import TrackedBatch, Tracker
from callyard.cache.directory import CacheDirectory
from callyard.jobs.batch import BatchPart
from callyard.schedulers.base import Status
from callyard.utils.command_thread import CommandThread

STALE = OSError(errno.ESTALE, "Stale file handle")


class Files:
    """A batch of one call; what cannot be read or written raises."""

    token, name, unsent = "0" * 16, "call", None
    calls_per_job = 1

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

    def waits(self) -> dict[int, str]:
        self._stumble("waits")
        return {}

    def begun(self, number: int) -> None:
        self._stumble("begun")

    def ended(self, number: int) -> None:
        return None

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

    def fail_with(self, error: BaseException) -> None:
        self.errors.append(error)


class Desk:
    """A scheduler that knows nothing of what has ended."""

    nonsense = False

    def statuses(self, jobs: Sequence[str]) -> dict[str, Status]:
        if self.nonsense:
            raise ValueError("squeue: what?")
        return {"1": Status("ended", "ended with exit code 0", exit_code=0)}

    def history(self, jobs: Sequence[str]) -> dict[str, Status]:
        return {}


class Asking:
    def __init__(self, tmp_path: Path, trouble: str = "") -> None:
        self.desk, self.folder = Desk(), Files(trouble)
        self.call = Call(self.folder)
        self.tracker = Tracker(CacheDirectory.open(tmp_path), False, (5.0, 60.0), 60.0, lambda call: None)
        self.tracked = TrackedBatch(self.folder, 60.0)  # type: ignore[arg-type]
        self.tracked.add(self.call)  # type: ignore[arg-type]
        self.tracker.batches[self.folder.token] = self.tracked
        self.poller = Poller(CommandThread(), self.desk, self.tracker, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("trouble", ["parts", "waits"])
def test_a_file_system_stumbles(tmp_path: Path, trouble: str) -> None:
    asking = Asking(tmp_path, trouble)
    asking.poller.ask()
    assert not asking.tracker.asking
    assert asking.tracked.states[0].overdue_since is None
    asking.folder.trouble = ""
    asking.tracker.questions.at = 0.0
    asking.poller.ask()
    assert asking.tracked.states[0].overdue_since is not None


def test_a_scheduler_talks_nonsense(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    asking.desk.nonsense = True
    asking.poller.ask()
    assert not asking.tracker.asking
    assert asking.tracker.questions.at > 0


def test_why_a_job_ended_cannot_be_written(tmp_path: Path) -> None:
    """Its future is told all the same: the file system may never take it."""
    asking = Asking(tmp_path, "end")
    asking.poller.ask()
    since = asking.tracked.states[0].overdue_since
    assert since is not None
    asking.poller.give_up_overdue(asking.tracked, since + 100)
    assert len(asking.call.errors) == 1
    assert asking.folder.ends == []
