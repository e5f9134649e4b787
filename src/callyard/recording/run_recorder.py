"""The recorder of a run: notes from all threads become events, in a thread of its own.

    any thread                                       the thread "callyard-events"
    submitted, started, waiting, end of a future --> numbers, names, places --> RunRecord, file, function, log

A note is put into a queue, without a wait: `SimpleQueue.put` may interrupt itself, so a finalizer may submit a call in
the middle of it. The thread takes notes in bundles, so that a program with many short calls is interrupted seldom.

Notes of one call come in their order, with one exception: a call may begin before `submit` has returned, so before the
note of its submission. Such a note is kept until then.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar

from ..dependencies.replace_futures import find_futures
from ..events.call_record import RunRecord
from ..events.event import Ended, Event, RunBegan, RunEnded, Started, Submitted, Waiting
from ..events.recorder import NoRecord
from ..futures import Future
from ..resources import Resources
from ..utils.identity_cache import IdentityCache
from ..utils.threads import LazyThread, next_item
from .call_notes import EndNote, FutureNumbers, bases_of, failure_of, note_of_end, user_line
from .reasons import WaitingCalls
from .targets import Target

__all__ = ["RunRecorder"]

_log = logging.getLogger("callyard")
_LATENCY = 1.0  # s until a note is in the record, if no target is in more of a hurry
# While a bundle is turned into events, the thread that serves workers waits for the interpreter's lock. So bundles are
# small, and there are pauses between them; behind a long queue they grow.
_BUNDLE, _SHARE = 32, 32  # notes, and the part of the queue
_PAUSE = 0.001  # s
_WRITE = 1.0  # s between two appends to a file while the queue does not get empty
_PATIENCE = 10.0  # s for the last events at the end of the interpreter

F = TypeVar("F", bound=Future[Any])
_Note = Callable[[], object]


class RunRecorder:
    """The recorder of one executor's calls; a `Recorder` for its backend.

    `record` has all calls up to the last bundle of notes; `flush` waits for the notes so far. Only the recorder's
    thread changes it. A forked child records nothing.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self.record = RunRecord()
        self.run = os.urandom(6).hex()
        self._targets = targets
        self._latency = min((target.latency for target in targets), default=_LATENCY)
        self._notes: queue.SimpleQueue[_Note] = queue.SimpleQueue()
        self._hurry: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = LazyThread("callyard-events")
        self._order = count()
        self._asked: IdentityCache[Resources, Mapping[str, object]] = IdentityCache()
        self._closing = self._ended = self._forked = False
        self._wanted: set[threading.Lock] = set()  # of threads that wait for the notes so far
        # Of the thread:
        self._events: list[Event] = []  # of this bundle
        self._written = 0.0  # monotonic clock (s)
        self._numbers = FutureNumbers()
        self._open: set[int] = set()  # the calls that have not ended
        self._waiting = WaitingCalls()
        _recorders.add(self)

    # -- from any thread -------------------------------------------------------------------------------

    def begin(self, executor: str, capacity: Mapping[str, int]) -> None:
        """Note the begin of the run. `executor` describes it, `capacity` are the resources that there are."""
        script = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else ""
        began = RunBegan(time.time(), self.run, socket.gethostname(), os.getpid(), script, executor, dict(capacity))
        self._put(partial(self._emit, began))

    def submit(
        self, submit: Callable[..., F], fn: Callable[..., Any], args: Any, kwargs: Any, resources: Resources
    ) -> F:
        """Submit a call by `submit(fn, args, kwargs, resources)`; return its future, whose end is noted, too."""
        now = time.time()
        # Before the submission: a call may open its inputs at once.
        inputs = bases_of(find_futures((args, kwargs))) if args or kwargs else []
        future = submit(fn, args, kwargs, resources)
        if self._forked:
            return future
        try:
            number = next(self._order)
            name = getattr(future, "name", None) or getattr(fn, "__name__", None) or type(fn).__name__
            self._put(
                partial(
                    self._submitted,
                    now,
                    number,
                    name,
                    user_line(),
                    self._asked.of(resources, Resources.asked),
                    inputs,
                    future,
                )
            )
            future.add_done_callback(partial(self._note_end, number))
        except BaseException:  # as Ctrl-C: no user is going to have this future
            future.cancel()
            raise
        return future

    def started(
        self,
        future: object,
        host: str,
        worker: str = "",
        attempt: int = 1,
        job_id: str | None = None,
        time: float | None = None,
    ) -> None:
        now = _now() if time is None else time
        self._put(partial(self._tell, future, lambda call: Started(now, call, host, worker, attempt, job_id)))

    def waiting(self, future: object, reason: str = "", job_id: str | None = None) -> None:
        now = _now()
        self._put(partial(self._tell, future, lambda call: Waiting(now, call, reason, job_id)))

    def stands_for(self, inner: object, future: object) -> None:
        self._put(partial(self._stand_for, inner, future))

    def _note_end(self, number: int, future: Any) -> None:
        self._put(partial(self._end, number, note_of_end(future, time.time())))

    def flush(self, patience: float | None = None) -> bool:
        """Wait until all that was noted so far is in the record and with the targets; return False if it is not.

        A function that takes events may ask for the record, in the recorder's thread: there is no wait then.
        """
        if self._forked or not self._thread.started or self._ended:
            return True
        if self._thread.is_current:
            return False
        done = threading.Lock()
        done.acquire()
        self._wanted.add(done)
        self._put(partial(self._told, done))
        self._hurry.put(None)
        return done.acquire(timeout=_PATIENCE if patience is None else patience)

    def close(self, wait: bool = False) -> None:
        """End when all calls have ended; with `wait`, return only then if they have."""
        self._closing = True
        if self._forked or not self._thread.started:
            return
        self._put(_nothing)
        self._hurry.put(None)
        # A callback in the thread that ends the futures may shut down the executor; others have not ended then.
        if wait and self.flush(threading.TIMEOUT_MAX) and not self._open:
            self._thread.join()

    def close_at_exit(self) -> None:
        """End now: no thread is left that could end a call."""
        if not (self._forked or self._ended) and self._thread.started:
            self._put(self._open.clear)
            if self.flush():  # otherwise the user's function, or the disk, takes no more events
                self.close(wait=True)

    def _put(self, note: _Note) -> None:
        if self._forked:
            return
        self._notes.put(note)
        if not self._thread.started:
            try:
                self._thread.start(self._run)
            except RuntimeError:  # no thread can be started now: the next note tries again
                _log.debug("events wait for a thread", exc_info=True)

    def after_fork(self) -> None:
        self._forked = True

    def __reduce__(self) -> Any:
        return NoRecord, ()  # another computer measures, and tells this one

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            self._take_notes()
            if self._closing and not self._open and self._notes.empty():
                self._emit(RunEnded(time.time()))
                self._ended = True
            self._deliver()
            if self._ended or self._notes.empty() or time.monotonic() > self._written + _WRITE:
                self._write()

    def _take_notes(self) -> None:
        """Wait for notes and take a bundle; without any for a while, ask waiting calls for their reasons."""
        try:
            note = next_item(self._notes, self._waiting.patience(time.monotonic()))
        except queue.Empty:
            self._ask_waiting()
            return
        _safely(note)
        if not (self._closing or self._wanted):
            self._gather(_PAUSE if self._notes.qsize() > _BUNDLE else self._latency)
        left = self._notes.qsize()
        for _ in range(left if self._closing or self._wanted else max(_BUNDLE, left // _SHARE)):
            if self._notes.empty():
                break
            _safely(self._notes.get())
        self._ask_waiting()

    def _gather(self, seconds: float) -> None:
        try:
            next_item(self._hurry, seconds)
        except queue.Empty:
            pass

    def _ask_waiting(self) -> None:
        """Ask waiting calls for their reasons, if it is time to."""
        if self._waiting.patience(time.monotonic()) != 0.0:
            return
        for number, status, job_id in self._waiting.ask(time.monotonic()):
            now = time.time()
            if status.state == "running":  # by the word of the future: few backends tell no starts
                self._emit(Started(now - (status.seconds or 0.0), number, status.host, status.worker, 1, job_id))
            else:
                self._emit(Waiting(now, number, status.reason, job_id))

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        self.record.apply(event)

    def _deliver(self) -> None:
        events, self._events = self._events, []
        for target in self._targets if events else ():
            _safely(partial(target.take, self.run, events))

    def _write(self) -> None:
        self._written = time.monotonic()
        for target in self._targets:
            _safely(target.write)

    def _told(self, done: threading.Lock) -> None:
        self._deliver()
        self._write()
        self._wanted.discard(done)
        done.release()

    def _submitted(
        self, now: float, number: int, name: str, line: str, asked: Mapping[str, object], inputs: list[Any], future: Any
    ) -> None:
        self._open.add(number)
        known = self._numbers.of_all(inputs)
        self._emit(Submitted(now, number, name, line, asked, known, getattr(future, "key", None)))
        reason = self._waiting.add(number, future, inputs, time.monotonic())
        if reason:
            self._emit(Waiting(now, number, reason))
        for kept in self._numbers.give(future, number):
            self._emit_for(kept(number))

    def _tell(self, future: Any, event_for: Callable[[int], Started | Waiting]) -> None:
        for number in self._numbers.of(future, event_for):
            self._emit_for(event_for(number))

    def _stand_for(self, inner: Any, future: Any) -> None:
        for number, event_for in self._numbers.stand_for(inner, future):
            self._emit_for(event_for(number))

    def _emit_for(self, event: Started | Waiting) -> None:
        if event.call not in self._open:
            return
        if isinstance(event, Started):
            self._waiting.discard(event.call)
        else:
            self._waiting.again(event.call, event.reason, time.monotonic())
        self._emit(event)

    def _end(self, number: int, note: EndNote) -> None:
        if number not in self._open:  # told twice, after an interruption
            return
        self._open.discard(number)
        self._waiting.forget(number)
        failure = None if note.failure is None else failure_of(note.failure)
        outcome, begun = note.outcome, self.record.calls[number].started is not None
        if outcome == "finished" and note.has_cache and not begun and note.usage is None:
            outcome = "cached"  # while it waited: another call, or another process, has stored the result
        elif not begun and (outcome == "finished" or note.usage is not None):  # its backend has told no start
            self._emit(Started(note.time - (0.0 if note.usage is None else note.usage.wall), number))
        self._emit(Ended(note.time, number, outcome, note.key, failure, note.usage))


def _now() -> float:
    return time.time()


def _safely(step: Callable[[], object]) -> None:
    """Take a step; a fault in one must not end the thread."""
    try:
        step()
    except BaseException:  # opening an error runs the user's code
        _log.exception("callyard: an event could not be recorded")


def _nothing() -> None:
    """Do nothing: as a note, this wakes the thread."""


_recorders: weakref.WeakSet[RunRecorder] = weakref.WeakSet()


def _at_exit() -> None:
    for recorder in list(_recorders):
        recorder.close_at_exit()


def _in_forked_child() -> None:
    for recorder in list(_recorders):
        recorder.after_fork()


atexit.register(_at_exit)  # when no thread of the program is left: all calls have ended
os.register_at_fork(after_in_child=_in_forked_child)
