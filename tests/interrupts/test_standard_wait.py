"""The lock of all futures, which an exception in the middle of the standard library's `wait` leaves held."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import wait

import pytest

from callyard import Executor, Future, futures


class Interrupted(BaseException):
    pass


class _Interrupting(Future[int]):
    """Futures of which one lock can be had; in the place of the next an exception arrives."""

    left: Iterator[str]

    @property
    def _condition(self):  # type: ignore[no-untyped-def,override]
        for _ in self.left:
            return Future._condition
        raise Interrupted


def interrupt_wait() -> None:
    _Interrupting.left = iter("1")
    with pytest.raises(Interrupted):
        wait([_Interrupting(), _Interrupting()])
    assert futures.waiting.futures_lock._is_owned()


def test_a_result_is_waited_for_without_it() -> None:
    with Executor(max_workers=1) as ex:
        interrupt_wait()
        assert ex.submit(abs, -1).result(timeout=60) == 1


def test_a_block_is_left_without_it() -> None:
    with Executor(max_workers=1) as ex:
        future = ex.submit(abs, -1)
        interrupt_wait()
    assert future.done()


def test_the_interpreter_ends_without_it() -> None:
    program = (
        "from callyard import Executor, futures\n"
        "Executor(max_workers=1).submit(print, 7)\n"
        "futures.waiting.futures_lock.acquire()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7\n"
