"""Calls that are remembered: a backend in front of another.

    submit --> key known? --> the same call on its way: share it
                          --> a result in the cache:    done
                          --> otherwise: the other backend, whose runner claims, runs and stores
    futures not done yet: the other backend waits for them, and asks (`Flight.admit`) before it starts the call

The runner may decline: somebody else has stored a result, or is at it, or the code that it imports is not the one
that was keyed. What is then to be done may take long, and is done by a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import InvalidStateError
from typing import Any

from ...cache.cache import Cache
from ...cache.lookup import CachedResult, look_up
from ...errors import CacheError
from ...futures import Future
from ...hashing.digest import PendingFuture
from ...resources import Resources
from ...utils import interpreter_exit
from ...utils.locks import new_lock, under
from ...utils.threads import TaskThread
from ..base import Backend, Settings
from ..live import FORKED, LiveBackend
from .future import CachedCall, CachedFuture
from .settings import SettingsByResources
from .shared_call import SharedCall

_fronts: weakref.WeakSet[CachedBackend] = weakref.WeakSet()


class CachedBackend:
    """Gives the calls of one executor a memory."""

    def __init__(self, inner: Backend, cache: Cache, settings: Settings) -> None:
        self.inner = inner
        self._cache = cache
        # Made at `submit`; and its runners see the directory, too.
        self.sends_copies = inner.detached or isinstance(inner, LiveBackend)
        self.detached = inner.detached
        self._places = SettingsByResources(cache, settings)
        # Where an initializer ran only the code is compared: to change data is what initializers are for.
        self.code_only = settings.initializer is not None or settings.init_function is not None
        self._flights: dict[tuple[str, str], SharedCall] = {}  # by directory and key
        self._all: set[SharedCall] = set()  # those too whose key is not known yet
        self._fresh: set[tuple[str, str]] = set()  # results that were made again by this executor
        self.lock = new_lock()  # a finalizer may submit while this thread holds it
        self._landing: dict[SharedCall, int] = {}  # in which thread: a shutdown in a callback there cannot wait for it
        self.tasks = TaskThread("callyard-cache")
        self._closing = False
        self._over: Future[None] = Future("the end")
        self._forked = False
        _fronts.add(self)
        interpreter_exit.register(self)

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        resources: Resources,
        ticket: CachedCall | None = None,
    ) -> Future[Any]:
        if self._forked:
            raise RuntimeError(FORKED)
        flight = SharedCall(self, fn, self._places.place(resources))
        future = CachedFuture(flight.name)
        try:
            flight.prepare(args, kwargs)
        except (PendingFuture, CacheError) as reason:
            if type(reason) is not PendingFuture and not flight.has_key:
                raise
        if not (flight.has_key and self._answer(flight, future)):
            self._start(flight, future, args, kwargs)
        return future

    def _answer(self, flight: SharedCall, future: CachedFuture) -> bool:
        """Whether the call is on its way or remembered."""
        if self._board_another(flight, future):
            return True
        found = self.look_up(flight)
        if found is None:
            return False
        future.known_as(flight.key, True)
        future.identity, future.stored = flight.identity(), flight.place_and_key
        future.answered(found, found.token, failed=found.failed)
        return True

    def _board_another(self, flight: SharedCall, future: CachedFuture) -> bool:
        other = self._flights.get(flight.place_and_key)
        return other is not None and other.board(future)

    def _start(
        self, flight: SharedCall, future: CachedFuture, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Put it on its way, unless another thread was faster."""
        try:
            if under(self.lock, self._board_others, flight, future):
                return
            self.tasks.prepare()
            if flight.held or not self.sends_copies:  # whose runners may see neither the directory nor the whole result
                flight.arguments = args, dict(kwargs)
            flight.takes_off(self.inner.submit(flight.fn, args, kwargs, flight.place.resources, flight))
        except BaseException as error:
            flight.fail(error)  # for those who have boarded since
            raise

    def _board_others(self, flight: SharedCall, future: CachedFuture) -> bool:
        """Whether the same call is on its way already; otherwise this flight is."""
        if self._over.done():
            raise RuntimeError("cannot schedule new futures after shutdown")
        if flight.has_key and self._board_another(flight, future):
            return True
        flight.board(future)
        self._all.add(flight)
        if flight.has_key:
            self._flights[flight.place_and_key] = flight
        return False

    def look_up(self, flight: SharedCall) -> CachedResult | None:
        """What is remembered of this call."""
        cache = flight.place.cache
        if cache.mode == "refresh" and flight.place_and_key not in self._fresh:
            return None
        found, flight.ignores_file = look_up(cache, flight.key)
        return None if found is None or (found.failed and not cache.failures) else found

    def join(self, flight: SharedCall) -> bool:
        """Once the key is known: whether another flight of the same call takes its futures over."""
        return under(self.lock, self._join, flight)

    def _join(self, flight: SharedCall) -> bool:
        other = self._flights.get(flight.place_and_key)
        passengers = [] if flight.landed else flight.passengers()
        for future in passengers:
            future.known_as(flight.key, False)
        if other is None or other is flight or flight.landed or not other.takes(passengers):
            if not flight.landed:
                self._flights[flight.place_and_key] = flight
            return False
        flight.lands()
        flight.disembark()
        return True

    def was_made(self, flight: SharedCall) -> None:
        """Its result was stored now, so it answers further calls, in refresh mode too."""
        if flight.place.cache.mode == "refresh":
            self._fresh.add(flight.place_and_key)

    # -- the end ---------------------------------------------------------------------------------------

    def forget(self, flight: SharedCall) -> list[CachedFuture]:
        """The flight lands, in this thread; the futures that are still on board."""
        self._landing[flight] = threading.get_ident()
        return under(self.lock, self._forget, flight)

    def _forget(self, flight: SharedCall) -> list[CachedFuture]:
        if flight.has_key and self._flights.get(flight.place_and_key) is flight:
            del self._flights[flight.place_and_key]
        return flight.lands()

    def over(self, flight: SharedCall) -> None:
        """Nothing is left to do of it."""
        under(self.lock, self._all.discard, flight)
        self._landing.pop(flight, None)
        self._end_if_over()

    def _end_if_over(self) -> None:
        """May be done twice: what an exception interrupts is done again by who waits for the end."""
        if self._closing and under(self.lock, self._has_ended):
            with contextlib.suppress(InvalidStateError):  # another thread has said so
                self._over.set_result(None)
            self.tasks.close()
            self.inner.close(False)

    def _has_ended(self) -> bool:
        return not self._all

    def cancel_pending(self) -> None:
        self.inner.cancel_pending()

    def kill(self, signum: int) -> None:
        self._closing = True
        self.inner.kill(signum)
        self._end_if_over()

    def interrupt(self) -> None:
        self._closing = True
        self.inner.interrupt()
        self._end_if_over()

    def close(self, wait: bool) -> None:
        self._closing = True
        self._end_if_over()
        if wait and not self._forked and threading.get_ident() not in tuple(self._landing.values()):
            self._over.result()
            self.inner.close(True)
            self.tasks.join()

    def begin_end(self) -> None:
        self._closing = True
        self._end_if_over()

    def wait_for_end(self) -> None:
        self._over.result()
        self.tasks.join()

    @property
    def description(self) -> str:
        mode = "" if self._cache.mode == "use" else f" ({self._cache.mode})"
        return f"{self.inner.description}, remembers in {self._cache.path}{mode}"

    def after_fork(self) -> None:
        """In a forked child: the calls on their way are the parent's, and so is the thread for tasks."""
        self._forked = True
        self.lock = new_lock()
        self._flights.clear()
        self._all.clear()
        with contextlib.suppress(InvalidStateError):
            self._over.set_result(None)


def _in_forked_child() -> None:
    for front in list(_fronts):
        front.after_fork()


os.register_at_fork(after_in_child=_in_forked_child)
