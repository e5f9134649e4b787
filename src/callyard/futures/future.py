"""`Future`: a `concurrent.futures.Future` that costs little until somebody waits for it.

Users see the standard library's future. Two things differ inside, because there may be a hundred thousand of them:

* A future has no condition variable of its own. One lock guards the state of all futures, and is held for a few
  bytecodes only; a thread that waits for a future sleeps on a lock of its own.
* A result stays packed, as it arrived from a worker (`Lazy`), until somebody asks for it. It is then opened in the
  thread that asks. A result that only feeds another call is never opened in this process.

Any exception may interrupt the thread that ends a future, at any moment. Then either the future has not ended, or all
who wait for it are told. One assignment, the last under the lock, makes the end count. Everything that follows from it
stands on lists, and leaves them only when it is done, so that it can be done again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures import Future as StandardFuture
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ..errors import UnreadableCall
from ..utils.locks import let_go, under
from ..utils.public_names import public_names
from .waiting import (
    WaiterList,
    before_sleep,
    endless_wait,
    futures_ended_here,
    futures_lock,
    log_broken_callback,
    notify_waiter,
    run_callbacks,
    wake,
)

T = TypeVar("T")

_PUBLIC_STATES = {
    PENDING: "pending",
    RUNNING: "running",
    CANCELLED: "cancelled",
    CANCELLED_AND_NOTIFIED: "cancelled",
    FINISHED: "finished",
}
_ENDED = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))
_STILL_PACKED: BaseException = Exception("this error is still packed")  # in the place of an error not yet opened

# What `dir()` shows. The methods and attributes that only the rest of this package uses are left out.
_PUBLIC = {name for name in dir(StandardFuture) if not name.startswith("_")} | {
    "attempts",
    "cached",
    "job_id",
    "key",
    "name",
}


class Lazy(Protocol):
    """A value or an error that is still packed."""

    def load(self) -> Any: ...


class DerivedResult:
    """A packed value that is made, in this process, of results of other futures.

    An exception from `load` is the result's own, as an IndexError of a part. That of any other packed value means that
    it cannot be unpickled here.
    """

    __slots__ = ()

    def load(self) -> Any:
        raise NotImplementedError


class Future(StandardFuture[T]):
    """The result of a call, which may not have ended yet: a `concurrent.futures.Future`.

    It works with `wait`, `as_completed` and `asyncio.wrap_future`, can be awaited, and may be an argument of another
    call, which then waits for it.

    Attributes:
        name: the name of the function that is called.
        key: the call's key in the cache, 64 hexadecimal digits; None without a cache, or before it is known.
        cached: whether the result was in the cache when the call was submitted; None without a cache.
        job_id: the scheduler's id of the job that runs the call; None where no scheduler does.
        attempts: the number of this run of the call: 1, and one more each time that it is run again, because it has
            raised `Again`, or has lost its worker and has a `restart_limit`.

    Examples:
        >>> future = executor.submit(pow, 2, 10)
        >>> future.result()
        1024
    """

    attempts = 1
    passes_again_on = False  # a call that raises `Again` goes back to another process, see `AgentReply`

    __slots__ = (
        *("_done_callbacks", "_exception", "_packed", "_result", "_sleeping", "_state"),
        *("_standard_waiters", "_waiters_to_notify"),
        *("name", "on_cancel"),
    )

    def __init__(self, name: str = "call", on_cancel: Callable[[], object] | None = None) -> None:
        # The base class's constructor is left out: it makes a condition and two lists, most of what a future costs.
        self.name = name
        self.on_cancel = on_cancel
        self._state = PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._packed: Lazy | None = None
        self._done_callbacks: list[Any] | deque[Any] | None = None
        self._sleeping: list[threading.Lock] | None = None  # one for each thread in result() or exception()
        self._standard_waiters: list[Any] | None = None  # of the standard library's `wait` and `as_completed`
        self._waiters_to_notify: list[Any] | None = None  # those of them that have not been told of the end yet

    @property
    def key(self) -> str | None:
        """The call's key in the cache; None without a cache, or before it is known."""
        return None

    @property
    def cached(self) -> bool | None:
        """Whether the result was in the cache when the call was submitted; None without a cache."""
        return None

    @property
    def job_id(self) -> str | None:
        """The scheduler's id of the job that runs this call; None where no scheduler does."""
        return None

    # -- the state and its lock ------------------------------------------------------------------------

    # The standard library's `wait` and `as_completed` hold `_condition` of each future while they look which have
    # ended and append a waiter to `_waiters`. One lock for all is right for them too, as it is reentrant.
    _condition = threading.Condition(cast(Any, futures_lock))

    def _list_of_waiters(self) -> Any:
        waiters = self._standard_waiters
        if waiters is None:
            waiters = self._standard_waiters = []
        return waiters if futures_ended_here() is None else WaiterList(waiters, self)

    _waiters = cast("list[Any]", property(_list_of_waiters))  # the standard library's types say that it can be set

    def _end(self, state: str, packed: Lazy | None, value: Any, error: BaseException | None) -> bool:
        """Go to a final state, wake who waits and run the callbacks; return False if there already."""
        nested = futures_lock._is_owned()
        try:
            with futures_lock:
                if self._state in _ENDED or (state is CANCELLED_AND_NOTIFIED and self._state is RUNNING):
                    return False
                self._packed = packed
                self._result = value
                self._exception = error
                awaited = self._prepare_to_notify()
                self._state = state  # from here on it has ended
                self.on_cancel = None
            if awaited:
                self._notify()
        except BaseException:  # as `under` does, but without the time that its call takes
            if not nested:
                let_go(futures_lock)
            if self._state in _ENDED:
                self._notify()
            raise
        return True

    def _prepare_to_notify(self) -> bool:
        """Make the lists from which `_notify` works; return whether there is anybody to tell of the end."""
        if self._standard_waiters:
            self._waiters_to_notify = self._standard_waiters[:]
        if self._done_callbacks is not None:
            self._done_callbacks = deque(self._done_callbacks)
        return bool(self._sleeping or self._standard_waiters or self._done_callbacks)

    def _notify(self) -> None:
        """Tell all who have not been told of the end yet."""
        sleeping = self._sleeping
        while sleeping:
            wake(sleeping[-1])
            sleeping.pop()
        while self._waiters_to_notify:
            notify_waiter(self._waiters_to_notify[-1], self)
            self._waiters_to_notify.pop()
        if self._done_callbacks is not None:
            run_callbacks(self, cast("deque[Any]", self._done_callbacks))
            self._done_callbacks = None

    # -- for executors ---------------------------------------------------------------------------------

    def set_running_or_notify_cancel(self) -> bool:
        """Mark the call as running; return False if it was cancelled. Only executors and tests call this.

        Raises:
            InvalidStateError: it runs or has ended already.
        """
        nested = futures_lock._is_owned()
        try:
            with futures_lock:
                if self._state is PENDING:
                    self._state = RUNNING
                    return True
        except BaseException:  # as `under` does
            if not nested:
                let_go(futures_lock)
            raise
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
            return False
        raise InvalidStateError(f"{self!r} is running or has ended already")

    def set_result(self, result: T) -> None:
        """End with a result. Only executors and tests call this.

        Args:
            result: what `result()` returns from now on.

        Raises:
            InvalidStateError: it has ended already.
        """
        if not self._end(FINISHED, None, result, None):
            raise InvalidStateError(f"{self!r} has ended already")

    def set_exception(self, exception: BaseException | None) -> None:
        """End with an exception. Only executors and tests call this.

        Args:
            exception: what `result()` raises from now on.

        Raises:
            InvalidStateError: it has ended already.
        """
        if not self._end(FINISHED, None, None, exception):
            raise InvalidStateError(f"{self!r} has ended already")

    def finish(self, packed: Lazy) -> bool:
        """End with a result that is opened when somebody asks for it."""
        return self._end(FINISHED, packed, None, None)

    def fail(self, packed: Lazy) -> bool:
        """End with an error that is opened when somebody asks for it."""
        return self._end(FINISHED, packed, None, _STILL_PACKED)

    def pass_again_on(self, arguments: Lazy) -> None:
        raise NotImplementedError

    def fail_with(self, error: BaseException) -> bool:
        """End with an error of this process, if it has not ended yet."""
        return self._end(FINISHED, None, None, error)

    def again(self) -> None:
        """Go back from running to pending, because the call is going to run once more."""
        under(futures_lock, self._reset_to_pending)

    def _reset_to_pending(self) -> None:
        if self._state is RUNNING:
            self._state = PENDING

    def failed(self) -> bool:
        """Tell whether it has ended with an error, without opening it."""
        return self._exception is not None

    def take(self) -> None:
        """Load a result that is derived from other futures: whether that fails is not known before."""
        if isinstance(self._packed, DerivedResult):
            self._open()

    def packed_failure(self) -> Lazy | None:
        """Return the error with which it has ended, still packed; None if somebody has opened it."""
        packed = self._packed  # read first: another thread may be opening it
        return packed if self._exception is _STILL_PACKED else None

    # -- for users -------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Cancel the call if it has not begun; return whether it is cancelled."""
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
        """Return whether the call was cancelled."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Return whether the call runs now."""
        return self._state is RUNNING

    def done(self) -> bool:
        """Return whether the call has ended: with a result, with an exception, or cancelled."""
        return self._state in _ENDED

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(future)` when the call has ended; at once, in this thread, if it has ended already.

        Callbacks run in the order in which they were added, in the thread that ended the future. They should be short,
        and must not wait for other futures. What they raise is logged and has no other effect.

        Args:
            fn: a callable with one parameter, the future.
        """
        if not under(futures_lock, self._add_callback, fn):
            try:
                fn(self)
            except Exception:
                log_broken_callback(self)

    def _add_callback(self, callback: Callable[[Any], object]) -> bool:
        """Return False, and add nothing, if it has ended."""
        if self._state in _ENDED:
            return False
        if self._done_callbacks is None:
            self._done_callbacks = [callback]
        else:
            self._done_callbacks.append(callback)
        return True

    def result(self, timeout: float | None = None) -> T:
        """Return what the function returned; wait for it if need be.

        Args:
            timeout: how long to wait (s); default: as long as it takes.

        Raises:
            TimeoutError: the call has not ended in that time.
            concurrent.futures.CancelledError: the call was cancelled.
            RuntimeError: a callback waits for a future that only its own thread could end.
            Exception: what the function raised, with the worker's traceback as its cause; or an error of Callyard, as
                `WorkerLost`.
        """
        try:
            self._wait(timeout)
            if self._exception is not None:
                raise self._exception
            return cast(T, self._result)
        finally:
            self = None  # type: ignore[assignment]  # the traceback must not keep this future alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the function raised, None if it returned; wait for its end if need be.

        Args:
            timeout: how long to wait (s); default: as long as it takes.

        Raises:
            TimeoutError: the call has not ended in that time.
            concurrent.futures.CancelledError: the call was cancelled.
            RuntimeError: a callback waits for a future that only its own thread could end.
        """
        self._wait(timeout)
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        if self._state not in _ENDED:
            if timeout is None and self.ends_here():
                raise endless_wait(self.name)
            self._sleep(timeout)
        if self._packed is not None:
            self._open()
        if self._state is not FINISHED:
            late = "" if self._state in _ENDED else f"{self.name!r} has not ended after {timeout:g} s"
            self = None  # type: ignore[assignment]  # as in `result`
            raise FutureTimeout(late) if late else CancelledError

    def ends_here(self) -> bool:
        """Tell whether only this thread can end it: then a wait for it here would take for ever."""
        on_cancel = futures_ended_here()
        return on_cancel is not None and self.on_cancel == on_cancel and not self.done()

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for it in a coroutine, as `asyncio.wrap_future` does: cancelling the one cancels the other."""
        import asyncio  # here, because who awaits has loaded it

        return asyncio.wrap_future(self, loop=asyncio.get_running_loop()).__await__()

    if not TYPE_CHECKING:  # to mypy a future has neither items nor iteration

        def __getitem__(self, key: object) -> Any:
            """Refuse `future[key]`, and iteration, which comes here too; the result may not be there yet."""
            raise TypeError(
                f"the future of {self.name!r} is not its result: callyard.item(future, {key!r}) is the future of a "
                "part, and callyard.unzip(future, n) gives those of n parts"
            )

    def _sleep(self, timeout: float | None) -> None:
        """Sleep until it has ended, or the time is up.

        `threading.Condition` is not used: it is written in Python, and an exception could leave its lock held. A plain
        lock that is taken twice is one call of C.
        """
        sleeping = threading.Lock()
        sleeping.acquire()
        if not under(futures_lock, self._add_sleeping, sleeping):
            return
        before_sleep()
        if timeout is None:
            sleeping.acquire()
        elif not sleeping.acquire(timeout > 0, timeout if timeout > 0 else -1):
            under(futures_lock, self._remove_sleeping, sleeping)

    def _add_sleeping(self, sleeping: threading.Lock) -> bool:
        if self._state in _ENDED:
            return False
        if self._sleeping is None:
            self._sleeping = [sleeping]
        else:
            self._sleeping.append(sleeping)
        return True

    def _remove_sleeping(self, sleeping: threading.Lock) -> None:
        if self._state not in _ENDED and self._sleeping is not None:
            self._sleeping.remove(sleeping)

    def _get_snapshot(self) -> Any:
        """Return what asyncio of Python 3.15 reads in place of `result()`."""
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
            loaded = packed.load()  # without the lock: unpickling runs code of the user's, and may take long
        except (Exception, SystemExit) as failure:  # a class of the user's may do anything here
            error = failure if isinstance(packed, DerivedResult) else self._unreadable(failure)
        else:
            if self._exception is None:
                result = loaded
            else:
                error = loaded
        nested = futures_lock._is_owned()
        try:
            with futures_lock:
                if self._packed is packed:
                    self._result, self._exception, self._packed = result, error, None
        except BaseException:  # as `under` does
            if not nested:
                let_go(futures_lock)
            raise
        self = error = None  # type: ignore[assignment]  # no cycle from the error's traceback through this frame

    def _unreadable(self, failure: BaseException) -> BaseException:
        error = UnreadableCall(f"the result of {self.name!r} cannot be opened here: {failure}")
        error.__cause__ = failure
        return error

    def __reduce__(self) -> Any:
        raise TypeError("a future cannot be pickled; as an argument of a call it stands for its result")

    def __dir__(self) -> list[str]:
        return public_names(super().__dir__(), _PUBLIC)

    def _state_word(self) -> str:
        return "running" if self.running() else _PUBLIC_STATES.get(self._state, self._state)

    def __repr__(self) -> str:
        head = f"<Future at {id(self):#x} {self.name!r} state={self._state_word()}"
        if self._state is not FINISHED:
            return head + ">"
        if self._exception is not None:
            raised = "" if self._packed is not None else " " + type(self._exception).__name__
            return f"{head} raised{raised}>"
        return head + (">" if self._packed is not None else f" returned {type(self._result).__name__}>")
