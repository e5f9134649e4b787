"""The contract of executors, as a class of tests to inherit: the behaviour common to all backends. Needs pytest."""

from __future__ import annotations

import concurrent.futures as standard

import pytest

from ..executor import Executor
from . import calls

__all__ = ["ExecutorContract"]

PATIENCE = 60  # s


class ExecutorContract:
    """Tests for an executor on each backend.

    A subclass has a fixture `ex`, an executor of the backend under test.
    """

    def test_submit_returns_a_standard_future(self, ex: Executor) -> None:
        future = ex.submit(pow, 2, 10)
        assert isinstance(future, standard.Future)
        assert future.result(PATIENCE) == 1024
        assert future.done()
        assert not future.running()
        assert not future.cancelled()
        assert not future.cancel()
        assert future.exception() is None

    def test_positional_and_keyword_arguments(self, ex: Executor) -> None:
        result = ex.submit(calls.describe, 1, "b", c=3, self=4, fn=5, args=6, timeout=7).result()
        assert result == repr(((1, "b"), {"args": 6, "c": 3, "fn": 5, "self": 4, "timeout": 7}))

    def test_submit_needs_a_function(self, ex: Executor) -> None:
        with pytest.raises(TypeError, match="submit"):
            ex.submit()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            ex.submit(fn=pow)  # type: ignore[call-arg]

    def test_what_cannot_be_called(self, ex: Executor) -> None:
        for nothing in (3, None, "pow"):
            with pytest.raises(TypeError, match=r"submit\(\) takes a function and its arguments, .* is not callable"):
                ex.submit(nothing)  # type: ignore[arg-type]

    def test_an_error_is_the_futures(self, ex: Executor) -> None:
        future = ex.submit(calls.divide, 1, 0)
        assert isinstance(future.exception(PATIENCE), ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            future.result()

    def test_futures_as_arguments(self, ex: Executor) -> None:
        first = ex.submit(abs, -1)
        second = ex.submit(calls.successor, first)
        assert ex.submit(calls.describe, {"both": [first, second]}).result(PATIENCE) == "(({'both': [1, 2]},), {})"

    def test_a_failure_travels(self, ex: Executor) -> None:
        failed = ex.submit(calls.divide, 1, 0)
        assert isinstance(ex.submit(calls.successor, failed).exception(PATIENCE), ZeroDivisionError)

    def test_map_keeps_the_order(self, ex: Executor) -> None:
        assert list(ex.map(calls.successor, range(3))) == [1, 2, 3]

    def test_no_calls_after_shutdown(self, ex: Executor) -> None:
        future = ex.submit(abs, -1)
        ex.shutdown()
        assert future.result() == 1
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            ex.submit(abs, -1)
