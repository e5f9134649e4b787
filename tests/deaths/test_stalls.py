"""Calls of short functions are sent ahead; when one blocks, those behind it run elsewhere, each once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import acts
import pytest

from callyard import Executor


def _warm(executor: Executor, path: str, count: int = 300) -> None:
    for call in [executor.submit(acts.note_and_stay_at, path, i, -1, "") for i in range(count)]:
        call.result()


@pytest.mark.parametrize("blocking", [0, 1, 50, 199])
def test_calls_behind_one_that_blocks_run_elsewhere(fifo: Any, journal: str, tmp_path: Any, blocking: int) -> None:
    """The one that blocks ends only after all others have."""
    go = fifo()
    with Executor(2) as executor:
        _warm(executor, str(tmp_path / "warm"))
        calls = [executor.submit(acts.note_and_stay_at, journal, i, blocking, go) for i in range(200)]
        assert [call.result() for i, call in enumerate(calls) if i != blocking] == [
            i for i in range(200) if i != blocking
        ]
        assert calls[blocking].running()
        acts.tell(go)
        assert calls[blocking].result() == blocking
    assert Counter(acts.noted(journal)) == Counter(map(str, range(200)))


def test_again_and_again(fifo: Any, journal: str, tmp_path: Any) -> None:
    with Executor(2) as executor:
        _warm(executor, str(tmp_path / "warm"))
        for turn in range(10):
            go = fifo()
            numbers = range(turn * 100, turn * 100 + 100)
            calls = [executor.submit(acts.note_and_stay_at, journal, i, numbers[turn * 7], go) for i in numbers]
            for i, call in zip(numbers, calls, strict=True):
                if i != numbers[turn * 7]:
                    assert call.result() == i
            acts.tell(go)
            assert calls[turn * 7].result() == numbers[turn * 7]
            _warm(executor, str(tmp_path / "warm"), 100)
    assert Counter(acts.noted(journal)) == Counter(map(str, range(1000)))


def test_on_one_worker_they_wait_and_may_be_cancelled(fifo: Any, journal: str, tmp_path: Any) -> None:
    """Withdrawn calls are pending again."""
    go = fifo()
    with Executor(1) as executor:
        _warm(executor, str(tmp_path / "warm"))
        calls = [executor.submit(acts.note_and_stay_at, journal, i, 0, go) for i in range(100)]
        last = calls[-1]
        while not last.cancel():  # it may be withdrawn at any moment, and is soon
            pass
        acts.tell(go)
        assert [call.result() for call in calls[:-1]] == list(range(99))
        assert last.cancelled()
    assert Counter(acts.noted(journal)) == Counter(map(str, range(99)))


def test_results_before_the_one_that_blocks_arrive(fifo: Any, journal: str, tmp_path: Any) -> None:
    """They were collected to be sent together, and must not wait for it."""
    go = fifo()
    with Executor(1) as executor:
        _warm(executor, str(tmp_path / "warm"))
        calls = [executor.submit(acts.note_and_stay_at, journal, i, 20, go) for i in range(21)]
        assert [call.result() for call in calls[:20]] == list(range(20))
        acts.tell(go)
        assert calls[20].result() == 20
