"""Threads started at their first use, and a limiter that calls back instead of blocking a thread.

`threading.Thread.start` and `concurrent.futures.ThreadPoolExecutor` hold internal locks while a thread starts. A
finalizer that submits a call at that moment, or a handler of Ctrl-C, would wait for a lock of its own thread for ever;
so nothing here waits for a lock of the same thread.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
from collections.abc import Callable, Hashable
from functools import partial
from time import monotonic
from typing import TypeVar

from .backoff import Backoff
from .locks import new_lock, under

__all__ = ["CapacityLimiter", "LazyThread", "TaskThread", "next_item"]

T = TypeVar("T")

_log = logging.getLogger("callyard")
_SHORTEST = 0.001  # s; the shortest time-out
_SOONEST, _LATEST, _SLOWER = 0.01, 1.0, 1.5  # s between two rounds of polling, and their growth

# These versions start no thread once the main thread has ended, though calls may still be unfinished then.
_NO_LATE_THREADS = (3, 12, 0) <= sys.version_info < (3, 12, 2)


class LazyThread:
    """A thread started by the first call of `start`, from any thread or from a finalizer in the middle of `start`.

    There is no lock. Each caller that sees `started` false starts a thread; the first thread to arrive does the work,
    the others end at once. So an exception in the middle of a start, before or after the thread exists, does no harm:
    the next caller starts another.
    """

    def __init__(self, name: str) -> None:
        self.started = False
        self._name = name
        self._threads: list[threading.Thread] = []
        self._arrived: list[threading.Thread] = []  # the first of these threads does the work
        self._starter: int | None = None  # the id of the thread inside `start`

    def start(self, run: Callable[[], object]) -> None:
        """Start the thread once. Raise RuntimeError, with nothing changed, if no thread can be started."""
        self._once(partial(self._start, run))

    @property
    def is_current(self) -> bool:
        """True in the thread itself."""
        return threading.current_thread() in self._threads

    def join(self) -> None:
        """Wait for the thread's end; in the thread itself do nothing."""
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                with contextlib.suppress(RuntimeError):  # an exception has prevented the start
                    thread.join()

    def _once(self, start: Callable[[], object]) -> None:
        me = threading.get_ident()
        if self.started or self._starter == me:  # the latter in a finalizer: `Thread.start` holds internal locks
            return
        try:
            self._starter = me
            start()
            self.started = True  # not after the `finally`, where an exception may arrive
        finally:
            self._starter = None

    def _start(self, run: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._work, args=(run,), name=self._name, daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.remove(thread)
            raise

    def _work(self, run: Callable[[], object]) -> None:
        me = threading.current_thread()
        self._arrived.append(me)
        if self._arrived[0] is me:
            self.started = True  # here too, because effects of the work may be seen before `start` returns
            run()


def next_item(items: queue.SimpleQueue[T], patience: float | None) -> T:
    """Return the next item of a queue. Raise queue.Empty if none comes in this time (s); None: wait without limit.

    A time-out of some microseconds is avoided: after one, `SimpleQueue.get` of Python 3.10 may wait for ever.
    """
    return items.get(patience is None or patience > 0.0, patience and max(patience, _SHORTEST))


class TaskThread:
    """A thread for tasks that would block other threads: files, the user's own code, and polling.

    Tasks run one after the other, in the order of submission.
    """

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._polled: list[Callable[[], bool]] = []
        self._thread = LazyThread(name)
        self._closed = False

    def prepare(self) -> None:
        """Start the thread now on versions that cannot start one later: tasks may come at the interpreter's end."""
        if _NO_LATE_THREADS:
            self._thread.start(self._run)

    def submit(self, task: Callable[[], object]) -> None:
        """Run the task in the thread. After `close` nothing is run."""
        if not self._closed:  # afterwards no thread shall start, because the interpreter may be ending
            self._queue.put(task)
            try:
                self._thread.start(self._run)
            except RuntimeError:
                raise
            except BaseException:  # interrupted while starting the thread, with the task in the queue
                self._thread.start(self._run)
                raise

    def poll(self, question: Callable[[], bool]) -> None:
        """Ask until the answer is True: soon, then less and less often."""
        self.submit(lambda: self._polled.append(question))

    def close(self) -> None:
        """End after the tasks already in the queue, without further polling."""
        self._closed = True
        self._queue.put(None)

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        round_ = Backoff(_SOONEST, _LATEST, _SLOWER)
        while True:
            try:
                left = max(0.0, round_.at - monotonic()) if self._polled else None
                task = next_item(self._queue, left)
            except queue.Empty:
                self._poll_all(round_)
                continue
            if task is None:
                return
            before = len(self._polled)
            _safely(task)
            del task  # otherwise the call's arguments stay alive until the next task
            if len(self._polled) > before:
                round_.begin(monotonic() + _SOONEST)
            elif self._polled and monotonic() >= round_.at:  # however many tasks there are
                self._poll_all(round_)

    def _poll_all(self, round_: Backoff) -> None:
        self._polled = [question for question in self._polled if not _safely(question)]
        round_.at = monotonic() + round_.next_pause()


def _safely(step: Callable[[], object]) -> bool:
    """Return the truth of the step's result; a fault in one must not end the others."""
    try:
        return bool(step())
    except BaseException:  # the user's callbacks run here too, and one may exit
        _log.exception("callyard: a task of the cache failed")
        return True


class CapacityLimiter:
    """A semaphore without waiting threads: each holder is called back when a place is free.

    A holder calls `release` at the end, perhaps repeatedly, because an exception may interrupt the end, here too.
    """

    def __init__(self, places: int | None) -> None:
        self._places = places
        self._lock = new_lock()  # reentrant: a finalizer may acquire or release while this thread has the lock
        self._holders: set[Hashable] = set()
        self._waiting: dict[Hashable, Callable[[], object]] = {}
        self._to_call: dict[Hashable, Callable[[], object]] = {}  # new holders not called back yet

    def acquire(self, holder: Hashable, start: Callable[[], object]) -> bool:
        """Return True if a place is free; otherwise the thread that releases one will call `start()`.

        If an exception interrupts `start()`, a second call follows.
        """
        return self._places is None or under(self._lock, self._acquire, holder, start)

    def release(self, holder: Hashable) -> None:
        if self._places is None:
            return
        try:
            under(self._lock, self._release, holder)
            self._call_back()  # without the lock, because callbacks may do anything
        except BaseException:
            under(self._lock, self._release, holder)
            self._call_back()
            raise

    def _acquire(self, holder: Hashable, start: Callable[[], object]) -> bool:
        if not self._waiting and len(self._holders) < (self._places or 1):
            self._holders.add(holder)
            return True
        self._waiting[holder] = start
        return False

    def _release(self, holder: Hashable) -> None:
        self._holders.discard(holder)
        self._waiting.pop(holder, None)
        while self._waiting and len(self._holders) < (self._places or 1):
            first = next(iter(self._waiting))
            self._to_call[first] = self._waiting[first]
            self._holders.add(first)
            del self._waiting[first]  # last: after an exception in between, the holder is called back, perhaps twice

    def _call_back(self) -> None:
        for holder, start in tuple(self._to_call.items()):
            start()
            self._to_call.pop(holder, None)
