"""What the answers of a scheduler mean for who asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.backends.desk import Desk, Refused
from penstock.resources import Resources
from penstock.schedulers import slurm
from penstock.schedulers.base import JobRequest, Reply


class Says:
    """A machine on which each command says the same."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def run(self, argv: Sequence[str], **_: Any) -> Reply:
        return self._reply


def test_a_submission_whose_answer_has_no_number_was_perhaps_taken() -> None:
    desk = Desk(slurm, Says(Reply(0, "welcome to the cluster\n")), 5.0)
    with pytest.raises(Refused, match="welcome") as refused:
        desk.submit(JobRequest("call", "token", "script", "log", Resources()))
    assert refused.value.kind == "silent"
