"""The worker pool: calls run in worker processes of this machine, from the first call to the last process's end.

An executor's backend, or an agent on another machine, calls `WorkerPool`; the life cycle is here, and the loop of the
I/O thread. The parts are, each on top of the one before:

    worker_placement    decisions on which call runs on which worker, and when
    dispatcher          calls of any thread are sent as decided; order again after an interruption
    worker_events       messages from workers and from the zygote; ends of workers
    worker_starter      starts of workers
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from ..errors import WorkerLost
from ..events.recorder import Recorder
from ..futures import Future, ends_futures
from ..serialize.packer import Packer
from ..serialize.shared_memory import SegmentPool
from ..status.call_status import CallStatus
from ..status.executor_status import ExecutorStatus
from ..system.descriptors import make_room
from ..transport.event_loop import EventLoop
from . import pool_status
from .call import Call
from .dispatcher import Dispatcher, decide_again
from .threaded_runner import ThreadedRunner
from .worker_connection import EACH, PART
from .worker_events import WorkerEvents
from .worker_placement import WorkerPlacement
from .worker_starter import WorkerStarter

_log = logging.getLogger("callyard")
_SOON = 0.01  # s between two looks at a call that is to be ended, and waits behind another one


class ExtraSocket(Protocol):
    """Another source of events for the I/O thread of a pool: on another machine, the driver."""

    def watch(self, loop: EventLoop) -> None:
        """Register the sockets."""

    def before_waiting(self) -> bool:
        """Send the messages collected since the last call; return True if messages may have come in meanwhile."""


class WorkerPool(ThreadedRunner):
    """A pool of worker processes of this machine. It is made idle: the first call starts thread and processes."""

    def __init__(
        self,
        placement: WorkerPlacement,
        segments: SegmentPool,
        packer: Packer,
        initializer: bytes | None = None,
        expecting: Callable[[], bool] = lambda: False,
        beside: ExtraSocket | None = None,
    ) -> None:
        """Make the pool; `expecting` returns True if calls may still come after `close`."""
        super().__init__()
        self._dispatcher = Dispatcher(placement, self._io.wake)
        self._beside = beside
        self._segments, self._packer, self._initializer = segments, packer, initializer
        self._expecting = expecting
        self._signal: int | None = None  # to be sent to all workers
        self._unwanted: deque[Call] = deque()  # to be ended
        self._killed_elsewhere = False  # another process sends SIGKILL to calls without a grace of their own
        self._events: WorkerEvents | None = None  # this and the next belong to the I/O thread
        self._starter: WorkerStarter | None = None
        self._register()

    # -- from any thread -------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Run the call when there is room.

        Raises:
            RuntimeError: no thread can be started.
        """
        if not self._io.started:
            self.prepare()
        dispatcher = self._dispatcher
        if threading.get_ident() != dispatcher.io_thread:
            dispatcher.tell(call)
        else:
            dispatcher.inbox.append(call)  # from a callback: the inbox is emptied after the callbacks

    def look_again(self) -> None:
        """Decide again after a call was cancelled or ended elsewhere: others may go on, or the pool may end."""
        self._dispatcher.tell(decide_again)
        if self._dispatcher.closing:
            self._io.wake()

    def cancel_waiting(self, all_of_them: bool) -> None:
        """Cancel the calls that have not been sent to a worker. A finalizer may ask for this while the lock is held.

        Without `all_of_them`, calls with a starting worker count as begun.
        """
        waiting = self._dispatcher.droppable(all_of_them)
        self._dispatcher.tell(partial(self._dispatcher.drop_waiting, all_of_them))
        # Another thread may be in the middle of a decision, and drop them after it; but whoever cancels looks at the
        # futures next. A finalizer in a decision leaves them to that, as callbacks run.
        if not self._dispatcher.lock._is_owned():
            for call in waiting:
                call.future.cancel()

    def let_idle_workers_go(self) -> None:
        """Retire the idle workers, because another process is going to use their resources."""
        self._dispatcher.tell(self._dispatcher.placement.retire_idle)

    def prepare(self) -> None:
        """Start the I/O thread, because a call is going to come; from now on the interpreter waits for the pool."""
        if not self.forked:
            self._io.start_with(self._run, self._make_loop)

    def record_in(self, recorder: Recorder) -> None:
        super().record_in(recorder)
        self._dispatcher.recorder = recorder

    def close(self) -> None:
        # The flag before the wake-up, which the thread answers with a look at the flag.
        self._dispatcher.closing = True
        self._io.wake()

    def kill(self, signum: int) -> None:
        """End the workers by a signal, and the pool. Running calls fail; the caller cancels waiting ones before."""
        self._dispatcher.closing = True
        self.signal(signum)

    def signal(self, signum: int) -> None:
        """End the workers by a signal. Running calls fail and later ones are cancelled, but the pool goes on."""
        self._signal = signum
        self._dispatcher.killed = self._dispatcher.killed_by_executor = True
        self._io.wake()

    def terminate(self) -> None:
        """End the workers by SIGTERM, begin no other call, and cancel the waiting ones; the pool goes on.

        SIGKILL follows after the `grace` of a call's own; without one, SIGKILL is left to the scheduler.
        """
        self._signal, self._killed_elsewhere = signal.SIGTERM, True
        self._dispatcher.killed = True
        self.cancel_waiting(True)
        self._io.wake()

    def can_end(self, call: Call) -> bool:
        return True

    def end_call(self, call: Call) -> bool:
        call.unwanted = True
        self._unwanted.append(call)
        self._io.wake()
        return not call.future.done()

    def placed(self, future: Future[Any]) -> CallStatus | None:
        return pool_status.placed(self._dispatcher, future)

    def add_status(self, status: ExecutorStatus) -> None:
        pool_status.add_status(self._dispatcher, status)

    def placed_calls(self) -> list[Call]:
        return pool_status.placed_calls(self._dispatcher)

    # -- the I/O thread --------------------------------------------------------------------------------

    def _make_loop(self) -> EventLoop:
        placement = self._dispatcher.placement
        make_room(PART * EACH * min(placement.max_workers, placement.capacity.cores))
        loop = EventLoop(self._woken)
        if self._beside is not None:
            self._beside.watch(loop)
        return loop

    def _run(self, loop: EventLoop) -> None:
        dispatcher = self._dispatcher
        dispatcher.io_thread = threading.get_ident()
        ends_futures(self.look_again)
        try:
            wake = self._io.wake
            self._events = events = WorkerEvents(dispatcher, loop, wake)
            self._starter = WorkerStarter(dispatcher, events, loop, self._packer, self._initializer, wake)
            while not self._is_over():
                dispatcher.run_interrupted()
                dispatcher.pump()  # a thread that left an event while this one held the lock relies on this
                patience = self._patience()
                # Messages taken in here may be calls: the round begins anew, before any sleep.
                if self._beside is not None and self._beside.before_waiting():
                    continue
                loop.step(patience)
                self._look_after(events, self._starter)
                if self._unwanted:
                    self._end_unwanted()
        except BaseException as error:  # no descriptors left, a callback that exits, or a fault of ours
            self._give_up(error)
        finally:
            self._end(loop)

    def _patience(self) -> float | None:
        """Return the seconds for which the loop may wait for events."""
        times = [part.patience() for part in (self._events, self._starter) if part is not None]
        times += [_SOON] if self._unwanted else []
        return min((time for time in times if time is not None), default=None)

    @staticmethod
    def _look_after(events: WorkerEvents, starter: WorkerStarter) -> None:
        """Make the checks that depend on the clock, and have no event."""
        events.withdraw_stalled(time.monotonic())
        events.streams.retry()
        starter.retry(time.monotonic())
        events.check_zygote(time.monotonic())

    def _woken(self) -> None:
        """Do the work that other threads have left to this one."""
        dispatcher, events, starter = self._dispatcher, self._events, self._starter
        assert events is not None, "the loop steps only after both were made"
        assert starter is not None
        with dispatcher.lock:
            # First: an interrupted decision must be in order before anything is sent.
            dispatcher.run_deferred()
            connections = list(dispatcher.connections.values())
            for connection in connections:
                connection.catch_up()
            refused = [(connection, ends) for connection in connections if (ends := connection.refused())]
            dispatcher.starting, dispatcher.to_start = dispatcher.to_start, []
            blocked = events.streams.take()
        # Without the lock from here on: futures end, and their callbacks may submit calls.
        for connection, ends in refused:
            events.settle(connection, ends)
        starter.start_all()
        for stream in blocked:
            events.streams.attend(stream)
        self._send_signal()

    def _end_unwanted(self) -> None:
        """End the calls that a person does not want any more."""
        with self._dispatcher.lock:
            unwanted = [self._unwanted.popleft() for _ in range(len(self._unwanted))]
            behind = [call for call in unwanted if not (call.future.done() or self._dispatcher.end_unwanted(call))]
        # Those wait behind another call of a worker, and will begin, or be taken back.
        self._unwanted.extend(call for call in behind if not call.future.cancel())
        self._dispatcher.inbox.append(decide_again)  # without those that waited

    def _send_signal(self) -> None:
        dispatcher = self._dispatcher
        if self._signal is not None and dispatcher.zygote is not None:
            with dispatcher.lock:
                for number, connection in dispatcher.connections.items():
                    grace = dispatcher.longest_grace(connection, asked_for=self._killed_elsewhere)
                    dispatcher.zygote.kill(number, self._signal, grace)
            self._signal = None

    # -- the end ---------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        return self._dispatcher.stop_if_done(self._expecting)

    def _give_up(self, error: BaseException) -> None:
        """Fail all calls of this pool, which can do no more, so that no thread waits for ever."""
        _log.exception("this executor cannot go on")
        for call in self._dispatcher.stop():
            name = call.future.name
            broken = WorkerLost(f"{name!r} has no result, because its executor cannot go on: {error}; make a new one")
            broken.__cause__ = error
            call.future.fail_with(broken)

    def _end(self, loop: EventLoop) -> None:
        """Let the workers end, then the zygote; close everything."""
        dispatcher = self._dispatcher
        # First: from now on every other thread refuses its own calls, see `Dispatcher.pump`.
        dispatcher.stopped = True
        dispatcher.cancel_dropped()
        dispatcher.pump()  # calls that came too late are refused
        for connection in dispatcher.connections.values():
            connection.leave()
        # The zygote outlives the workers, and ends the ones that do not end by themselves.
        if dispatcher.zygote is not None:
            with dispatcher.lock:
                dispatcher.zygote.end(dispatcher.grace)
            dispatcher.zygote.join()
            dispatcher.zygote.close()
        for connection in dispatcher.connections.values():
            connection.close()
        dispatcher.connections.clear()
        loop.close()
        self._segments.close()

    # -- forks -----------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        # First: from now on a finalizer that submits sends nothing to the original's workers.
        self._dispatcher.forked = True
        super().after_fork()

    def open_sockets(self) -> list[socket.socket]:
        dispatcher = self._dispatcher
        sockets = [sock for connection in dispatcher.connections.values() for sock in connection.sockets()]
        if dispatcher.zygote is not None:
            sockets.append(dispatcher.zygote.stream.sock)
        return sockets
