"""What CPython's tests that look into private attributes want to know, asked through the public interface."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from pickle import PicklingError
from typing import Any

import cpython_executors
import psutil
import pytest

import callyard

Create = Callable[..., callyard.Executor]

CREATE = {
    "local": cpython_executors.local,
    "threads": cpython_executors.threads,
    "processes": partial(cpython_executors.processes, mp_context=get_context("forkserver")),
}


@pytest.fixture(params=CREATE)
def create(request: pytest.FixtureRequest) -> Iterator[Create]:
    yield CREATE[request.param]
    cpython_executors.shutdown_wrapped()


class Unpicklable:
    def __reduce__(self) -> Any:
        raise PicklingError("not this one")


def fail() -> None:
    raise ValueError("the initializer failed")


def where() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def tell_and_wait(fifo: Path) -> None:
    with fifo.open("w") as file:
        file.write("started")
        file.flush()
        threading.Event().wait()


def test_a_worker_that_dies() -> None:
    with cpython_executors.local(2) as executor:
        with pytest.raises(BrokenProcessPool, match="99") as first:
            executor.submit(os._exit, 99).result()
        # The standard library's pool would be broken from here on; this one has lost one call.
        with pytest.raises(BrokenProcessPool, match="98") as second:
            executor.submit(os._exit, 98).result()
        assert first.value is not second.value
        assert executor.submit(pow, 2, 8).result() == 256


def test_cancelling_different_calls(tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "fifo")
    executor = cpython_executors.cached(1)
    running = executor.submit(tell_and_wait, fifo)
    with fifo.open() as file:
        file.read(len("started"))
    waiting = [executor.submit(pow, 2, exponent) for exponent in range(50)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in (running, *waiting)] == [False] + [True] * 50
    executor.kill_workers()
    with pytest.raises(BrokenProcessPool):
        running.result()
    executor.shutdown()
    cpython_executors.shutdown_wrapped()


def test_what_has_no_meaning() -> None:
    with cpython_executors.cached(1) as executor:
        with pytest.raises(callyard.CacheError, match="not this one"):
            executor.submit(id, Unpicklable())
        assert executor.submit(pow, 2, 8).result() == 256
    cpython_executors.shutdown_wrapped()


def test_saturation(create: Create) -> None:
    with create(4) as executor:
        futures = [executor.submit(where) for _ in range(60)]
        assert len({future.result() for future in futures}) <= 4


def test_an_idle_worker_is_used_again() -> None:
    with cpython_executors.local(4) as executor:
        assert len({executor.submit(os.getpid).result() for _ in range(3)}) == 1


def test_max_tasks_per_child() -> None:
    with cpython_executors.local(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(os.getpid).result() for _ in range(4)]
    assert pids[0] == pids[1] == pids[2] != pids[3]


@pytest.mark.parametrize("name", ["terminate_workers", "kill_workers"])
def test_ending_workers(name: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    executor = cpython_executors.local(1)
    future = executor.submit(tell_and_wait, fifo)
    with fifo.open() as file:
        assert file.read(len("started")) == "started"
        getattr(executor, name)()
        assert file.read() == ""  # the end of the file: the worker, which had it open, is gone
    with pytest.raises(BrokenProcessPool):
        future.result()
    with pytest.raises(RuntimeError):
        executor.submit(pow, 2, 8)


def test_shutdown_ends_the_workers() -> None:
    with cpython_executors.local(2) as executor:
        worker = psutil.Process(executor.submit(os.getpid).result())
    _, alive = psutil.wait_procs([worker], timeout=30)
    assert not alive


def test_a_dropped_executor_finishes_its_calls(create: Create) -> None:
    executor = create(2)
    results = executor.map(abs, range(-5, 5))
    del executor
    gc.collect()
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]


def test_shutdown_without_waiting(create: Create) -> None:
    executor = create(2)
    results = executor.map(abs, range(-5, 5))
    executor.shutdown(wait=False)
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]


def test_what_cannot_be_pickled_after_shutdown() -> None:
    executor = cpython_executors.local(2)
    future = executor.submit(id, Unpicklable())
    executor.shutdown(wait=False)
    with pytest.raises(PicklingError):
        future.result()


def test_an_initializer_that_fails(create: Create) -> None:
    with create(1, initializer=fail) as executor:
        for _ in range(2):  # it has failed when the first call ends, and stays so
            with pytest.raises(BrokenExecutor):
                executor.submit(where).result()
