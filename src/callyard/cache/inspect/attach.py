"""Futures of calls running in other processes."""

from __future__ import annotations

import os
import queue
import threading
from typing import Any

from ...errors import CacheError, WorkerLost
from ...futures import Future
from ...utils.backoff import Backoff
from ...utils.locks import new_lock, under
from ..claims import Claims
from ..directory import CacheDirectory
from ..lookup import CachedResult, find
from .find import NoEntry

__all__ = ["future_of"]

_SOONEST, _LATEST, _SLOWER = 0.02, 1.0, 1.5  # the first and longest pause between two looks (s), and its growth


class _AttachedFuture(Future[Any]):
    """The future of a call submitted by another process."""

    __slots__ = ("_cached", "_claims", "_directory", "_key", "_where", "result_token")

    def __init__(self, directory: CacheDirectory, claims: Claims, key: str, name: str, cached: bool) -> None:
        super().__init__(name)
        self._directory, self._claims, self._key, self._cached = directory, claims, key, cached
        self._where = ""  # the running process, in words for people
        self.result_token: bytes | None = None  # the token of the result as an argument

    @property
    def key(self) -> str:
        return self._key

    @property
    def cached(self) -> bool:
        return self._cached

    def look(self) -> bool:
        """End the future if the call has ended; return True if the future has ended."""
        if self.done():
            return True
        directory, key = self._directory, self._key
        try:
            # Read the claim before the result, because a result is stored before its claim is released.
            holder = self._claims.holder(key)
            found = find(directory, key)
            self._where = "" if holder is None else holder.awaited(key, directory.path)
            if found is None and holder is not None and holder.state() != "gone":
                return False
            found = found or find(directory.failures, key)
            return self.end_with(found) if found is not None else self.fail_with(_lost(self.name, key, self._where))
        except Exception as error:  # a damaged or deleted cache must end the future, or waiting threads would hang
            return self.fail_with(error)

    def _state_word(self) -> str:
        return super()._state_word() if self.done() else f"running, by {self._where}"

    def end_with(self, found: CachedResult) -> bool:
        self.result_token = found.token
        return self.fail(found) if found.failed else self.finish(found)


def _lost(name: str, key: str, where: str) -> Exception:
    if where:
        return WorkerLost(f"{where} ran {name!r} (key {key}) and is gone, without a result: submit the call again")
    return CacheError(
        f"the run of {name!r} (key {key}) has ended and no result was stored: it failed, or was cancelled; "
        "submit the call again to see"
    )


def future_of(directory: CacheDirectory, claims: Claims, key: str) -> Future[Any]:
    """Return the future of a stored or running call. Raises NoEntry for any other call."""
    holder = claims.holder(key)
    found = find(directory, key) or (find(directory.failures, key) if holder is None else None)
    if found is not None:
        future = _AttachedFuture(directory, claims, key, found.name, True)
        future.end_with(found)
    elif holder is not None:
        future = _AttachedFuture(directory, claims, key, holder.name, False)
        if not future.look():
            future.set_running_or_notify_cancel()
            _watch(future)
    else:
        raise NoEntry(f"the call {key!r} is neither stored in {directory.path} nor running")
    return future


# ------------------------------------------------------------------ one thread for all futures, as long as any is open

_lock = new_lock()  # reentrant, because a finalizer may run while this thread holds the lock
_watched: list[_AttachedFuture] = []
# An item ends the pause of the thread, because a new future waits for its first look.
_wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
_thread: threading.Thread | None = None


def _begin_child() -> None:
    """Start afresh in a forked child, which has no copy of the thread."""
    global _lock, _watched, _wakeups, _thread
    _lock, _wakeups, _thread = new_lock(), queue.SimpleQueue(), None
    _watched = []


os.register_at_fork(after_in_child=_begin_child)


def _watch(future: _AttachedFuture) -> None:
    under(_lock, _add_watched, future)


def _add_watched(future: _AttachedFuture) -> None:
    global _thread
    _watched.append(future)
    _wakeups.put(None)
    if _thread is None:
        thread = threading.Thread(target=_look_in_rounds, name="callyard-look", daemon=True)
        thread.start()
        _thread = thread  # only after the start, which an exception may prevent


def _look_in_rounds() -> None:
    global _thread, _watched
    pauses = Backoff(_SOONEST, _LATEST, _SLOWER)
    while True:
        # Under one lock with `_add_watched`: a future is added either before this look, or after `_thread` is None, and
        # then starts a new thread.
        with _lock:
            _watched = [future for future in _watched if not future.done()]
            if not _watched:
                _thread = None
                return
            round_ = list(_watched)
        for future in round_:  # without the lock, because each look reads files, and callbacks run user code
            future.look()
        if _woken(pauses.next_pause()):
            pauses.reset()


def _woken(patience: float) -> bool:
    try:
        _wakeups.get(timeout=patience)
    except queue.Empty:
        return False
    return True
