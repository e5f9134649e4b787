"""The results of `map`: in the order of the calls, of which some are submitted ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from itertools import islice
from time import monotonic
from typing import Any, TypeVar

from .future import Future

__all__ = ["flattened", "results_in_order"]

T = TypeVar("T")


def results_in_order(submits: Iterator[Future[Any]], buffersize: int | None, timeout: float | None) -> Iterator[Any]:
    """Submit calls now, up to `buffersize`; return an iterator over the results that submits one call for each."""
    end = None if timeout is None else float(timeout) + monotonic()
    futures: deque[Future[Any]] = deque()
    try:
        futures.extend(islice(submits, buffersize))
    except BaseException:  # no caller will get the iterator and ask for their results
        for future in futures:
            future.cancel()
        raise

    def iterate() -> Iterator[Any]:
        try:
            while futures:
                if buffersize is not None:
                    futures.extend(islice(submits, 1))
                # popped first, so that no reference here keeps a result alive
                yield _take(futures.popleft(), timeout, end)
        finally:
            while futures:
                futures.popleft().cancel()

    return iterate()


def _take(future: Future[Any], timeout: float | None, end: float | None) -> Any:
    try:
        return future.result(None if end is None else end - monotonic())
    except FutureTimeout:
        if future.done():  # the call itself raised the error
            raise
        raise FutureTimeout(f"{future.name!r} has not ended {timeout:g} s after map() was called") from None
    finally:
        future.cancel()
        del future


def flattened(lists: Iterator[list[T]]) -> Iterator[T]:
    for results in lists:
        elements = results[::-1]  # a copy: with a cache, another `map` may be given the very same list
        del results
        while elements:
            yield elements.pop()
