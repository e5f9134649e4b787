"""The wait of a call for the futures among its arguments: the call then starts, or fails as the first of them did.

Nothing polls, and nothing recurses: the end of a call runs callbacks, and these would end the next call, which runs
callbacks in turn. So a callback only puts the next call into a queue, and a loop empties the queue. A chain of 100,000
calls that fails at its first link needs no deeper stack than one call. An exception that interrupts the loop is raised
when the queue is empty.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from ..futures import Future, Lazy, when_ended
from ..status.call_status import name_of
from .failure_path import add_path

_thread = threading.local()


def when_done(sources: Sequence[Any], call: Future[Any], start: Callable[[], None]) -> None:
    """Call `start()` once all `sources` are done with results.

    If one fails, `call` fails with the same exception and a note of the path; if one is cancelled, `call` is
    cancelled. `sources` may be futures of any library.
    """
    waiting = _Waiting(call, start, len(sources))
    for source in sources:
        when_ended(source, waiting.arrived)


class _Waiting:
    __slots__ = ("arrivals", "call", "missing", "start")

    def __init__(self, call: Future[Any], start: Callable[[], None], missing: int) -> None:
        self.call, self.start, self.missing = call, start, missing
        self.arrivals = count(1)  # next() is atomic, and futures may end in several threads at once

    def arrived(self, source: Any) -> None:
        queue = getattr(_thread, "queue", None)
        if queue is not None:  # the loop below runs in this thread already, further up the stack
            queue.append((self, source))
            return
        queue = deque([(self, source)])
        try:
            _settle_all(queue, again=False)
        except BaseException:
            _settle_all(queue, again=True)
            raise

    def settle(self, source: Any, again: bool) -> None:
        """Count a source that is done; `again` is True if an exception has interrupted the first try."""
        if source.cancelled():
            self.call.cancel()
        elif (failure := failure_of(source)) is not None:
            self.call.fails_because_of(source)
            self.call.fail(DependencyFailure(failure, self.call.name, name_of(source)))
        elif again:  # perhaps the source is counted, and perhaps the call has started, so a start may be the second
            self.call.cancel()
        elif next(self.arrivals) == self.missing:
            self.start()


def _settle_all(queue: deque[tuple[_Waiting, Any]], again: bool) -> None:
    """Settle the entries of the queue, later ones included. Each stays in the queue until settled."""
    try:
        _thread.queue = queue
        while queue:
            waiting, source = queue[0]
            try:
                waiting.settle(source, again)
            except Exception as error:  # fails this call alone: the other calls in the queue go on
                waiting.call.fail_with(error)
            queue.popleft()
            again = False
    finally:
        _thread.queue = None


def failure_of(future: Any) -> Lazy | None:
    """Return the failure of a finished future, packed or not; None without a failure."""
    if isinstance(future, Future):
        future.take()
        if not future.failed():
            return None
        packed = future.packed_failure()
        if packed is not None:
            return packed
        error = future.peek_exception()
    else:
        error = future.exception()
    return None if error is None else RaisedException(error)


class RaisedException:
    """An exception of this process in the form of a packed one: each `load` returns a new copy."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def load(self) -> BaseException:
        """Return a copy if one can be made, so that a note for one call does not appear with another call."""
        try:
            twin = copy.copy(self.error)
            if twin is self.error or type(twin) is not type(self.error) or twin.args != self.error.args:
                return self.error
            twin.__cause__, twin.__context__ = self.error.__cause__, self.error.__context__
            twin.__suppress_context__ = self.error.__suppress_context__
            if hasattr(twin, "__notes__"):
                BaseException.__setattr__(twin, "__notes__", list(twin.__notes__))
        except Exception:  # from a user's class
            return self.error
        return twin.with_traceback(self.error.__traceback__)


class DependencyFailure:
    """The failure of a call because of a failed dependency: the same exception, with the path in a note."""

    __slots__ = ("failure", "path")
    failure: Lazy
    path: tuple[str, Any]

    def __init__(self, failure: Lazy, name: str, source_name: str) -> None:
        if isinstance(failure, DependencyFailure):  # a linked list, because copies of long paths grow quadratically
            self.failure, self.path = failure.failure, (name, failure.path)
        else:
            self.failure, self.path = failure, (name, (source_name, None))

    def load(self) -> BaseException:
        error: BaseException = self.failure.load()
        add_path(error, self.names())
        return error

    def names(self) -> list[str]:
        names: list[str] = []
        link: Any = self.path
        while link is not None:
            name, link = link
            names.append(name)
        return names
