"""Futures that cost little until somebody waits, and futures made from other futures.

`Future` is a `concurrent.futures.Future` in every respect that its users can see. Two things differ
inside, because there may be a hundred thousand of them:

* There is no condition variable for each. One lock of the module guards the state of all futures, and nothing slow
  ever happens under it; who waits for an end leaves a lock of their own to be woken by.
* What arrives from a worker is kept as it arrived (`Lazy`) and opened by whoever asks for it, in the
  asking thread. So an intermediate result that only feeds another call is never opened here at all.

Whatever exception interrupts the thread that ends a future, at whatever moment: it has not ended, or everybody is
told. An end counts from one assignment on, the last one under the lock; what follows from it is on lists, from which
nothing is taken before it is done, so that it can be done again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures import Future as StandardFuture
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from functools import partial
from itertools import count, repeat
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from .errors import UnreadableCall
from .utils import interpreter_exit
from .utils.locks import let_go, new_lock, under

__all__ = ["Future", "batched", "item", "unzip"]

T = TypeVar("T")
_ENDED = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))
_log = logging.getLogger("concurrent.futures")  # where the standard library reports broken callbacks

# Guards every future. The garbage collector may run a finalizer, which may submit a call, in the middle of any of the
# short sections below.
_lock = new_lock()
if hasattr(os, "register_at_fork"):  # in a forked child the thread that held it is not there
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)

_this_thread = threading.local()


def before_sleep() -> None:
    """Let go of the lock of all futures, if this thread still has it: whatever it waits for would need that.

    The standard library's `wait` and `as_completed` take the locks of their futures one by one. An exception that
    arrives in the middle of that leaves them held.
    """
    let_go(_lock)


class _AtExit:
    """The main thread before it waits for all executors."""

    def begin_end(self) -> None:
        before_sleep()

    def wait_for_end(self) -> None: ...


_at_exit = _AtExit()
interpreter_exit.register(_at_exit)


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
        *("_done_callbacks", "_due", "_exception", "_packed", "_result", "_sleepers", "_state", "_others"),
        *("name", "on_cancel"),
    )

    def __init__(self, name: str = "call", on_cancel: Callable[[], object] | None = None) -> None:
        # The base class is not asked: it would make the condition and two lists.
        self.name = name
        self.on_cancel = on_cancel
        self._state = PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._packed: Lazy | None = None
        self._done_callbacks: list[Any] | deque[Any] | None = None
        self._sleepers: list[threading.Lock] | None = None
        self._others: list[Any] | None = None
        self._due: list[Any] | None = None

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

    # The standard library's `wait` and `as_completed` hold it while they look which have ended, and sign in.
    _condition = threading.Condition(cast(Any, _lock))

    def _made_waiters(self) -> list[Any]:
        """Theirs; read while they hold the lock."""
        if self._others is None:
            self._others = []
        return self._others

    def _those_who_wait(self) -> Any:
        return self._made_waiters() if getattr(_this_thread, "ends", None) is None else _Waiters(self)

    _waiters = cast("list[Any]", property(_those_who_wait))  # the standard library's types say that it can be set

    def _end(self, state: str, packed: Lazy | None, value: Any, error: BaseException | None) -> bool:
        """Go to a final state, wake who waits and run the callbacks; False if there already."""
        nested = _lock._is_owned()
        try:
            with _lock:
                if self._state in _ENDED or (state is CANCELLED_AND_NOTIFIED and self._state is RUNNING):
                    return False
                self._packed = packed
                self._result = value
                self._exception = error
                heard = self._prepare_to_tell()
                self._state = state  # from here on it has ended
                self.on_cancel = None
            if heard:
                self._tell()
        except BaseException:  # as in `under`, without the time that its call takes
            if not nested:
                let_go(_lock)
            if self._state in _ENDED:
                self._tell()
            raise
        return True

    def _prepare_to_tell(self) -> bool:
        """Whether somebody is to be told of the end."""
        if self._others:
            self._due = self._others[:]
        if self._done_callbacks is not None:
            self._done_callbacks = deque(self._done_callbacks)
        return bool(self._sleepers or self._others or self._done_callbacks)

    def _tell(self) -> None:
        """Tell all who are still to be told of the end."""
        sleepers = self._sleepers
        while sleepers:
            _wake(sleepers[-1])
            sleepers.pop()
        while self._due:
            _tell_waiter(self._due[-1], self)
            self._due.pop()
        if self._done_callbacks is not None:
            self._run_callbacks(cast("deque[Any]", self._done_callbacks))
            self._done_callbacks = None

    def _run_callbacks(self, callbacks: deque[Any]) -> None:
        """Ours are taken from the queue when they are done, others as they begin: they may not bear to run twice."""
        # Without a bytecode between taking and calling it, at which an exception could arrive.
        take_and_call = map(methodcaller("__call__", self), map(deque.popleft, repeat(callbacks)))
        while callbacks:
            first = callbacks[0]
            try:
                if type(first) is _OwnCallback:
                    first(self)
                else:
                    next(take_and_call)
            except Exception:
                _log.exception("exception calling callback for %r", self)
            if type(first) is _OwnCallback and callbacks and callbacks[0] is first:
                callbacks.popleft()

    # -- for the executor ------------------------------------------------------------------------------

    def set_running_or_notify_cancel(self) -> bool:
        nested = _lock._is_owned()
        try:
            with _lock:
                if self._state is PENDING:
                    self._state = RUNNING
                    return True
        except BaseException:  # as in `under`
            if not nested:
                let_go(_lock)
            raise
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
        under(_lock, self._back)

    def _back(self) -> None:
        if self._state is RUNNING:
            self._state = PENDING

    def failed(self) -> bool:
        """Whether it has ended with an error; does not open it."""
        return self._exception is not None

    def take(self) -> None:
        """Of a part of another future's result, take it: only then it is known whether it is there."""
        if isinstance(self._packed, _DerivedResult):
            self._open()

    def packed_failure(self) -> Lazy | None:
        """The error that it has ended with, unless somebody has opened it."""
        packed = self._packed  # read first: another thread may be opening it
        return packed if self._exception is _STILL_PACKED else None

    # -- for everybody ---------------------------------------------------------------------------------

    def cancel(self) -> bool:
        on_cancel = self.on_cancel
        try:
            if self._end(CANCELLED_AND_NOTIFIED, None, None, None):
                if on_cancel is not None:
                    on_cancel()
                return True
        except BaseException:
            if on_cancel is not None and self.cancelled():
                on_cancel()
            raise
        return self.cancelled()

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        return self._state is RUNNING

    def done(self) -> bool:
        return self._state in _ENDED

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        if not under(_lock, self._sign_in, fn):
            try:
                fn(self)
            except Exception:
                _log.exception("exception calling callback for %r", self)

    def _sign_in(self, callback: Callable[[Any], object]) -> bool:
        """Whether it has not ended yet."""
        if self._state in _ENDED:
            return False
        if self._done_callbacks is None:
            self._done_callbacks = [callback]
        else:
            self._done_callbacks.append(callback)
        return True

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
            self._sleep(timeout)
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
                f"the future of {self.name!r} is not its result: callyard.item(future, {key!r}) is the future of a "
                "part, and callyard.unzip(future, n) gives those of n parts"
            )

    def _sleep(self, timeout: float | None) -> None:
        """Until it has ended, or the time is up."""
        alarm = threading.Lock()
        alarm.acquire()
        if not under(_lock, self._lie_down, alarm):
            return
        before_sleep()
        if timeout is None:
            alarm.acquire()
        elif not alarm.acquire(timeout > 0, timeout if timeout > 0 else -1):
            under(_lock, self._get_up, alarm)

    def _lie_down(self, alarm: threading.Lock) -> bool:
        if self._state in _ENDED:
            return False
        if self._sleepers is None:
            self._sleepers = [alarm]
        else:
            self._sleepers.append(alarm)
        return True

    def _get_up(self, alarm: threading.Lock) -> None:
        if self._state not in _ENDED and self._sleepers is not None:
            self._sleepers.remove(alarm)

    def _get_snapshot(self) -> Any:
        """What asyncio of Python 3.15 reads, past `result()`."""
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
            error = failure if isinstance(packed, _DerivedResult) else self._unreadable(failure)
        else:
            if self._exception is None:
                result = loaded
            else:
                error = loaded
        nested = _lock._is_owned()
        try:
            with _lock:
                if self._packed is packed:
                    self._result, self._exception, self._packed = result, error, None
        except BaseException:  # as in `under`
            if not nested:
                let_go(_lock)
            raise
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


class _Waiters:
    """The list of those that wait for a future, for a thread that ends futures: it must not wait for its own."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def append(self, waiter: Any) -> None:
        if not isinstance(waiter.event, _WaitEvent):
            waiter.event = _WaitEvent(for_all=not getattr(waiter, "stop_on_exception", True))
        waiter.event.waits_for(self._future)
        self._future._made_waiters().append(waiter)

    def remove(self, waiter: Any) -> None:
        self._future._made_waiters().remove(waiter)


class _WaitEvent(threading.Event):
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


def _tell_waiter(waiter: Any, future: Future[Any]) -> None:
    """Tell a waiter of the standard library's."""
    if future in waiter.finished_futures:  # before an exception arrived
        waiter.event.set()
    elif future.cancelled():
        waiter.add_cancelled(future)
    elif future.failed():
        waiter.add_exception(future)
    else:
        waiter.add_result(future)


def _wake(sleeper: threading.Lock) -> None:
    if sleeper.locked():  # else it was woken before an exception arrived
        sleeper.release()


class _OwnCallback:
    """A callback of this package, which may be called twice for one end."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function

    def __call__(self, future: Any) -> None:
        self.function(future)


def when_ended(future: StandardFuture[Any], step: Callable[[Any], object]) -> None:
    """Call `step(future)` at the end, and once more if an exception interrupts it."""
    future.add_done_callback(_OwnCallback(step))


# -- futures made from futures ---------------------------------------------------------------------------


class _DerivedResult:
    """What is made here of results that are here: an error in that is the caller's to see as it is."""

    __slots__ = ()

    def load(self) -> Any:
        raise NotImplementedError


class _Item(_DerivedResult):
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


class ItemFuture(Future[Any]):
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
            self.finish(_Item(source, *self.key_and_length))


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
    part = ItemFuture(source, key, length)
    when_ended(source, part.ended)
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
    sizes = [min(n, len(sources) - first) for first in range(0, len(sources), n)]
    batches: list[Future[tuple[T, ...]]] = [_BatchFuture(sources) for _ in sizes]
    arrived: list[dict[int, StandardFuture[T]]] = [{} for _ in sizes]  # in each batch, by the number of the source
    places: dict[int, int] = {}  # by the number of the source: in which order they have ended
    free = count()

    # Without a lock, because a finalizer may end a future at any moment: each step is atomic, and may be done twice.
    def ended(number: int, source: StandardFuture[T]) -> None:
        if number not in places:
            places.update(zip((number,), free))  # noqa: B905  # to take a place and to note it is one step
        place = places[number] // n
        batch, members = batches[place], arrived[place]
        members[number] = source
        if not _follow(source, batch) and len(members) == sizes[place] and not batch.done():
            batch.finish(_TupleResult(list(members.values())))

    for number, source in enumerate(sources):
        when_ended(source, partial(ended, number))
    return batches


class _BatchFuture(Future[tuple[T, ...]]):
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


class _TupleResult(_DerivedResult):
    """The results of several futures that are done."""

    __slots__ = ("sources",)

    def __init__(self, sources: Sequence[StandardFuture[Any]]) -> None:
        self.sources = sources

    def load(self) -> tuple[Any, ...]:
        return tuple(source.result() for source in self.sources)
