"""`run_time` and `memory` end the call that exceeds them, with all it started, and no other."""

from __future__ import annotations

import os
import time
from typing import Any

import acts
import pytest

from callyard import Executor, OutOfMemory, TimeLimitExceeded

SHORT = {"run_time": 0.2}
MB = 1 << 20


@pytest.mark.parametrize(("act", "args"), [(acts.stay, ()), (time.sleep, (1000,)), (acts.hold_the_interpreter, ())])
def test_time_limit_ends_a_call_wherever_it_is(executor: Executor, act: Any, args: tuple[Any, ...]) -> None:
    other = executor.submit(pow, 2, 2)
    with pytest.raises(TimeLimitExceeded, match=f"'{act.__name__}' ran longer than its run_time of 0.2 s") as caught:
        executor.submit(act, *args, resource_dict=SHORT).result()
    assert isinstance(caught.value, TimeoutError)
    assert other.result() == 4
    assert executor.submit(pow, 3, 2, resource_dict=SHORT).result() == 9


def test_next_call_runs_on_a_fresh_worker() -> None:
    with Executor(1) as executor:
        before = executor.submit(os.getpid).result()
        assert isinstance(executor.submit(acts.stay, resource_dict=SHORT).exception(), TimeLimitExceeded)
        assert executor.submit(os.getpid).result() != before


def test_children_end_with_the_call(executor: Executor, journal: str, ended: Any) -> None:
    call = executor.submit(acts.start_child_and_sleep, journal, resource_dict={"run_time": 1})
    assert isinstance(call.exception(), TimeLimitExceeded)
    ended([int(pid) for pid in acts.noted(journal)])


def test_a_call_that_ran_too_long_is_not_run_again(executor: Executor, journal: str) -> None:
    call = executor.submit(acts.hold_the_interpreter, journal, resource_dict={**SHORT, "restart_limit": 3})
    assert isinstance(call.exception(), TimeLimitExceeded)
    assert len(acts.noted(journal)) == 1


def test_each_call_of_a_function_knows_the_time_left() -> None:
    """From its second call on, a worker knows the function by a number."""
    with Executor(1) as one:
        limited = one.with_resources(run_time=60)
        left = [limited.submit(acts.time_left).result() for _ in range(3)]
    assert all(seconds is not None and 0 < seconds <= 60 for seconds in left)


def test_a_call_that_raises_after_its_deadline_ran_too_long() -> None:
    """It ends itself, and the error tells the reason all the same."""
    with Executor(1) as executor:
        limited = executor.with_resources(run_time=0.05, restart_limit=1)
        futures = [limited.submit(acts.raise_when_ending) for _ in range(10)]
        assert {type(future.exception()) for future in futures} == {TimeLimitExceeded}
        assert {future.attempts for future in futures} == {1}


def test_limits_never_hit_the_following_call() -> None:
    """Calls that take about as long as they may: whichever way each ends, those without a limit do not fail."""
    with Executor(2) as executor:
        tight = executor.with_resources(run_time=0.02)
        calls = [(tight.submit(time.sleep, 0.018 + 0.002 * (i % 3)), executor.submit(pow, 2, i)) for i in range(100)]
        for i, (limited, free) in enumerate(calls):
            assert limited.exception() is None or isinstance(limited.exception(), TimeLimitExceeded)
            assert free.result() == 2**i


@pytest.mark.needs("linux")
def test_allocation_that_is_too_large(executor: Executor) -> None:
    small = executor.with_resources(memory=0.25)
    fits, other = small.submit(acts.allocate, 20 * MB), executor.submit(pow, 2, 2)
    with pytest.raises(OutOfMemory, match=r"'allocate' took more than its memory of 0.25 GiB") as caught:
        small.submit(acts.allocate, 1000 * MB).result()
    assert isinstance(caught.value, MemoryError)
    assert (fits.result(), other.result()) == (20 * MB, 4)
    assert small.submit(acts.allocate, 20 * MB).result() == 20 * MB
    assert executor.submit(acts.allocate, 400 * MB).result() == 400 * MB  # the limit was that call's only


@pytest.mark.needs("linux")
@pytest.mark.parametrize(("size", "count"), [(400, 1), (120, 3)])
def test_memory_of_child_processes_counts(executor: Executor, size: int, count: int) -> None:
    call = executor.submit(acts.allocate_in_children, size * MB, count, resource_dict={"memory": 0.25})
    others = [executor.submit(pow, 2, i) for i in range(10)]
    with pytest.raises(OutOfMemory, match="'allocate_in_children'"):
        call.result()
    assert [other.result() for other in others] == [2**i for i in range(10)]


@pytest.mark.needs("linux")
@pytest.mark.parametrize("act", [acts.fill_a_nameless_file, acts.fill_in_a_daemon])
def test_memory_that_nobody_maps_counts(executor: Executor, act: Any) -> None:
    call = executor.submit(act, 400 * MB, resource_dict={"memory": 0.25})
    with pytest.raises(OutOfMemory, match=f"'{act.__name__}' took more than its memory of 0.25 GiB"):
        call.result()


def test_both_limits_of_one_call(executor: Executor) -> None:
    call = executor.submit(acts.stay, resource_dict={"run_time": 0.2, "memory": 0.5})
    assert isinstance(call.exception(), TimeLimitExceeded)
