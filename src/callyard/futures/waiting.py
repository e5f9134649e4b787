"""Waiting for futures: the lock of all futures, and the three ways to learn of a future's end.

A thread in `result()` sleeps on a lock of its own; the standard library's `wait` and `as_completed` append a waiter to
each of their futures; callbacks are called.

An exception (Ctrl-C, say) may interrupt the thread that ends a future between any two bytecodes. So each function here
may be called a second time for the same end: a waiter or callback leaves its list only after being told.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as StandardFuture
from itertools import repeat
from operator import methodcaller
from typing import Any, Protocol

from ..utils import interpreter_exit
from ..utils.locks import let_go, new_lock

_log = logging.getLogger("concurrent.futures")  # where the standard library reports broken callbacks

# Guards the state of every future. Reentrant, because the garbage collector may run a finalizer in the middle of a
# critical section, and the finalizer may submit a call. The sections are short: no blocking, no loading of results and
# no user code under the lock.
futures_lock = new_lock()
if hasattr(os, "register_at_fork"):  # in a forked child the thread that held the lock does not exist
    os.register_at_fork(after_in_child=futures_lock._at_fork_reinit)

_this_thread = threading.local()


class AwaitedFuture(Protocol):
    """A future, as seen by waiters and callbacks."""

    name: str

    def done(self) -> bool: ...

    def cancelled(self) -> bool: ...

    def failed(self) -> bool: ...

    def ends_here(self) -> bool: ...


def before_sleep() -> None:
    """Release the lock of all futures if this thread holds it, because no future could end during the sleep.

    The standard library's `wait` and `as_completed` take the lock of each of their futures, one by one. An exception
    in the middle leaves the lock held.
    """
    let_go(futures_lock)


class _ReleaseAtExit:
    """A hook at the interpreter's exit, where the main thread waits for all executors."""

    def begin_end(self) -> None:
        before_sleep()

    def wait_for_end(self) -> None: ...


_release_at_exit = _ReleaseAtExit()  # kept here, as hooks are held by weak references
interpreter_exit.register(_release_at_exit)


# -- threads that end futures ----------------------------------------------------------------------------


def ends_futures(on_cancel: Callable[[], object]) -> None:
    """Declare the current thread as the only one to end futures with this `on_cancel`.

    A callback runs in the thread that ended its future, and would wait for ever there for another future of the same
    thread. Because the thread is known, `Future.ends_here` can tell, and the wait raises an error instead.
    """
    _this_thread.ends = on_cancel


def futures_ended_here() -> Callable[[], object] | None:
    """Return the `on_cancel` of the futures of the current thread; None in a thread that ends no futures."""
    return getattr(_this_thread, "ends", None)


def endless_wait(name: str) -> RuntimeError:
    """Return the error for waiting in a callback for a future that only this thread can end."""
    return RuntimeError(
        f"{name!r} cannot end before this callback has returned: a callback must not wait for another future; submit "
        "a call that depends on it"
    )


# -- threads in result() ---------------------------------------------------------------------------------


def wake(sleeping: threading.Lock) -> None:
    """Wake the thread that sleeps on this lock."""
    if sleeping.locked():  # otherwise the thread was woken before an exception interrupted this one
        sleeping.release()


# -- wait and as_completed of the standard library -------------------------------------------------------


class WaiterList:
    """The list of a future's waiters in a thread that ends futures, and must not wait for its own.

    `wait` and `as_completed` append a waiter to each of their futures and then wait for the waiter's event. Only in
    between can the waiter be given an event that knows the futures.
    """

    def __init__(self, waiters: list[Any], future: AwaitedFuture) -> None:
        self._waiters = waiters
        self._future = future

    def append(self, waiter: Any) -> None:
        if not isinstance(waiter.event, _WaitEvent):
            waiter.event = _WaitEvent(for_all=not getattr(waiter, "stop_on_exception", True))
        waiter.event.add(self._future)
        self._waiters.append(waiter)

    def remove(self, waiter: Any) -> None:
        self._waiters.remove(waiter)


class _WaitEvent(threading.Event):
    """The event of a waiter, set at the end of one of its futures or of all; an endless wait is refused."""

    def __init__(self, for_all: bool) -> None:
        super().__init__()
        self._for_all = for_all
        self._ending_here: str | None = None  # the name of a future that only this thread can end
        self._others = False  # True if another thread may end one of the futures

    def add(self, future: AwaitedFuture) -> None:
        if future.ends_here():
            self._ending_here = future.name
        elif not future.done():
            self._others = True

    def wait(self, timeout: float | None = None) -> bool:
        name = self._ending_here
        if timeout is None and name is not None and (self._for_all or not self._others) and not self.is_set():
            raise endless_wait(name)
        return super().wait(timeout)


def notify_waiter(waiter: Any, future: AwaitedFuture) -> None:
    """Tell a waiter of the standard library that this future has ended."""
    if future in waiter.finished_futures:  # told already, before an exception interrupted this thread
        waiter.event.set()
    elif future.cancelled():
        waiter.add_cancelled(future)
    elif future.failed():
        waiter.add_exception(future)
    else:
        waiter.add_result(future)


# -- callbacks -------------------------------------------------------------------------------------------


class _RepeatableCallback:
    """A callback of this package, safe to call twice for one end."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function

    def __call__(self, future: Any) -> None:
        self.function(future)


def when_ended(future: StandardFuture[Any], step: Callable[[Any], object]) -> None:
    """Call `step(future)` at the end of the future, and once more if an exception interrupts `step`."""
    future.add_done_callback(_RepeatableCallback(step))


def run_callbacks(future: AwaitedFuture, callbacks: deque[Any]) -> None:
    """Call the callbacks in order and empty the queue.

    A callback of this package leaves the queue after its return, so an interrupted one runs again. A user's callback
    leaves the queue before its start, because running twice may do harm.
    """
    # One chain of C iterators takes a callback from the queue and calls it: an exception between two bytecodes would
    # lose the callback.
    take_and_call = map(methodcaller("__call__", future), map(deque.popleft, repeat(callbacks)))
    while callbacks:
        first = callbacks[0]
        try:
            if type(first) is _RepeatableCallback:
                first(future)
            else:
                next(take_and_call)
        except Exception:
            log_broken_callback(future)
        if type(first) is _RepeatableCallback and callbacks and callbacks[0] is first:
            callbacks.popleft()


def log_broken_callback(future: object) -> None:
    """Report the exception that a callback raised, in the words of the standard library."""
    _log.exception("exception calling callback for %r", future)
