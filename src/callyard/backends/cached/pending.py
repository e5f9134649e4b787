"""The calls of an executor that have not ended, and the futures of each call.

One lock guards three things: the call of each key, the futures of each call, and the flag for further futures. Under
the lock only lists and flags change. Futures end after its release, because callbacks run then, and callbacks may
submit calls, cancel calls, or shut the executor down.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from typing import Any

from ...futures import Future
from ...utils.locks import new_lock, under
from .cached_future import CachedFuture

CallId = tuple[str, str]  # directory and key


class PendingCall:
    """A call that has not ended, from the view of its futures.

    `key` is unknown at first if the key depends on results to come: see `has_key`.
    """

    def __init__(self, pending: PendingCalls, directory: str, own_key: str | None) -> None:
        self._pending, self._path = pending, directory
        self.key, self.has_key = own_key or "", own_key is not None
        self.inner: Future[Any] | None = None  # the future of the backend
        self.where = ""  # for people: the place of the run, if another process runs the call
        self.ended = False
        self._open = True  # more futures may join; guarded by the lock
        self._futures: list[CachedFuture] = []  # in the order of joining; guarded by the lock
        self._sent_again = False  # the backend's first future counts no more, even if late

    @property
    def id(self) -> CallId:
        return self._path, self.key

    def identity(self) -> str:
        """Return the name of the call while its result is unknown."""
        return self.key

    def join(self, future: CachedFuture) -> bool:
        """Let a future share the call; return False once the call has ended, or is being cancelled."""
        return under(self._pending.lock, self._join, future)

    def _join(self, future: CachedFuture) -> bool:
        if not self._open:
            return False
        self._futures.append(future)
        future.joins(self)
        future.identity = self.identity()
        if self.has_key:
            future.known_as(self.key, False)
        return True

    def named(self, key: str) -> None:
        """Take a key that another process has made."""
        under(self._pending.lock, self._named, key)

    def _named(self, key: str) -> None:
        self.key, self.has_key = key, True
        for future in self._futures:
            future.known_as(key, False)

    def leave(self, future: CachedFuture, begun: bool = False) -> bool:
        """Cancel one future, and with the last one the call; return True if the future is cancelled now.

        With `begun` the last one ends a running call, too.
        """
        try:
            inner = under(self._pending.lock, self._let_go, future)
            # Dropped under the lock: the call goes on for others, and this future ends here.
            if future not in self._futures:
                return future.left() if not self.ended else future.cancelled()
            if inner is not None:
                if begun:
                    inner.again()
                inner.cancel()  # its end ends the future
                under(self._pending.lock, self._reopen, inner)
        except BaseException:
            if future not in self._futures and not self.ended:  # no other thread is going to end the future
                future.left()
            raise
        return future.cancelled()

    def _let_go(self, future: CachedFuture) -> Future[Any] | None:
        """Return the call to cancel if this is its only future; otherwise drop the future, unless the call runs."""
        inner, alone = self.inner, self._futures == [future]
        if future not in self._futures or inner is None or (not alone and inner.running()):
            return None
        if alone:
            self._open = False  # no future may join a call that is being cancelled
            return inner
        self._futures.remove(future)
        return None

    def _reopen(self, inner: Future[Any]) -> None:
        # The backend may refuse, because the call runs; then futures may join again.
        self._open = not (self.ended or inner.cancelled())

    def _set_inner(self, inner: Future[Any], again: bool) -> tuple[bool, Future[Any] | None]:
        """Take the backend's future; return True if it comes too late, and the future that it replaces.

        A late future is one of a call that has ended, or was sent again, in the meantime. The caller holds the lock.
        """
        late = self.ended or (self._sent_again and not again)
        self._sent_again |= again
        old = None if late else self.inner
        if not late:
            self.inner = inner
        return late, old

    def _end(self) -> list[CachedFuture]:
        """Close the call, under the lock; return the futures for the caller to end, who then calls `drop_futures`."""
        self._open, self.ended = False, True
        return list(self._futures)

    def drop_futures(self) -> None:
        """Forget the futures, which were ended, or share another call now."""
        self._futures = []


class PendingCalls:
    """The calls of one executor that have not ended. `after_each` is called after the end of each."""

    def __init__(self, after_each: Callable[[], None]) -> None:
        self.lock = new_lock()  # reentrant: a finalizer may submit while this thread holds it
        self.over: Future[None] = Future("the end")
        self._after_each = after_each
        self._by_id: dict[CallId, PendingCall] = {}
        self._all: set[PendingCall] = set()  # also those without a key so far
        # With the thread: a shutdown in a callback there cannot wait for the call.
        self._ending: dict[PendingCall, int] = {}

    def join(self, call: CallId, future: CachedFuture) -> bool:
        """Let a future share the call of this key; return False if there is no call to join."""
        other = self._by_id.get(call)
        return other is not None and other.join(future)

    def add(self, call: PendingCall, future: CachedFuture) -> bool:
        """Add a call with its first future; return False if the future has joined the same call instead.

        Raises:
            RuntimeError: the executor has ended.
        """
        return under(self.lock, self._add, call, future)

    def _add(self, call: PendingCall, future: CachedFuture) -> bool:
        if self.over.done():
            raise RuntimeError("cannot schedule new futures after shutdown")
        # Looked up once more under the lock: another thread may have added the same call since the first look.
        if call.has_key and self.join(call.id, future):
            return False
        call.join(future)
        self._all.add(call)
        if call.has_key:
            self._by_id[call.id] = call
        return True

    def merge(self, call: PendingCall) -> bool:
        """Let the futures of a call with a new key join another call of this key; return True if they have."""
        return under(self.lock, self._merge, call)

    def _merge(self, call: PendingCall) -> bool:
        other = self._by_id.get(call.id)
        futures = [] if call.ended else list(call._futures)
        for future in futures:
            future.known_as(call.key, False)
        # All futures join or none: to close, the other call would need this lock.
        if other is None or other is call or call.ended or not other._open:
            if not call.ended:
                self._by_id[call.id] = call
            return False
        for future in futures:
            other._join(future)
        call._end()
        call.drop_futures()
        return True

    def set_inner(self, call: PendingCall, inner: Future[Any], again: bool) -> tuple[bool, Future[Any] | None]:
        """Give a call the backend's future; see `PendingCall._set_inner`."""
        return under(self.lock, call._set_inner, inner, again)

    def end(self, call: PendingCall) -> list[CachedFuture]:
        """End a call, in this thread; return its futures for the caller to end."""
        self._ending[call] = threading.get_ident()
        return under(self.lock, self._end, call)

    def _end(self, call: PendingCall) -> list[CachedFuture]:
        if call.has_key and self._by_id.get(call.id) is call:
            del self._by_id[call.id]
        return call._end()

    def discard(self, call: PendingCall) -> None:
        """Forget a call with nothing left to be done."""
        under(self.lock, self._all.discard, call)
        self._ending.pop(call, None)
        self._after_each()

    def run_elsewhere(self) -> int:
        """Return the number of calls that another process runs. Any thread may ask."""
        return sum(1 for call in tuple(self._all) if call.where)

    def keys_by_future(self) -> dict[int, str]:
        """Return the keys of the calls, by the identity of the inner backend's futures. Any thread may ask."""
        return {id(call.inner): call.key for call in tuple(self._all)}

    def are_over(self) -> bool:
        """Return True if all calls are done with, and tell the threads that wait for the end."""
        if not under(self.lock, lambda: not self._all):
            return False
        with contextlib.suppress(InvalidStateError):  # another thread has told them
            self.over.set_result(None)
        return True

    def end_here(self) -> bool:
        """Return True if this thread is inside a callback of an ending call, and so cannot wait for its end."""
        return threading.get_ident() in tuple(self._ending.values())

    def after_fork(self) -> None:
        """Drop all calls in a forked child: they are the parent's."""
        # A new lock, because another thread of the parent may have held the old one during the fork.
        self.lock = new_lock()
        self._by_id.clear()
        self._all.clear()
        with contextlib.suppress(InvalidStateError):
            self.over.set_result(None)
