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

    token, unsent = "0" * 16, None
    calls_per_job = 1

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble
        self.batch = self
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


class Call:
    """A call whose future only notes how it ended."""

    name, job, number, seen_running = "call", "1", 0, 0.0

    def __init__(self, folder: Files) -> None:
        self.folder, self.future = folder, self
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
        self.following = Tracker(CacheDirectory.open(tmp_path), False, (5.0, 60.0), lambda call: None)
        self.followed = TrackedBatch(self.folder)  # type: ignore[arg-type]
        self.followed.calls[0] = [self.call]  # type: ignore[list-item]
        self.following.batches[self.folder.token] = self.followed
        self.questions = Poller(CommandThread(), self.desk, self.following, None, 60.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("trouble", ["parts", "waits"])
def test_a_file_system_stumbles(tmp_path: Path, trouble: str) -> None:
    asking = Asking(tmp_path, trouble)
    asking.questions.ask()
    assert not asking.following.asking
    assert not asking.followed.late
    asking.folder.trouble = ""
    asking.following.questions.at = 0.0
    asking.questions.ask()
    assert asking.followed.late


def test_a_scheduler_talks_nonsense(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    asking.desk.nonsense = True
    asking.questions.ask()
    assert not asking.following.asking
    assert asking.following.questions.at > 0


def test_why_a_job_ended_cannot_be_written_yet(tmp_path: Path) -> None:
    asking = Asking(tmp_path, "end")
    for _ in range(2):
        asking.following.questions.at = 0.0
        asking.questions.ask()
        asking.questions.give_up_overdue(asking.followed, asking.followed.late[0][0] + 100)
        asking.folder.trouble = ""
    assert len(asking.call.errors) == len(asking.folder.ends) == 1
