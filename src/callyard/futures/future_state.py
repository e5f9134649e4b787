"""The state of a future, and its end, of which waiting threads, waiters and callbacks are told.

A future has no condition variable of its own. One lock guards the state of all futures, and is held for a few bytecodes
only; a waiting thread sleeps on a lock of its own.

Any exception may interrupt the thread that ends a future, at any moment. Then either the future has not ended, or
every waiting thread and callback is told. One assignment, the last under the lock, makes the end count. The
notifications stand on lists, and each leaves its list only when done, so a repetition misses none.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as StandardFuture
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import Any, TypeVar, cast

from ..status.call_status import CallStatus
from ..status.ended_calls import EndedCalls
from ..utils.locks import let_go, under
from .lazy import Lazy
from .waiting import (
    WaiterList,
    before_sleep,
    futures_ended_here,
    futures_lock,
    notify_waiter,
    run_callbacks,
    wake,
)

__all__ = ["ENDED", "FutureState"]

T = TypeVar("T")

ENDED = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))


class FutureState(StandardFuture[T]):
    """The state of a future: pending, running, or ended with a result, an error or a cancellation."""

    __slots__ = (
        *("_done_callbacks", "_exception", "_packed", "_result", "_sleeping", "_state"),
        *("_standard_waiters", "_waiters_to_notify"),
        *("name", "on_cancel"),
        "_failure",  # the number of the failure in `unasked`, set before the future fails
        "_usage",  # what the call has used, if that was measured; set before the end
    )

    def __init__(self, name: str = "call", on_cancel: Callable[[], object] | None = None) -> None:
        # Without the base class's constructor: a condition and two lists would be most of the cost of a future.
        self.name = name
        self.on_cancel = on_cancel
        self._state = PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._packed: Lazy | None = None
        self._done_callbacks: list[Any] | deque[Any] | None = None
        self._sleeping: list[threading.Lock] | None = None  # one for each thread in result() or exception()
        self._standard_waiters: list[Any] | None = None  # of the standard library's `wait` and `as_completed`
        self._waiters_to_notify: list[Any] | None = None  # the standard waiters still to be told of the end

    # The standard library's `wait` and `as_completed` hold the `_condition` of all their futures at once while they
    # look at the states and append a waiter to each `_waiters`. One reentrant lock for all futures serves as well.
    _condition = threading.Condition(cast(Any, futures_lock))

    def _list_of_waiters(self) -> Any:
        waiters = self._standard_waiters
        if waiters is None:
            waiters = self._standard_waiters = []
        return waiters if futures_ended_here() is None else WaiterList(waiters, self)

    _waiters = cast("list[Any]", property(_list_of_waiters))  # in the standard library's types a plain attribute

    def _end(self, state: str, packed: Lazy | None, value: Any, error: BaseException | None) -> bool:
        """Go to a final state, wake waiting threads and run the callbacks; return False if the future had ended."""
        nested = futures_lock._is_owned()
        try:
            with futures_lock:
                if self._state in ENDED or (state is CANCELLED_AND_NOTIFIED and self._state is RUNNING):
                    return False
                # Value and lists first: other threads read `_state` without the lock, and expect the rest to be there.
                self._packed = packed
                self._result = value
                self._exception = error
                awaited = self._prepare_to_notify()
                self._state = state  # from here on the future has ended
                self.on_cancel = None
            if awaited:
                self._notify()
        except BaseException:  # as in `under`, inlined to save a call for each future
            if not nested:
                let_go(futures_lock)
            if self._state in ENDED:
                self._notify()
            raise
        return True

    def _prepare_to_notify(self) -> bool:
        """Make the lists from which `_notify` works; return False if all of them are empty."""
        if self._standard_waiters:
            self._waiters_to_notify = self._standard_waiters[:]
        if self._done_callbacks is not None:
            self._done_callbacks = deque(self._done_callbacks)
        return bool(self._sleeping or self._standard_waiters or self._done_callbacks)

    def _notify(self) -> None:
        """Tell waiting threads, waiters and callbacks of the end; an entry leaves its list only after being told."""
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

    def _add_callback(self, callback: Callable[[Any], object]) -> bool:
        """Add a callback; return False, and add none, if the future has ended."""
        if self._state in ENDED:
            return False
        if self._done_callbacks is None:
            self._done_callbacks = [callback]
        else:
            self._done_callbacks.append(callback)
        return True

    def failed(self) -> bool:
        """Return True if the future has ended with an error, opened or packed."""
        return self._exception is not None

    def ends_here(self) -> bool:
        """Return True if only this thread can end the future, so that a wait in this thread would last for ever."""
        on_cancel = futures_ended_here()
        return on_cancel is not None and self.on_cancel == on_cancel and not self.done()

    def _present_status(self) -> CallStatus | None:
        """Return the status of a call that has not ended; None if it is on its way from one state to the next.

        Whoever ends the future knows.
        """
        ask = getattr(self._owner(), "status_of", None)
        return None if ask is None else ask(self)

    def _accounts(self) -> EndedCalls | None:
        """Return the accounts of ends that the owner keeps, if it does; to be asked for before the end."""
        return getattr(self._owner(), "ended_calls", None)

    def _owner(self) -> object:
        """Return the object that ends the future: `on_cancel` is a method of it."""
        return getattr(self.on_cancel, "__self__", None)

    def _sleep(self, timeout: float | None) -> None:
        """Sleep until the future has ended, or the time is up.

        Not on a `threading.Condition`, which is written in Python, so that an exception could leave the lock held. To
        take a plain lock a second time is one call of C.
        """
        sleeping = threading.Lock()
        sleeping.acquire()
        # Under the lock, because the future could otherwise end between the look at its state and the registration,
        # and no thread would ever wake this one.
        if not under(futures_lock, self._add_sleeping, sleeping):
            return
        before_sleep()
        if timeout is None:
            sleeping.acquire()
        elif not sleeping.acquire(timeout > 0, timeout if timeout > 0 else -1):
            under(futures_lock, self._remove_sleeping, sleeping)

    def _add_sleeping(self, sleeping: threading.Lock) -> bool:
        if self._state in ENDED:
            return False
        if self._sleeping is None:
            self._sleeping = [sleeping]
        else:
            self._sleeping.append(sleeping)
        return True

    def _remove_sleeping(self, sleeping: threading.Lock) -> None:
        if self._state not in ENDED and self._sleeping is not None:
            self._sleeping.remove(sleeping)
