"""What the answers of a scheduler mean for who asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from callyard.backends.batch.scheduler_client import SchedulerClient, SubmissionRefused
from callyard.resources import Resources
from callyard.schedulers.base import JobRequest, Reply
from callyard.schedulers.slurm.scheduler import SlurmScheduler


class Says:
    """A machine on which each command says the same."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.typed: list[str] = []

    def environment(self) -> dict[str, str]:
        return {}

    def exists(self, path: str) -> bool:
        return True

    def run(self, argv: Sequence[str], **_: Any) -> Reply:
        self.typed.append(argv[0])
        return self._reply


def test_a_submission_whose_answer_has_no_number_was_perhaps_taken() -> None:
    desk = SchedulerClient(SlurmScheduler(), Says(Reply(0, "welcome to the cluster\n")), 5.0)
    with pytest.raises(SubmissionRefused, match="welcome") as refused:
        desk.submit(JobRequest("call", "token", "script", "log", Resources()))
    assert refused.value.kind == "silent"


def test_nothing_is_asked_at_the_end_but_jobs_are_submitted_and_cancelled() -> None:
    machine = Says(Reply(0, "7\n"))
    desk = SchedulerClient(SlurmScheduler(), machine, 5.0)
    desk.stop_asking()
    assert desk.statuses(["7"]) is None
    assert desk.times_left(["7"]) == desk.history(["7"]) == {}
    assert machine.typed == []
    assert desk.submit(JobRequest("call", "token", "script", "log", Resources())) == "7"
    desk.cancel(["7"])
    assert machine.typed == ["sbatch", "scancel"]
