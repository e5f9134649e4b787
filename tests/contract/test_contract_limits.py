"""Lists of limits: a call beyond its memory or time runs again with the next limit."""

from __future__ import annotations

import signal
from collections.abc import Callable

import contract_calls as calls
import pytest

from callyard import Executor, OutOfMemory, ResourceError, TimeLimitExceeded, current

Make = Callable[..., Executor]


def enough_at(attempt: int) -> tuple[int, float | None]:
    """Take much memory in each attempt before this one; return the attempt, and the limit of memory."""
    if current().attempt < attempt:
        bytearray(1 << 42)
    return current().attempt, current().memory


def in_time_at(attempt: int) -> int:
    """Never return in an attempt before this one."""
    while current().attempt < attempt:
        signal.pause()  # until it is told to end
    return current().attempt


@pytest.mark.feature("resources")
@pytest.mark.core
def test_a_call_beyond_a_limit_runs_again_with_the_next_one(ex: Executor) -> None:
    grown = ex.submit(enough_at, 3, resource_dict={"memory": [0.5, "640MB", 0.75]})
    slow = ex.submit(in_time_at, 2, resource_dict={"run_time": [0.5, "1min"]})
    after = ex.submit(calls.both, grown, slow)
    assert after.result() == ((3, 0.75), 2)
    assert (grown.attempts, slow.attempts) == (3, 2)


@pytest.mark.feature("resources")
def test_a_call_beyond_its_last_limit_fails(ex: Executor) -> None:
    grown = ex.submit(enough_at, 9, resource_dict={"memory": [0.5, 0.625]})
    slow = ex.submit(in_time_at, 9, resource_dict={"run_time": [0.25, 0.5]})
    with pytest.raises(OutOfMemory, match=r"memory of 0\.625 GiB"):
        grown.result()
    with pytest.raises(TimeLimitExceeded, match=r"0\.5 s"):
        slow.result()
    assert (grown.attempts, slow.attempts) == (2, 2)


@pytest.mark.feature("resources")
def test_each_error_has_its_own_list(ex: Executor) -> None:
    with pytest.raises(TimeLimitExceeded):
        ex.submit(in_time_at, 9, resource_dict={"run_time": 0.25, "memory": [0.5, 0.625]}).result()
    with pytest.raises(OutOfMemory):
        ex.submit(enough_at, 9, resource_dict={"run_time": [60, 120], "memory": 0.5}).result()


@pytest.mark.feature("resources")
@pytest.mark.parametrize("limits", [[], [1, None], [1, "much"], [[1]], [1, -1]])
def test_a_list_with_anything_but_limits_is_refused(ex: Executor, limits: list[object]) -> None:
    for key in "memory", "run_time":
        with pytest.raises(ResourceError, match=f"^{key} must be"):
            ex.submit(calls.same, 1, resource_dict={key: limits})
