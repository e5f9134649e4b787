"""Failed calls in a cache: kept to be looked at, whoever has to write them down, and never an answer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gate import Gate

from callyard import Cache, Executor, OutOfMemory, TimeLimitExceeded, WorkerLost
from callyard.cache.failures import KEPT, sweep

linux = pytest.mark.needs("linux")


def invert(x: float, flag: str = "") -> float:
    if os.path.exists(flag):
        return 0.0
    print(f"inverting {x}")
    return 1 / x


def die(words: str) -> None:
    print(words)
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_on(words: str) -> None:
    print(words, flush=True)
    while True:
        signal.pause()


def take(size: int) -> int:
    print("about to take", size)
    return len(bytearray(size))


def twice(x: float) -> float:
    return 2 * x


def only(results: Path) -> Any:
    (entry,) = Cache(results)
    return entry


def files(results: Path) -> set[str]:
    return {str(path.relative_to(results).parent) for path in results.rglob("*") if path.is_file()}


@linux
def test_an_exception_of_the_function(ex: Executor, results: Path) -> None:
    before = time.time()
    future = ex.submit(invert, 0)
    assert isinstance(future.exception(), ZeroDivisionError)
    entry = only(results)
    assert (entry.key, entry.function, entry.state, entry.answers) == (future.key, "invert", "failed", False)
    assert isinstance(entry.error, ZeroDivisionError)
    assert (entry.failure.error, entry.failure.message) == ("ZeroDivisionError", "division by zero")
    assert (entry.failure.exit_code, entry.failure.signal) == (None, None)
    assert entry.traceback.startswith("Traceback")
    assert entry.traceback.endswith("ZeroDivisionError: division by zero\n")
    assert entry.log == "inverting 0\n"
    assert (entry.args, entry.kwargs, entry.output) == ((0,), {}, None)
    assert entry.host == os.uname().nodename
    assert entry.facts["pid"] != os.getpid()
    assert before - 1 <= entry.created.timestamp() <= time.time()
    assert files(results) == {"failed"}


@linux
def test_the_end_of_a_process(ex: Executor, results: Path) -> None:
    assert isinstance(ex.submit(die, "last words").exception(), WorkerLost)
    entry = only(results)
    assert (entry.failure.error, entry.failure.signal) == ("WorkerLost", "SIGKILL")
    assert "was killed by SIGKILL" in entry.failure.message
    assert isinstance(entry.error, WorkerLost)
    assert entry.log == "last words\n" or entry.log is None  # what was printed, and not lost in its buffer
    assert entry.host == os.uname().nodename
    assert entry.facts["pid"] != os.getpid()
    assert entry.seconds > 0
    assert files(results) == {"failed"}


@linux
def test_a_limit_in_time(ex: Executor, results: Path) -> None:
    ex.submit(twice, 1).result()  # now there is a worker
    future = ex.submit(sleep_on, "falling asleep", resource_dict={"run_time": 2, "grace": 0.1})
    assert isinstance(future.exception(), TimeLimitExceeded)
    assert [entry.key for entry in Cache(results).prune(function="twice")]
    entry = only(results)
    assert entry.failure.error == "TimeLimitExceeded"
    assert entry.seconds >= 2
    assert entry.log.startswith("falling asleep\n")
    assert files(results) == {"failed"}


def test_a_limit_of_memory(make: Callable[..., Executor], results: Path) -> None:
    ex = make()
    error = ex.submit(take, 1 << 40, resource_dict={"memory": 0.2}).exception()
    assert isinstance(error, OutOfMemory)
    entry = only(results)
    assert (entry.failure.error, entry.failure.message) == ("OutOfMemory", str(error))


def test_a_failure_is_no_answer(make: Callable[..., Executor], results: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    assert isinstance(make().submit(invert, 0, str(flag)).exception(), ZeroDivisionError)
    flag.touch()
    keeping = make(cache=Cache(results, failures=True))
    future = keeping.submit(invert, 0, str(flag))
    assert (future.result(), future.cached) == (0.0, False)
    entry = only(results)  # the result takes the place of the failure
    assert (entry.state, entry.output, entry.answers) == ("finished", 0.0, True)
    assert "failed" not in files(results)


def test_calls_that_could_not_begin_are_not_kept(ex: Executor, results: Path) -> None:
    dependent = ex.submit(twice, ex.submit(invert, 0))
    assert isinstance(dependent.exception(), ZeroDivisionError)
    assert only(results).function == "invert"


def test_cancelled_calls_are_not_kept(ex: Executor, results: Path, gate: Gate, place: str, journal: str) -> None:
    import remembered_calls as calls

    running = ex.submit(calls.held, journal, place, 1)
    waiting = ex.submit(twice, 1)
    gate.arrived()
    assert waiting.cancel()
    gate.open()
    assert running.result() == 1
    assert only(results).function == "held"


def test_read_only_keeps_nothing(make: Callable[..., Executor], results: Path) -> None:
    Cache(results)
    ex = make(cache=Cache(results, mode="read-only"))
    assert isinstance(ex.submit(invert, 0).exception(), ZeroDivisionError)
    assert files(results) == set()


def test_another_library_s_executor(make: Callable[..., Executor], results: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert isinstance(make(None, backend=pool).submit(invert, 0).exception(), ZeroDivisionError)
    entry = only(results)
    assert (entry.failure.error, entry.log) == ("ZeroDivisionError", None)  # threads share their output
    assert entry.traceback.count("  File ") == 1  # the function's own line


def test_a_failure_in_python(ex: Executor, results: Path) -> None:
    key = ex.submit(invert, 0).exception() and only(results).key
    cache = Cache(results)
    assert key in cache
    assert cache[key[:8]].state == "failed"
    assert isinstance(cache.future(key).exception(), ZeroDivisionError)
    assert [entry.key for entry in cache.prune(state="finished", dry_run=True)] == []
    assert [entry.key for entry in cache.prune(state="failed")] == [key]
    assert len(cache) == 0
    assert files(results) == set()


def test_old_failures_go(ex: Executor, results: Path) -> None:
    assert ex.submit(invert, 0).exception()
    directory, now = Cache(results)._directory, time.time()
    assert sweep(directory, now + KEPT / 2) == 0
    assert sweep(directory, now + KEPT * 2) == 1
    assert len(Cache(results)) == 0


def test_damaged_failures_are_reported(ex: Executor, results: Path) -> None:
    assert ex.submit(invert, 0).exception()
    (file,) = results.glob("failed/*.h5")
    cache = Cache(results)
    assert cache.check().whole == 1
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    (problem,) = cache.check().problems
    assert problem.kind == "damaged"
    assert cache.check(repair=True).ok
    assert len(cache) == 0
