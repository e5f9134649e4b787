"""Things that once went wrong at the edges: forks that see memory change, calls that nobody waited for."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
from concurrent.futures import Future as StandardFuture
from dataclasses import dataclass
from typing import Any

import pytest

from callyard import Executor, Local, WorkerLost

np = pytest.importorskip("numpy")


def filled(value: float) -> Any:
    return np.full(1 << 18, value)


def mean_later(array: Any, go: Any, answer: Any) -> None:
    go.recv()
    answer.send(float(array.mean()))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from 3.12 on, where there are threads
def test_a_forked_child_keeps_what_it_saw() -> None:
    context = multiprocessing.get_context("fork")
    there, go = context.Pipe(duplex=False)
    back, answer = context.Pipe(duplex=False)
    with Executor(1) as ex:
        array = ex.submit(filled, 1.0).result()
        child = context.Process(target=mean_later, args=(array, there, answer))
        child.start()
        del array
        for _ in range(4):
            ex.submit(filled, 7.0).result()
        go.send(None)
        assert back.recv() == 1.0
        child.join()
    for end in (there, go, back, answer):
        end.close()
    child.close()


def test_shutdown_waits_for_a_call_that_waits_for_somebody_elses_future() -> None:
    foreign: StandardFuture[int] = StandardFuture()
    ex = Executor(1)
    call = ex.submit(abs, foreign)
    ex.shutdown(wait=False)
    foreign.set_result(-3)
    ex.shutdown(wait=True)
    assert call.done()
    assert call.result() == 3


def test_exit_waits_for_a_call_that_waits_for_somebody_elses_future() -> None:
    script = """
        import time
        from concurrent.futures import ThreadPoolExecutor
        from callyard import Executor

        threads = ThreadPoolExecutor(1)
        Executor(1).submit(print, threads.submit(lambda: time.sleep(0.2) or "came"), flush=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "came\n"


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses that anything is set, as a traceback or a cause is."""

    number: int


def raise_frozen(number: int) -> None:
    raise Frozen(number)


def test_an_exception_that_cannot_be_changed() -> None:
    with Executor(1) as ex:
        pid = ex.submit(os.getpid).result()
        for number in range(2):
            error = ex.submit(raise_frozen, ex.submit(abs, number)).exception()
            assert type(error) is Frozen
            assert error.number == number
        assert ex.submit(os.getpid).result() == pid


def test_entries_of_init_function_reach_chunks_of_map() -> None:
    def scaled(x: int, factor: int) -> int:
        return factor * x

    with Executor(1, init_function=lambda: {"factor": 5}) as ex:
        assert list(ex.map(scaled, range(5), chunksize=2)) == [0, 5, 10, 15, 20]


def test_gpus_that_are_added_have_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert Local(gpus=4).capacity().gpus == ("2", "0", "1", "3")


def test_an_initializer_whose_error_cannot_be_opened_here() -> None:
    def initializer() -> None:
        raise type("Strange", (Exception,), {"__reduce__": lambda self: (__import__, ("only_there_xyz",))})

    with Executor(1, initializer=initializer) as ex:
        assert isinstance(ex.submit(abs, -1).exception(), WorkerLost)


def test_what_was_left_in_the_inbox_may_have_been_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread holds the lock when the last call ends: then its end waits in the inbox while the node closes."""
    ex = Executor(1)
    assert ex.submit(pow, 2, 3).result() == 8
    node: Any = ex._running.backend._runner  # type: ignore[attr-defined]
    is_over, left = node._is_over, [True]

    def is_over_but_for_what_is_left() -> bool:
        if node._dispatcher.closing and left:
            left.clear()
            node._dispatcher.inbox.append(lambda: None)
            return False
        return bool(is_over())

    monkeypatch.setattr(node, "_is_over", is_over_but_for_what_is_left)
    ex.shutdown()
    assert not left
