from __future__ import annotations

import json

import pytest

from callyard.errors import SchedulerError
from callyard.schedulers.command import Query


def test_an_answer_is_read() -> None:
    assert Query(["yard", "limit"], int).answer("10\n") == 10


def test_an_answer_without_sense_is_told_with_its_command() -> None:
    with pytest.raises(SchedulerError, match=r"ostat printed '<html>', which cannot be read: JSONDecodeError"):
        Query(["ostat", "--json"], json.loads).answer("<html>")


def test_an_error_of_the_scheduler_stays_as_it_is() -> None:
    own = SchedulerError("no number")

    def read(out: str) -> int:
        raise own

    with pytest.raises(SchedulerError) as caught:
        Query(["yard"], read).answer("")
    assert caught.value is own
