"""Start a call when the futures among its arguments are done, or end it as the first that failed did.

Nothing polls and nothing recurses: a chain of 100,000 calls that fails at its first link is taken apart in
a loop, because ending one call runs the callbacks that end the next. An exception that interrupts the loop goes on its
way when the loop has come to its end.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from ..futures import Future, Lazy, when_ended

_thread = threading.local()
_PATH_LENGTH = 12  # names shown of the way from a failed call to the one that could not run


def when_done(sources: Sequence[Any], call: Future[Any], start: Callable[[], None]) -> None:
    """Call `start()` once all `sources` are done with results.

    If one fails, `call` fails with the same exception and a note of the path; if one is cancelled, `call`
    is cancelled. `sources` may be futures of any library.
    """
    waiting = _Waiting(call, start, len(sources))
    for source in sources:
        when_ended(source, waiting.arrived)


class _Waiting:
    __slots__ = ("arrivals", "call", "missing", "start")

    def __init__(self, call: Future[Any], start: Callable[[], None], missing: int) -> None:
        self.call, self.start, self.missing = call, start, missing
        self.arrivals = count(1)  # next() of it is atomic: futures may end in several threads at once

    def arrived(self, source: Any) -> None:
        queue = getattr(_thread, "queue", None)
        if queue is not None:  # this thread is in the loop below, further up its stack
            queue.append((self, source))
            return
        queue = deque([(self, source)])
        try:
            _settle_all(queue, again=False)
        except BaseException:
            _settle_all(queue, again=True)
            raise

    def settle(self, source: Any, again: bool) -> None:
        """Note an arrival; `again`, if an exception has interrupted that."""
        if source.cancelled():
            self.call.cancel()
        elif (failure := failure_of(source)) is not None:
            self.call.fail(DependencyFailure(failure, self.call.name, name_of(source)))
        elif again:  # it may have been counted, and the call started or not: if it has not begun it shall not
            self.call.cancel()
        elif next(self.arrivals) == self.missing:
            self.start()


def _settle_all(queue: deque[tuple[_Waiting, Any]], again: bool) -> None:
    """Settle what is in the queue, and what is put there meanwhile; each stays in it until that is done."""
    try:
        _thread.queue = queue
        while queue:
            waiting, source = queue[0]
            try:
                waiting.settle(source, again)
            except Exception as error:  # the others in the queue must hear of their sources all the same
                waiting.call.fail_with(error)
            queue.popleft()
            again = False
    finally:
        _thread.queue = None


def name_of(future: Any) -> str:
    """What to call `future` in a message: the function's name, or the library that it comes from."""
    if isinstance(future, Future):
        return future.name
    return f"a future of {type(future).__module__.partition('.')[0]}"


def failure_of(future: Any) -> Lazy | None:
    """How the finished `future` failed, packed or not; None if it did not."""
    if isinstance(future, Future):
        future.take()
        if not future.failed():
            return None
        packed = future.packed_failure()
        if packed is not None:
            return packed
    error = future.exception()
    return None if error is None else RaisedException(error)


class RaisedException:
    """An exception object of this process, as something to be opened: each time another copy."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def load(self) -> BaseException:
        """A copy where one can be made, so that the note for one call is not read at another."""
        try:
            twin = copy.copy(self.error)
            if twin is self.error or type(twin) is not type(self.error) or twin.args != self.error.args:
                return self.error
            twin.__cause__, twin.__context__ = self.error.__cause__, self.error.__context__
            twin.__suppress_context__ = self.error.__suppress_context__
            if hasattr(twin, "__notes__"):
                BaseException.__setattr__(twin, "__notes__", list(twin.__notes__))
        except Exception:  # a class of the user's may do anything here
            return self.error
        return twin.with_traceback(self.error.__traceback__)


class DependencyFailure:
    """The failure of a call whose dependency failed: the same exception, with the path in a note."""

    __slots__ = ("failure", "path")
    failure: Lazy
    path: tuple[str, Any]

    def __init__(self, failure: Lazy, name: str, source_name: str) -> None:
        if isinstance(failure, DependencyFailure):  # further down the path: one link for each call, not one copy
            self.failure, self.path = failure.failure, (name, failure.path)
        else:
            self.failure, self.path = failure, (name, (source_name, None))

    def load(self) -> BaseException:
        error: BaseException = self.failure.load()
        note = f"callyard: {' <- '.join(self.names())}"
        notes = [n for n in getattr(error, "__notes__", ()) if not str(n).startswith("callyard: ")]
        # `add_note` by hand: Python 3.10 has none, and the class may be frozen.
        BaseException.__setattr__(error, "__notes__", [*notes, note])
        return error

    def names(self) -> list[str]:
        names: list[str] = []
        link: Any = self.path
        while link is not None:
            name, link = link
            names.append(name)
        if len(names) > _PATH_LENGTH:
            half = _PATH_LENGTH // 2
            names[half:-half] = ["..."]
        return names
