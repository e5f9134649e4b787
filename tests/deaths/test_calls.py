"""Calls that do to their process what no call should."""

from __future__ import annotations

import os
from typing import Any

import acts
import pytest

from callyard import Executor, WorkerLost
from callyard.pool.dispatcher import Dispatcher


def test_fork_of_which_both_return(executor: Executor) -> None:
    """One result, the worker's; the other process ends quietly."""
    for _ in range(5):
        pid = executor.submit(os.getpid).result()
        assert executor.submit(acts.fork_and_both_return).result() == pid
    assert executor.submit(os.getpid).result() == pid


def test_fork_of_which_both_raise(executor: Executor) -> None:
    pid = executor.submit(os.getpid).result()
    with pytest.raises(ValueError, match=str(pid)):
        executor.submit(acts.fork_and_both_raise).result()
    assert executor.submit(os.getpid).result() == pid


def test_all_descriptors_closed(executor: Executor) -> None:
    """Whether the result still arrives is a matter of chance; the call ends, and others go on."""
    others = [executor.submit(pow, 2, i) for i in range(20)]
    call = executor.submit(acts.close_descriptors)
    assert isinstance(call.exception(), WorkerLost | None)
    assert [other.result() for other in others] == [2**i for i in range(20)]
    assert executor.submit(pow, 2, 2).result() == 4


def test_stream_closed_by_a_call_that_goes_on(executor: Executor, fifo: Any) -> None:
    """Nothing could be heard of it any more, so it is ended."""
    call = executor.submit(acts.close_descriptors, fifo())
    with pytest.raises(WorkerLost, match="'close_descriptors' lost its worker"):
        call.result()
    assert executor.submit(pow, 2, 2).result() == 4


def test_calls_behind_one_that_closed_the_stream(journal: str, fifo: Any) -> None:
    with Executor(1) as executor:
        for call in [executor.submit(acts.note, os.devnull, i) for i in range(100)]:
            call.result()
        call = executor.submit(acts.close_descriptors, fifo())
        others = [executor.submit(acts.note, journal, i) for i in range(100)]
        assert isinstance(call.exception(), WorkerLost)
        assert [other.result() for other in others] == list(range(100))
    assert sorted(map(int, acts.noted(journal))) == list(range(100))


def test_thread_that_never_ends_delays_no_end_for_ever(monkeypatch: Any) -> None:
    monkeypatch.setattr(Dispatcher, "grace", 0.2)
    with Executor(1) as executor:
        pid = executor.submit(acts.start_thread).result()
        assert executor.submit(os.getpid).result() == pid


def test_thread_that_never_ends_holds_no_memory_for_ever(monkeypatch: Any) -> None:
    """The worker is let go because another call needs what it holds."""
    from callyard import Local

    monkeypatch.setattr(Dispatcher, "grace", 0.2)
    with Executor(backend=Local(cores=2, memory=2)) as executor:
        first = executor.submit(acts.start_thread, resource_dict={"memory": 1}).result()
        assert executor.submit(os.getpid, resource_dict={"memory": 2}).result() != first


@pytest.mark.needs("linux")
def test_child_left_behind_ends_with_the_executor(ended: Any) -> None:
    with Executor(1) as executor:
        pids = executor.submit(acts.start_all).result()
        assert executor.submit(pow, 2, 2).result() == 4
        assert not any(acts.gone(pid) for pid in pids)  # the user may have meant it
    ended(pids)


@pytest.mark.needs("linux")
def test_child_left_behind_ends_with_its_worker(ended: Any) -> None:
    with Executor(2) as executor:
        pids = executor.submit(acts.start_all).result()
        worker = os.getsid(pids[0])
        os.kill(worker, 9)
        ended([pids[0], pids[2]])  # those of its session; the others when no worker is left
    ended(pids)


def test_child_holding_the_stream_hides_no_death(executor: Executor, fifo: Any) -> None:
    """The driver would see no end of the stream, but the zygote sees that of the process."""
    with pytest.raises(WorkerLost, match="exit code 4"):
        executor.submit(acts.fork_and_die).result()
    assert executor.submit(pow, 2, 2).result() == 4
