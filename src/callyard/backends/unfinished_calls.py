"""The calls of a backend that have not ended, by their numbers, and their ends on request of another process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, cast

from ..futures import Future
from ..status.executor_status import short_key
from .base import Backend

__all__ = ["HasUnfinishedCalls", "UnfinishedCall", "cancel_calls", "unfinished_of"]

_SHOWN = 3  # keys in a message


class UnfinishedCall(NamedTuple):
    """A call that has not ended.

    Attributes:
        number: the place in the order of submission, as `ExecutorStatus` shows it.
        future: its future; with a cache that of the inner backend, whose end is the end of all.
        key: the key in the cache; "" if there is none.
        end: ends the call although it runs, and returns True if it could; None where that is impossible.
    """

    number: int
    future: Future[Any]
    key: str = ""
    end: Callable[[], bool] | None = None


class HasUnfinishedCalls(Protocol):
    """A backend that tells its calls. Those of other packages need not."""

    def unfinished(self) -> list[UnfinishedCall]:
        """Return the calls that have not ended. Any thread may ask."""


def unfinished_of(backend: Backend) -> list[UnfinishedCall]:
    """Return the calls of a backend that have not ended; none if the backend does not tell."""
    if not hasattr(backend, "unfinished"):
        return []
    return [call for call in cast("HasUnfinishedCalls", backend).unfinished() if not call.future.done()]


def cancel_calls(backend: Backend, number: int | None, key: str) -> list[str]:
    """Cancel the call of this number, or the one whose key begins with `key`; return what was done, in words."""
    calls = unfinished_of(backend)
    if number is not None:
        return list(_cancelled(call for call in calls if call.number == number))
    meant = [call for call in calls if key and call.key.startswith(key)]
    if len(keys := sorted({call.key for call in meant})) > 1:
        shown = ", ".join(map(short_key, keys[:_SHOWN])) + (", ..." if len(keys) > _SHOWN else "")
        return [f"cancelled nothing: {len(keys)} keys begin with {key}, as {shown}; give more of one"]
    return list(_cancelled(meant))


def _cancelled(calls: Iterable[UnfinishedCall]) -> Iterator[str]:
    for call in calls:
        name = repr(call.future.name) + (f", key {short_key(call.key)}" if call.key else "")
        if call.future.cancel():
            yield f"cancelled {name}"
        elif call.end is None:
            yield f"{name} {call.future.explain()}, and cannot be ended there alone"
        elif call.end():
            yield f"ended {name}, which was running"
        else:
            yield f"{name} is ending by itself"
