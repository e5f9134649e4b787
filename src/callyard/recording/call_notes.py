"""What the recorder notes of a call: the line of its submission, its number, its end."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import chain
from os.path import basename
from types import FrameType
from typing import Any, NamedTuple

from ..errors import RemoteTraceback
from ..events.event import Failure, Outcome, Started, Waiting
from ..events.usage import Usage
from ..futures import Future, Lazy
from ..futures.derived import ItemFuture, sources_of
from ..system.exit_status import signal_name

__all__ = ["EndNote", "FutureNumbers", "failure_of", "note_of_end", "user_line"]

_PACKAGE = __name__.partition(".")[0]
_EventFor = Callable[[int], Started | Waiting]  # the event of the call of this number


def user_line() -> str:
    """Return the line of the user's code that has led here, as "study.py:12"; "" if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in (_PACKAGE, "concurrent"):
            return f"{basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


# -- ends --------------------------------------------------------------------------------------------------


class EndNote(NamedTuple):
    """The end of a call, without its result. A failure may be packed."""

    time: float
    outcome: Outcome
    key: str | None
    failure: Lazy | BaseException | None
    usage: Usage | None
    has_cache: bool = False


def note_of_end(future: Any, now: float) -> EndNote:
    """Return the end of a future that is done."""
    key = getattr(future, "key", None)
    if future.cancelled():
        return EndNote(now, "cancelled", key, None, None)
    usage = getattr(future, "usage", None)
    failure: Lazy | BaseException | None
    if isinstance(future, Future):
        failure = (future.packed_failure() or future.peek_exception()) if future.failed() else None
    else:  # of a backend of another package
        failure = future.exception()
    if failure is not None:
        return EndNote(now, "failed", key, failure, usage)
    cached = getattr(future, "cached", None)
    return EndNote(now, "cached" if cached else "finished", key, None, usage, cached is not None)


def failure_of(failure: Lazy | BaseException) -> Failure:
    """Return what can be told of a failure, opened for this if need be."""
    try:
        error = failure if isinstance(failure, BaseException) else failure.load()
    except (Exception, SystemExit, CancelledError) as reason:  # from the user's classes
        error = reason
    code = getattr(error, "exitcode", None)
    ended_by = code if type(code) is int else None
    traceback = str(error.__cause__) if isinstance(error.__cause__, RemoteTraceback) else ""
    return Failure(
        type(error).__qualname__,
        _text(error),
        traceback,
        ended_by if ended_by is not None and ended_by >= 0 else None,
        None if ended_by is None or ended_by >= 0 else signal_name(-ended_by),
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a class of the user's may do anything here
        return "(its message cannot be had)"


# -- numbers -----------------------------------------------------------------------------------------------


class FutureNumbers:
    """The numbers of calls by their futures, and the events told of futures without a number so far.

    Only the recorder's thread uses it. Futures are not kept alive, but for those of which something was told early.
    """

    def __init__(self) -> None:
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._users: weakref.WeakKeyDictionary[Any, list[weakref.ref[Any]]] = weakref.WeakKeyDictionary()
        self._last: weakref.WeakKeyDictionary[Any, _EventFor] = weakref.WeakKeyDictionary()
        self._early: dict[int, tuple[Any, list[_EventFor]]] = {}  # by id, with the future, so that the id stays its own

    def give(self, future: Any, number: int) -> list[_EventFor]:
        """Give a future its number; return the events told of it before."""
        self._numbers[future] = number
        return self._taken(future)

    def of(self, future: Any, event_for: _EventFor) -> list[int]:
        """Return the calls to which an event of this future happens; keep the event for those without a number."""
        if future in self._numbers:
            return [self._numbers[future]]
        users = self._users.get(future)
        if users is None:
            self._keep(future, event_for)
            return []
        self._last[future] = event_for
        return [number for user in users if (number := self._number_of(user(), event_for)) is not None]

    def stand_for(self, inner: Any, future: Any) -> Iterator[tuple[int, _EventFor]]:
        """Let `inner` stand for a user's future, too; yield what has happened to that so far."""
        events = self._taken(inner) or ([self._last[inner]] if inner in self._last else [])
        self._users.setdefault(inner, []).append(weakref.ref(future))
        for event_for in events:
            self._last[inner] = event_for
            number = self._number_of(future, event_for)
            if number is not None:
                yield number, event_for

    def of_inputs(self, inputs: Iterable[Any]) -> tuple[int, ...]:
        """Return the numbers of the calls whose results these futures have, or have parts of."""
        found: set[int] = set()
        left, seen = list(inputs), set[int]()
        while left:
            future = left.pop()
            if id(future) in seen:
                continue
            seen.add(id(future))
            number = self._numbers.get(future)
            if number is not None:
                found.add(number)
            elif isinstance(future, Future):
                left.extend(chain(sources_of(future), _pending_sources(future)))
        return tuple(sorted(found))

    def _number_of(self, future: Any, event_for: _EventFor) -> int | None:
        """Return the number of a future; without one, keep the event until it gets one."""
        if future is None:  # the user has let go of it
            return None
        number = self._numbers.get(future)
        if number is None:
            self._keep(future, event_for)
        return number

    def _keep(self, future: Any, event_for: _EventFor) -> None:
        self._early.setdefault(id(future), (future, []))[1].append(event_for)

    def _taken(self, future: Any) -> list[_EventFor]:
        return self._early.pop(id(future), (None, []))[1]


def _pending_sources(future: Future[Any]) -> Iterable[Any]:
    """Return the futures from which a derived one is going to be made."""
    if isinstance(future, ItemFuture):
        return () if future.source is None else (future.source,)
    return getattr(future, "_sources", ())
