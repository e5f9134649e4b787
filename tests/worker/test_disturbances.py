"""A call that returns a value delivers it, whatever it has changed in its process."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cluster import Cluster

from callyard import Executor, Slurm

ALL_SIGNALS = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}


def directory_gone() -> None:
    with TemporaryDirectory() as place:
        os.chdir(place)


def no_environment() -> None:
    os.environ.clear()


def other_environment() -> None:
    os.environ.update(dict.fromkeys(("HOME", "PATH", "TMPDIR", "CALLYARD_JOB", "SLURM_JOB_ID"), "/nowhere"))


def umask() -> None:
    os.umask(0o777)


def no_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def no_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def streams_closed() -> None:
    for fd in range(3):
        with contextlib.suppress(OSError):  # a call before may have closed it
            os.close(fd)


def streams_redirected() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    for fd in range(3):
        os.dup2(null, fd)


def streams_replaced() -> None:
    sys.stdout = sys.stderr = None


def signals_ignored() -> None:
    for signum in ALL_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def signals_blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)


def alarm_set() -> None:
    def refuse(_: int, frame: Any) -> None:
        places = set()
        while frame is not None:
            places.add(frame.f_code.co_name)
            frame = frame.f_back
        if "disturbed" in places or (places & {"run_cached", "_ran"} and "finished" not in places):
            return  # the call has not returned, or nothing is done with what it returned yet
        raise RuntimeError("an alarm of the call's went off after it")

    signal.signal(signal.SIGALRM, refuse)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)


def no_path() -> None:
    sys.path.clear()


def no_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("callyard")]:
        del sys.modules[name]


def shallow_recursion() -> None:
    for depth in range(5, 1000):  # a limit below the present depth is refused
        with contextlib.suppress(RecursionError):
            sys.setrecursionlimit(depth)
            break


def warnings_as_errors() -> None:
    warnings.simplefilter("error")


def no_collection() -> None:
    gc.disable()


def same_random_numbers() -> None:
    random.seed(0)


def thread_left() -> None:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


def forked() -> None:
    os.fork()


# An alarm is none of them: without a cache its handler may raise anywhere in the worker, whose end that is.
DISTURBANCES = [
    directory_gone, no_environment, other_environment, umask, no_descriptors, no_files, streams_closed,
    streams_redirected, streams_replaced, signals_ignored, signals_blocked, no_path, no_modules, shallow_recursion,
    warnings_as_errors, no_collection, same_random_numbers, thread_left, forked,
]  # fmt: skip


def disturbed(disturb: Callable[[], None], value: Any) -> Any:
    disturb()
    return value


@pytest.mark.parametrize("disturb", DISTURBANCES, ids=lambda each: each.__name__)
def test_a_worker_delivers_and_goes_on(disturb: Callable[[], None]) -> None:
    with Executor(max_workers=1) as ex:
        assert ex.submit(disturbed, disturb, 42).result() == 42
        assert ex.submit(disturbed, disturb, [{43}]).result() == [{43}]


@pytest.mark.parametrize("disturb", [*DISTURBANCES, alarm_set], ids=lambda each: each.__name__)
def test_a_worker_stores_in_a_cache(results: Path, disturb: Callable[[], None]) -> None:
    with Executor(max_workers=1, cache=results) as ex:
        assert [ex.submit(disturbed, disturb, value).result() for value in (42, [{43}])] == [42, [{43}]]
    with Executor(max_workers=1, cache=results) as ex:
        again = [ex.submit(disturbed, disturb, value) for value in (42, [{43}])]
        assert [call.result() for call in again] == [42, [{43}]]
        assert all(call.cached for call in again)


@pytest.mark.once
def test_a_job_delivers(slurm: Cluster, results: Path) -> None:
    with Executor(backend=Slurm(poll=(0.2, 1), result_grace=1), cache=results) as ex:
        calls = {each.__name__: ex.submit(disturbed, each, [{43}]) for each in [*DISTURBANCES, alarm_set]}
        ended = {name: call.exception() or call.result() for name, call in calls.items()}
    assert ended == {name: [{43}] for name in calls}
    assert {path.stat().st_mode & 0o777 for path in results.glob("??/*.h5")} == {0o600}
