"""Waiting for futures: the lock of all futures, and the ways in which the end of a future reaches those who wait.

There are three: threads in `result()` sleep on a lock of their own; the standard library's `wait` and `as_completed`
append a waiter to each of their futures; callbacks are called.

An exception (Ctrl-C, say) may interrupt the thread that ends a future between any two bytecodes. So each function here
may be called a second time for the same end: an entry leaves its list only after it was dealt with.
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

# Guards the state of every future. It is reentrant, because the garbage collector may run a finalizer in the middle of
# a section that holds it, and that finalizer may submit a call. Sections are short: nothing under it blocks, loads a
# result or calls anything of the user's.
futures_lock = new_lock()
if hasattr(os, "register_at_fork"):  # the thread that held it does not exist in a forked child
    os.register_at_fork(after_in_child=futures_lock._at_fork_reinit)

_this_thread = threading.local()


class AwaitedFuture(Protocol):
    """A future as those who wait for it see it."""

    name: str

    def done(self) -> bool: ...

    def cancelled(self) -> bool: ...

    def failed(self) -> bool: ...

    def ends_here(self) -> bool: ...


def before_sleep() -> None:
    """Release the lock of all futures if this thread holds it, because no future could end while it sleeps.

    The standard library's `wait` and `as_completed` take the lock of each of their futures, one by one. An exception
    that arrives in the middle of that leaves the lock held.
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
    """Declare that the current thread is the one that ends all futures with this `on_cancel`.

    A callback runs in the thread that ended its future. If it waits there for another future of the same thread, it
    waits for ever; knowing the thread, we raise instead (`Future.ends_here`).
    """
    _this_thread.ends = on_cancel


def futures_ended_here() -> Callable[[], object] | None:
    """Return the `on_cancel` of the futures that the current thread ends; None if it ends none."""
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
    if sleeping.locked():  # if not, it was woken before an exception interrupted us
        sleeping.release()


# -- wait and as_completed of the standard library -------------------------------------------------------


class WaiterList:
    """The waiters of a future, as a thread sees them that ends futures: it must not wait for one of its own.

    `wait` and `as_completed` append a waiter to each of their futures and then wait for the waiter's event. This is
    the one moment at which we can give the waiter an event that knows its futures.
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
    """The event of a waiter, set at the end of one of its futures or of all; it refuses a wait that cannot end."""

    def __init__(self, for_all: bool) -> None:
        super().__init__()
        self._for_all = for_all
        self._ending_here: str | None = None  # the name of a future that only this thread can end
        self._others = False  # whether another thread may end one of the futures

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
    if future in waiter.finished_futures:  # it was told before an exception interrupted us
        waiter.event.set()
    elif future.cancelled():
        waiter.add_cancelled(future)
    elif future.failed():
        waiter.add_exception(future)
    else:
        waiter.add_result(future)


# -- callbacks -------------------------------------------------------------------------------------------


class _RepeatableCallback:
    """A callback of this package, which may be called twice for one end."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function

    def __call__(self, future: Any) -> None:
        self.function(future)


def when_ended(future: StandardFuture[Any], step: Callable[[Any], object]) -> None:
    """Call `step(future)` when the future ends, and once more if an exception interrupts `step`."""
    future.add_done_callback(_RepeatableCallback(step))


def run_callbacks(future: AwaitedFuture, callbacks: deque[Any]) -> None:
    """Call the callbacks in order and empty the queue.

    A callback of ours leaves the queue after it has returned, so that an interrupted one runs again. A user's callback
    leaves it at the start: it may not bear to run twice.
    """
    # One chain of C iterators takes a callback and calls it: between two bytecodes an exception could arrive, and the
    # callback would be lost.
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
