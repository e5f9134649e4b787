"""The notes of a call for the recorder: the line of its submission, its number, its end."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from os.path import basename
from traceback import format_exception
from types import FrameType
from typing import Any, NamedTuple

from ..errors import RemoteTraceback
from ..events.event import Failure, Outcome, Started, Waiting
from ..events.usage import Usage
from ..futures import Future, Lazy
from ..futures.derived import ItemFuture, sources_of
from ..system.exit_status import signal_name
from ..utils.shown_text import kept_message, kept_traceback

__all__ = ["EndNote", "FutureNumbers", "bases_of", "failure_of", "note_of_end", "user_line"]

_PACKAGE = __name__.partition(".")[0]
_EventFor = Callable[[int], Started | Waiting]  # the event of the call of this number


def user_line() -> str:
    """Return the line of the user's code that has led here, as "study.py:12", "cell:3"; "" if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in (_PACKAGE, "concurrent"):
            return f"{_file_name(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _file_name(path: str) -> str:
    """Return the name of a file; "cell" for the file without meaning that a notebook's kernel gives to a cell."""
    return "cell" if "/ipykernel_" in path else basename(path)


def bases_of(futures: Iterable[Any]) -> list[Any]:
    """Return these futures, and in the place of derived ones those from whose results they are made."""
    found: dict[int, Any] = {}
    left, seen = list(futures), set[int]()
    while left:
        future = left.pop()
        if id(future) in seen:
            continue
        seen.add(id(future))
        sources: list[Any] = []
        if isinstance(future, ItemFuture) and future.source is not None:
            sources = [future.source]
        elif isinstance(future, Future):
            sources = list(sources_of(future) or getattr(future, "_sources", ()))
        left.extend(sources)
        if not sources:
            found[id(future)] = future
    return list(found.values())


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
    except BaseException as reason:  # from the user's classes, in a thread of ours
        error = reason
    code = getattr(error, "exitcode", None)
    ended_by = code if type(code) is int else None
    return Failure(
        type(error).__qualname__,
        kept_message(error),
        kept_traceback(_traceback(error)),
        ended_by if ended_by is not None and ended_by >= 0 else None,
        None if ended_by is None or ended_by >= 0 else signal_name(-ended_by),
    )


def _traceback(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, RemoteTraceback):
        return str(cause)
    if error.__traceback__ is None and cause is None:
        return ""
    return "".join(format_exception(type(error), error, error.__traceback__))


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

    def of_all(self, futures: Iterable[Any]) -> tuple[int, ...]:
        """Return the numbers that these futures have, in their order."""
        return tuple(sorted({self._numbers[future] for future in futures if future in self._numbers}))

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
