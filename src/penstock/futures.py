"""Futures that cost little until somebody waits, and futures made from other futures.

`Future` is a `concurrent.futures.Future` in every respect that its users can see. Two things differ
inside, because there may be a hundred thousand of them:

* The condition variable is made when somebody first waits. Until then one lock of the module guards
  the state of all futures; nothing slow ever happens under it.
* What arrives from a worker is kept as it arrived (`Lazy`) and opened by whoever asks for it, in the
  asking thread. So an intermediate result that only feeds another call is never opened here at all.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures import Future as StandardFuture
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from .errors import UnreadableCall

__all__ = ["Future", "batched", "item", "unzip"]

T = TypeVar("T")
_ENDED = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))
_log = logging.getLogger("concurrent.futures")  # where the standard library reports broken callbacks

# Guards every future that has no condition of its own yet. Reentrant, because the garbage collector may run
# a finalizer, which may submit a call, in the middle of any of the short sections below.
_births = threading.RLock()


def _renew() -> None:
    """In a forked child: the thread that held the lock is not there."""
    global _births
    _births = threading.RLock()


os.register_at_fork(after_in_child=_renew)

_this_thread = threading.local()


def ends_futures(whose: Callable[[], object]) -> None:
    """Say of this thread that it ends the futures whose `on_cancel` this is.

    A callback that such a thread runs would wait for ever for another of them; it is told so (`Future.ends_here`).
    """
    _this_thread.ends = whose


class Lazy(Protocol):
    """A value or an error that is still packed."""

    def load(self) -> Any: ...


class Future(StandardFuture[T]):
    """The result of a call, now or later: a `concurrent.futures.Future`.

    `key`, `cached` and `job_id` say what a cache or a scheduler knows of the call; they are None where
    there is neither.

        >>> future = executor.submit(pow, 2, 10)
        >>> future.result()
        1024
    """

    __slots__ = (
        "_cond",
        "_done_callbacks",
        "_exception",
        "_packed",
        "_result",
        "_state",
        "_waiting",
        "name",
        "on_cancel",
    )

    def __init__(self, name: str = "call", on_cancel: Callable[[], object] | None = None) -> None:
        # The base class is not asked: it would make the condition and two lists.
        self.name = name
        self.on_cancel = on_cancel
        self._state = PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._packed: Lazy | None = None
        self._cond: threading.Condition | None = None
        self._done_callbacks: list[Callable[[Any], object]] | None = None

    @property
    def key(self) -> str | None:
        """What the cache knows this call by; None without a cache."""
        return None

    @property
    def cached(self) -> bool | None:
        """Whether the result was there when the call was submitted; None without a cache."""
        return None

    @property
    def job_id(self) -> str | None:
        """The scheduler's name of the job that runs this call; None where no scheduler does."""
        return None

    # -- the state and its lock ------------------------------------------------------------------------

    def _made_condition(self) -> threading.Condition:
        if self._cond is None:
            made = threading.Condition()
            with _births:
                if self._cond is None:
                    self._waiting: list[Any] = []
                    self._cond = made
        return self._cond

    def _those_who_wait(self) -> Any:
        return self._waiting if getattr(_this_thread, "ends", None) is None else _Watched(self)

    # The standard library's `wait` and `as_completed` use them, and its types say that they can be set.
    _condition = cast(threading.Condition, property(_made_condition))
    _waiters = cast("list[Any]", property(_those_who_wait))

    def _hold(self) -> Any:
        """Acquire and return the lock that guards the state at this moment."""
        cond = self._cond
        if cond is None:
            _births.acquire()
            cond = self._cond  # it may have been made meanwhile
            if cond is None:
                return _births
            _births.release()
        cond.acquire()
        return cond

    def _end(self, state: str, packed: Lazy | None, value: Any, error: BaseException | None) -> bool:
        """Go to a final state, wake who waits and run the callbacks; False if there already."""
        lock = self._hold()
        try:
            if self._state in _ENDED or (state is CANCELLED_AND_NOTIFIED and self._state is RUNNING):
                return False
            self._packed = packed
            self._result = value
            self._exception = error
            self._state = state
            self.on_cancel = None
            callbacks, self._done_callbacks = self._done_callbacks, None
            if self._cond is not None:
                self._tell_waiters()
        finally:
            lock.release()
        if callbacks is not None:
            for callback in callbacks:
                self._call_back(callback)
        return True

    def _tell_waiters(self) -> None:
        cast(threading.Condition, self._cond).notify_all()
        for waiter in self._waiting:
            if self._state is not FINISHED:
                waiter.add_cancelled(self)
            elif self._exception is not None:
                waiter.add_exception(self)
            else:
                waiter.add_result(self)

    def _call_back(self, callback: Callable[[Any], object]) -> None:
        try:
            callback(self)
        except Exception:
            _log.exception("exception calling callback for %r", self)

    # -- for the executor ------------------------------------------------------------------------------

    def set_running_or_notify_cancel(self) -> bool:
        lock = self._hold()
        try:
            if self._state is PENDING:
                self._state = RUNNING
                return True
        finally:
            lock.release()
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
            return False
        raise InvalidStateError(f"{self!r} is running or has ended already")

    def set_result(self, result: T) -> None:
        if not self._end(FINISHED, None, result, None):
            raise InvalidStateError(f"{self!r} has ended already")

    def set_exception(self, exception: BaseException | None) -> None:
        if not self._end(FINISHED, None, None, exception):
            raise InvalidStateError(f"{self!r} has ended already")

    def finish(self, packed: Lazy) -> bool:
        """End with a result that is opened when somebody asks for it."""
        return self._end(FINISHED, packed, None, None)

    def fail(self, packed: Lazy) -> bool:
        """End with an error that is opened when somebody asks for it."""
        return self._end(FINISHED, packed, None, _STILL_PACKED)

    def fail_with(self, error: BaseException) -> bool:
        """End with an error of this process, if it has not ended yet."""
        return self._end(FINISHED, None, None, error)

    def again(self) -> None:
        """Back from running to pending: the call is going to run once more."""
        lock = self._hold()
        try:
            if self._state is RUNNING:
                self._state = PENDING
        finally:
            lock.release()

    def failed(self) -> bool:
        """Whether it has ended with an error; does not open it."""
        return self._exception is not None

    def take(self) -> None:
        """Of a part of another future's result, take it: only then it is known whether it is there."""
        if isinstance(self._packed, _Derived):
            self._open()

    def packed_failure(self) -> Lazy | None:
        """The error that it has ended with, unless somebody has opened it."""
        packed = self._packed  # read first: another thread may be opening it
        return packed if self._exception is _STILL_PACKED else None

    # -- for everybody ---------------------------------------------------------------------------------

    def cancel(self) -> bool:
        on_cancel = self.on_cancel
        if self._end(CANCELLED_AND_NOTIFIED, None, None, None):
            if on_cancel is not None:
                on_cancel()
            return True
        return self.cancelled()

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        return self._state is RUNNING

    def done(self) -> bool:
        return self._state in _ENDED

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        lock = self._hold()
        try:
            if self._state not in _ENDED:
                if self._done_callbacks is None:
                    self._done_callbacks = [fn]
                else:
                    self._done_callbacks.append(fn)
                return
        finally:
            lock.release()
        self._call_back(fn)

    def result(self, timeout: float | None = None) -> T:
        try:
            self._wait(timeout)
            if self._exception is not None:
                raise self._exception
            return cast(T, self._result)
        finally:
            self = None  # type: ignore[assignment]  # the traceback must not keep this future alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        if self._state not in _ENDED:
            if timeout is None and self.ends_here():
                raise RuntimeError(_endless(self.name))
            condition = self._condition
            with condition:
                if self._state not in _ENDED:
                    condition.wait(timeout)
        if self._packed is not None:
            self._open()
        if self._state is not FINISHED:
            late = "" if self._state in _ENDED else f"{self.name!r} has not ended after {timeout:g} s"
            self = None  # type: ignore[assignment]  # as in `result`
            raise FutureTimeout(late) if late else CancelledError

    def ends_here(self) -> bool:
        """Tell whether it has not ended, and only this thread can end it: then to wait for it here takes for ever."""
        ends = getattr(_this_thread, "ends", None)
        return ends is not None and self.on_cancel == ends and not self.done()

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for it in a coroutine, as `asyncio.wrap_future` does: cancelling the one cancels the other."""
        import asyncio  # here, because who awaits has loaded it

        return asyncio.wrap_future(self, loop=asyncio.get_running_loop()).__await__()

    if not TYPE_CHECKING:  # to mypy it has neither

        def __getitem__(self, key: object) -> Any:
            """Refuse `future[key]`, and iteration, which comes here too; the result may not be there yet."""
            raise TypeError(
                f"the future of {self.name!r} is not its result: penstock.item(future, {key!r}) is the future of a "
                "part, and penstock.unzip(future, n) gives those of n parts"
            )

    def _get_snapshot(self) -> Any:
        """What asyncio of Python 3.14 reads, past `result()`."""
        if self._packed is not None:
            self._open()
        return super()._get_snapshot()  # type: ignore[misc]

    def _open(self) -> None:
        """Replace what is packed by the value or the error in it; of two threads the first wins."""
        packed = self._packed
        if packed is None:
            return
        result, error = None, None
        try:
            loaded = packed.load()
        except (Exception, SystemExit) as failure:  # a class of the user's may do anything here
            error = failure if isinstance(packed, _Derived) else self._unreadable(failure)
        else:
            if self._exception is None:
                result = loaded
            else:
                error = loaded
        lock = self._hold()
        try:
            if self._packed is packed:
                self._result, self._exception, self._packed = result, error, None
        finally:
            lock.release()
        self = error = None  # type: ignore[assignment]  # no cycle from the error's traceback through this frame

    def _unreadable(self, failure: BaseException) -> BaseException:
        error = UnreadableCall(f"the result of {self.name!r} cannot be opened here: {failure}")
        error.__cause__ = failure
        return error

    def __reduce__(self) -> Any:
        raise TypeError("a future cannot be pickled; as an argument of a call it stands for its result")

    def _state_word(self) -> str:
        return "running" if self.running() else _STATE_WORDS.get(self._state, self._state)

    def __repr__(self) -> str:
        head = f"<Future at {id(self):#x} {self.name!r} state={self._state_word()}"
        if self._state is not FINISHED:
            return head + ">"
        if self._exception is not None:
            raised = "" if self._packed is not None else " " + type(self._exception).__name__
            return f"{head} raised{raised}>"
        return head + (">" if self._packed is not None else f" returned {type(self._result).__name__}>")


_STATE_WORDS = {
    PENDING: "pending",
    RUNNING: "running",
    CANCELLED: "cancelled",
    CANCELLED_AND_NOTIFIED: "cancelled",
    FINISHED: "finished",
}


def _endless(name: str) -> str:
    return (
        f"{name!r} cannot end before this callback has returned: a callback must not wait for another future; submit "
        "a call that depends on it"
    )


class _Watched:
    """The list of those that wait for a future, for a thread that ends futures: it must not wait for its own."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def append(self, waiter: Any) -> None:
        if not isinstance(waiter.event, _Event):
            waiter.event = _Event(for_all=not getattr(waiter, "stop_on_exception", True))
        waiter.event.waits_for(self._future)
        self._future._waiting.append(waiter)

    def remove(self, waiter: Any) -> None:
        self._future._waiting.remove(waiter)


class _Event(threading.Event):
    """What `wait` and `as_completed` wait for: the end of one of several futures, or of all."""

    def __init__(self, for_all: bool) -> None:
        super().__init__()
        self._for_all = for_all
        self._ending_here: str | None = None  # the name of one that only this thread can end
        self._elsewhere = False  # another one may end by itself

    def waits_for(self, future: Future[Any]) -> None:
        if future.ends_here():
            self._ending_here = future.name
        elif not future.done():
            self._elsewhere = True

    def wait(self, timeout: float | None = None) -> bool:
        alone = self._for_all or not self._elsewhere
        if timeout is None and self._ending_here is not None and alone and not self.is_set():
            raise RuntimeError(_endless(self._ending_here))
        return super().wait(timeout)


_STILL_PACKED: BaseException = Exception("this error is still packed")


# -- futures made from futures ---------------------------------------------------------------------------


class _Derived:
    """What is made here of results that are here: an error in that is the caller's to see as it is."""

    __slots__ = ()

    def load(self) -> Any:
        raise NotImplementedError


class _Part(_Derived):
    """A part of another future's result, taken when somebody asks for it."""

    __slots__ = ("key", "length", "source")

    def __init__(self, source: StandardFuture[Any], key: Any, length: int | None) -> None:
        self.source, self.key, self.length = source, key, length

    def load(self) -> Any:
        return part_of(self.source.result(), self.key, self.length)


def part_of(whole: Any, key: Any, length: int | None) -> Any:
    """What `item` gives, or `unzip` of a result of this length."""
    if length is not None and len(whole) != length:
        raise ValueError(f"unzip: expected {length} values, the result has {len(whole)}")
    return whole[key]


class Part(Future[Any]):
    """The future of a part of another's result. `source`: that future, until it has ended."""

    __slots__ = ("_identity", "key_and_length", "source")

    def __init__(self, source: StandardFuture[Any], key: Any, length: int | None) -> None:
        super().__init__(f"{getattr(source, 'name', 'future')}[{key!r}]")
        self.source: StandardFuture[Any] | None = source
        self.key_and_length = key, length
        self._identity = ""

    def ends_here(self) -> bool:
        source = self.source
        return isinstance(source, Future) and source.ends_here()

    @property
    def identity(self) -> str:
        """What it counts as where the result is not known yet; "" if that cannot be said."""
        whole: str = getattr(self.source, "identity", "")
        key, length = self.key_and_length
        return f"{whole}[{key!r} of {length}]" if whole and type(key) in (int, str) else self._identity

    def ended(self, source: StandardFuture[Any]) -> None:
        self._identity, self.source = self.identity, None  # whoever has the part alone does not keep the whole
        if not _follow(source, self):
            self.finish(_Part(source, *self.key_and_length))


def _follow(source: StandardFuture[Any], target: Future[Any]) -> bool:
    """End `target` as `source` did, if that was not with a result; else False."""
    if source.cancelled():
        target.cancel()
        return True
    if isinstance(source, Future):
        if not source.failed():
            return False
        packed = source.packed_failure()
        if packed is not None:
            return target.fail(packed)
    error = source.exception()
    return error is not None and target.fail_with(error)


def _check_future(value: object, asking: str) -> None:
    if not callable(getattr(value, "add_done_callback", None)):
        raise TypeError(f"{asking}: {value!r} is not a future")


def _check_number(asking: str, n: Any, least: int) -> None:
    if not hasattr(n, "__index__"):
        raise TypeError(f"{asking}: n must be an integer, not {n!r}")
    if n < least:
        raise ValueError(f"{asking}: n must be at least {least}, not {n}")


def _part(source: StandardFuture[Any], key: Any, length: int | None) -> Future[Any]:
    part = Part(source, key, length)
    source.add_done_callback(part.ended)
    return part


def item(future: StandardFuture[Any], key: Any) -> Future[Any]:
    """The future of `future.result()[key]`.

    It fails as `future` fails, is cancelled when `future` is, and raises what indexing raises. To cancel
    it does not cancel `future`.
    """
    _check_future(future, "item")
    return _part(future, key, None)


def unzip(future: StandardFuture[Any], n: int) -> list[Future[Any]]:
    """`n` futures of the `n` parts of a sequence: `a, b = unzip(future_of_pair, 2)`.

    They raise ValueError if the result has another length.
    """
    _check_future(future, "unzip")
    _check_number("unzip", n, 0)
    return [_part(future, i, n) for i in range(n)]


def batched(futures: Iterable[StandardFuture[T]], n: int) -> list[Future[tuple[T, ...]]]:
    """Futures of tuples of `n` results each, in the order in which `futures` finish (the last may be shorter).

    A future that fails or is cancelled fails or cancels the batch that it falls into.
    """
    _check_number("batched", n, 1)
    if isinstance(futures, StandardFuture):
        raise TypeError(f"batched: give it a list of futures, not the one {futures!r}")
    sources = list(futures)
    for source in sources:
        _check_future(source, "batched")
    batches: list[Future[tuple[T, ...]]] = [_Batch(sources) for _ in range(-(-len(sources) // n))]
    arrived = list(sources)  # in the order of their ends, as far as those have come
    places = count()
    missing = [list(range(min(n, len(sources) - first))) for first in range(0, len(sources), n)]

    # Without a lock, because a finalizer may end a future at any moment: each step is atomic.
    def ended(source: StandardFuture[T]) -> None:
        place = next(places)
        arrived[place] = source
        number = place // n
        if not _follow(source, batches[number]) and missing[number].pop() == 0:  # all others were there before
            _complete(batches[number], arrived[number * n : number * n + n])

    for source in sources:
        source.add_done_callback(ended)
    return batches


class _Batch(Future[tuple[T, ...]]):
    """A future of several results. `sources`: all of the futures that it is made of some of, until it has ended."""

    __slots__ = ("_sources",)

    def __init__(self, sources: Sequence[StandardFuture[T]]) -> None:
        super().__init__("batched")
        self._sources = sources

    def ends_here(self) -> bool:
        return all(source.done() or (isinstance(source, Future) and source.ends_here()) for source in self._sources)

    def _end(self, *end: Any) -> bool:
        self._sources = ()  # before others are told of the end: it keeps nobody's result
        return super()._end(*end)


class _Tuple(_Derived):
    """The results of several futures that are done."""

    __slots__ = ("sources",)

    def __init__(self, sources: Sequence[StandardFuture[Any]]) -> None:
        self.sources = sources

    def load(self) -> tuple[Any, ...]:
        return tuple(source.result() for source in self.sources)


def _complete(batch: Future[tuple[T, ...]], sources: Sequence[StandardFuture[T]]) -> None:
    if not batch.done():
        batch.finish(_Tuple(sources))
