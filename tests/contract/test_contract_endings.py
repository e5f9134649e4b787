"""What a call hears of its end, and calls that are run again: `ending`, `current`, `Again`, `grace`, `warn_before`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ending_calls as calls
import pytest
from gate import Gate, until

import callyard
from callyard import Executor, TimeLimitExceeded, WorkerLost

Make = Callable[..., Executor]
SOON = 1.0  # s; a `run_time` that is over soon


@pytest.fixture
def warm(ex: Executor) -> Executor:
    """An executor with a worker that has loaded what it needs: else its time might be over before the call begins."""
    ex.submit(calls.about).result()
    return ex


def test_outside_of_a_call() -> None:
    assert callyard.current() is None
    assert callyard.ending() is False


# ------------------------------------------------------------------ run again


@pytest.mark.core
@pytest.mark.feature("again")
def test_a_call_that_asks_to_be_run_again(ex: Executor) -> None:
    future = ex.submit(calls.count_down, 3)
    dependent = ex.submit(repr, future)
    total, attempt = future.result()
    assert total == 6
    assert attempt in (4, 1), "where a call is no call of ours (threads) it knows nothing of itself"
    assert future.attempts == 4
    assert dependent.result() == repr((total, attempt))
    assert dependent.attempts == 1


@pytest.mark.feature("again")
def test_except_exception_does_not_catch_it(ex: Executor) -> None:
    assert ex.submit(calls.swallow).result() == "run again"


@pytest.mark.feature("again", "resources")
def test_arguments_that_cannot_be_sent(ex: Executor) -> None:
    with pytest.raises(callyard.UnpicklableCall, match="the arguments of Again, of types generator, cannot be sent"):
        ex.submit(calls.go_on_unpicklable).result()


@pytest.mark.feature("again", "any function")
def test_functions_that_travel_with_their_arguments(ex: Executor) -> None:
    def bound(steps: int, total: int = 0, *, by: int) -> int:
        if steps:
            raise callyard.Again(steps - 1, total + by, by=by)
        return total

    class Counter:
        by = 5

        def count(self, steps: int, total: int = 0) -> int:
            if steps:
                raise callyard.Again(steps - 1, total + self.by)
            return total

    assert ex.submit(bound, 3, by=2).result() == 6
    assert ex.submit(Counter().count, 3).result() == 15
    assert ex.submit(bound, ex.submit(abs, -3), by=2).result() == 6, "it does not wait for the first input again"


@pytest.mark.feature("again")
def test_large_arguments(ex: Executor) -> None:
    assert ex.submit(calls.grow, bytes(1 << 18), 4).result() == 1 << 22


@pytest.mark.feature("again", "workers", "any function")
def test_others_go_first(make: Make, gate: Gate, tmp_path: Path) -> None:
    ex, order = make(1), tmp_path / "order"

    def note(text: str, again: bool = False) -> None:
        gate.hold()
        with order.open("a") as file:
            file.write(text)
        if again:
            raise callyard.Again(text.upper())

    futures = [ex.submit(note, "a", True), ex.submit(note, "b"), ex.submit(note, "c")]
    gate.open(4)
    for future in futures:
        future.result()
    assert order.read_text() == "abcA"


@pytest.mark.feature("again", "kill")
def test_a_call_that_asks_for_it_while_its_executor_is_ended(make: Make, tmp_path: Path) -> None:
    ex, begun = make(1), tmp_path / "begun"
    future = ex.submit(calls.ask_when_told, begun)
    until(begun.exists)
    ex.terminate_workers()
    ex.shutdown()
    assert future.cancelled()


# ------------------------------------------------------------------ the end


@pytest.mark.core
@pytest.mark.feature("grace")
def test_a_call_cleans_up_when_its_time_is_over(warm: Executor, tmp_path: Path) -> None:
    word = tmp_path / "word"
    with pytest.raises(TimeLimitExceeded):
        warm.submit(calls.clean_up, word, resource_dict={"run_time": SOON}).result()
    assert word.read_text() == "ending True"
    assert warm.submit(abs, -1).result() == 1


@pytest.mark.feature("grace")
def test_a_call_that_waits_in_c_hears_of_its_end(warm: Executor, tmp_path: Path) -> None:
    """SIGTERM does not end what it waits in, as if it had come just before that."""
    word = tmp_path / "word"
    with pytest.raises(TimeLimitExceeded):
        warm.submit(calls.clean_up_beside_a_thread, word, resource_dict={"run_time": SOON}).result()
    assert word.read_text() == "ending True"


@pytest.mark.feature("grace")
def test_a_call_that_returns_within_its_grace(warm: Executor, tmp_path: Path) -> None:
    resources = {"run_time": SOON, "grace": 60}
    assert warm.submit(calls.save_and_return, tmp_path / "a", resource_dict=resources).result() == "saved"
    assert warm.submit(abs, -1).result() == 1


@pytest.mark.feature("grace")
def test_the_future_tells_why_and_not_what_followed(warm: Executor) -> None:
    for function in (calls.raise_another, calls.exit_in_a_handler, calls.ignore_the_end):
        with pytest.raises(TimeLimitExceeded):
            warm.submit(function, resource_dict={"run_time": SOON, "grace": 1}).result()


@pytest.mark.feature("grace")
def test_no_grace(warm: Executor, tmp_path: Path) -> None:
    word = tmp_path / "word"
    with pytest.raises(TimeLimitExceeded):
        warm.submit(calls.clean_up, word, resource_dict={"run_time": SOON, "grace": 0}).result()
    assert word.read_text() == "begun"


@pytest.mark.feature("grace")
def test_a_handler_of_the_calls_own(warm: Executor) -> None:
    future = warm.submit(calls.handle_the_end, resource_dict={"run_time": SOON, "grace": 60})
    assert future.result() == "handled True"


@pytest.mark.feature("grace", "kill")
def test_a_call_cleans_up_when_the_workers_are_terminated(make: Make, tmp_path: Path, gate: Gate) -> None:
    ex, word, begun = make(), tmp_path / "word", tmp_path / "begun"
    saving = ex.submit(calls.save_and_return, begun)
    cleaning = ex.submit(calls.clean_up, word)
    until(begun.exists)
    until(word.exists)
    ex.terminate_workers()
    assert saving.result() == "saved"
    with pytest.raises(WorkerLost, match="SIGTERM"):
        cleaning.result()
    ex.shutdown()


@pytest.mark.feature("grace", "kill")
def test_a_call_cleans_up_after_ctrl_c(make: Make, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with pytest.raises(KeyboardInterrupt), make() as ex:
        saving = ex.submit(calls.save_and_return, begun)
        until(begun.exists)
        raise KeyboardInterrupt
    assert saving.result() == "saved"


@pytest.mark.feature("grace")
def test_children_of_a_call_are_plain_processes(ex: Executor) -> None:
    assert ex.submit(calls.child_of_a_call).result() == -signal.SIGTERM


# ------------------------------------------------------------------ the warning


@pytest.mark.feature("grace")
def test_a_warning_comes_before_the_end(warm: Executor) -> None:
    resources = {"run_time": 60, "warn_before": 60 - SOON}
    in_time, left = warm.submit(calls.until_warned, resource_dict=resources).result()
    assert in_time
    assert 0 < left < 60


@pytest.mark.feature("grace")
def test_a_warning_that_would_come_before_the_call(ex: Executor) -> None:
    in_time, _ = ex.submit(calls.until_warned, resource_dict={"run_time": 60, "warn_before": "2min"}).result()
    assert not in_time, "it is warned from the beginning"


@pytest.mark.feature("grace")
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_the_signal_that_warns(warm: Executor, name: str) -> None:
    resources = {"run_time": 60, "warn_before": 60 - 2 * SOON, "warn_signal": name}
    assert warm.submit(calls.warned_by, name, resource_dict=resources).result() == name


@pytest.mark.core
@pytest.mark.feature("grace", "again")
def test_a_call_that_goes_on_after_a_warning(ex: Executor, tmp_path: Path) -> None:
    resources = {"run_time": 60, "warn_before": 60 - SOON}
    future = ex.submit(calls.stop_when_warned, tmp_path / "begun", resource_dict=resources)
    assert future.result() == 1
    assert future.attempts == 2


@pytest.mark.core
@pytest.mark.feature("grace")
def test_what_a_call_was_given(ex: Executor) -> None:
    future = ex.submit(calls.about, resource_dict={"run_time": 60, "memory": 0.5})
    about: Any = future.result()
    assert (about.attempt, about.key, about.cores, about.gpus, about.memory) == (1, future.key, 1, (), 0.5)
    assert (about.name, about.number) == ("about", None)
    plain = ex.submit(lambda: (callyard.current().time_left(), callyard.ending()))  # type: ignore[union-attr]
    assert plain.result()[1] is False


@pytest.mark.feature("grace")
def test_an_executor_within_a_call_has_what_the_call_was_given(ex: Executor) -> None:
    resources = {"memory": 0.5}
    assert "1 core, 0 GPUs, 0.5 GiB" in ex.submit(calls.about_an_executor, resource_dict=resources).result()
    assert "1 core," in ex.submit(calls.about_an_executor).result()
    (name,) = ex.map(lambda _: callyard.current().name, [1], chunksize=2)  # type: ignore[union-attr]
    assert name == "<lambda>"


@pytest.mark.feature("kill", "any function", "workers")
@pytest.mark.core
def test_a_call_whose_loading_ends_its_process(ex: Executor) -> None:
    """A module may crash when it is imported: that counts as the call's own end, and no other worker is tried.

    On another computer the gateway loads the function first, and would end.
    """

    def opens(value: object = calls.EndsOthers()) -> object:
        return value

    for fn, args in (opens, ()), (calls.take, (calls.EndsOthers(),)):
        with pytest.raises(WorkerLost, match="lost its worker"):
            ex.submit(fn, *args).result()
    assert ex.submit(calls.take, 1).result() == 1


@pytest.mark.feature("kill")
@pytest.mark.core
def test_the_attempts_of_a_call_that_was_lost_at_last(ex: Executor) -> None:
    future = ex.submit(os._exit, 3, resource_dict={"restart_limit": 1})
    with pytest.raises(WorkerLost, match="run 2 of 2"):
        future.result()
    assert future.attempts == 2
