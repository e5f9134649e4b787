"""A node: the pool's decisions carried out with processes and sockets.

    any thread                           the I/O thread of the node
    ------------------------------------ -------------------------------------------
    start(call) -> inbox --.             results, ends of workers -> inbox --.
                           v                                                 v
                 whoever gets the lock empties the inbox into the pool,
                 and sends what the pool decides, without blocking
                                          then ends futures, without the lock

`start` never waits for the lock: it leaves the call in the inbox, and who holds the lock looks there again after
letting go. So a finalizer or a callback may submit a call at any moment, even in the middle of a decision.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from ..futures import Future
from ..wire.frames import Frame
from ..wire.memory import Segments
from ..wire.packing import Packer
from .call import Call
from .connection import Connection, Ended
from .keeper import Keeper
from .losses import PackedError, initializer_failed, lost_error
from .pool import Pool, Retire, Send, Start, Worker
from .stream import Stream

_STALL = 0.01  # s after which calls are taken back from behind one that runs
_GRACE = 5.0  # s that a worker has to end by itself

_nodes: weakref.WeakSet[Node] = weakref.WeakSet()


class Node:
    """Runs calls in worker processes of this machine. Made idle: the first call starts thread and processes."""

    def __init__(self, pool: Pool, segments: Segments, packer: Packer, initializer: bytes | None = None) -> None:
        self.pool = pool
        self._segments = segments
        self._packer = packer
        self._initializer = initializer
        self._inbox: deque[Any] = deque()
        self._lock = threading.Lock()
        self._connections: dict[int, Connection] = {}
        self._keeper: Keeper | None = None
        self._to_start: list[Worker] = []
        self._blocked: list[Stream] = []
        self._thread: threading.Thread | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._closing = False
        self._signal: int | None = None  # to be sent to all workers
        self._killed = False
        self._expecting: Callable[[], bool] = bool  # whether calls may still come after closing
        self._over = False  # the I/O thread takes no more calls
        self._forked = False
        _nodes.add(self)

    # -- from any thread -------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Run the call when there is room for it."""
        self._inbox.append(call)
        if threading.current_thread() is not self._thread:  # that one empties the inbox after its callbacks
            self._pump()

    def look_again(self) -> None:
        """Something was cancelled, or ended elsewhere: perhaps others can go on, or the node can end."""
        self._inbox.append(_nothing)
        self._pump()
        if self._closing:
            self._wake()

    def check_usable(self) -> None:
        if self._forked:
            raise RuntimeError(
                "this executor belongs to the process that forked this one, and cannot be used here; make a new one"
            )

    def after_fork(self) -> None:
        """In a forked child: this copy can do nothing, and must not hold the connections of the original open."""
        self._forked = True
        streams = [connection.stream for connection in self._connections.values()]
        if self._keeper is not None:
            streams.append(self._keeper.stream)
        for sock in (*(stream.sock for stream in streams), *(self._waker or ())):
            with contextlib.suppress(OSError):
                sock.close()

    def drain(self) -> list[Future[Any]]:
        """The calls that have not been sent to a worker, which now will not be."""
        with self._lock:
            self._take_in()
            calls = self.pool.drain()
        return [cast(Call, call).future for call in calls]

    def close(self, expecting: Callable[[], bool] = bool) -> None:
        """Take the calls that are there to their ends, and those that `expecting()` says may come; then end."""
        self._expecting = expecting
        self._closing = True
        self._wake()

    def kill(self, signum: int) -> None:
        """End the workers by a signal, and the node. What runs fails; what waits must be cancelled before."""
        self._signal = signum
        self._killed = self._closing = True
        self._wake()

    def join(self) -> None:
        """Wait until everything has ended: processes, thread, sockets."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def process_ids(self) -> list[int]:
        return [c.pid for c in list(self._connections.values()) if c.pid is not None]

    # -- under the lock --------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Empty the inbox and do what the pool decides; if somebody else is at it, they will."""
        while self._inbox and self._lock.acquire(blocking=False):
            try:
                self._take_in()
                instructions = self.pool.decide() if not self._over else []
                for instruction in instructions:
                    self._carry_out(instruction)
                late = self.pool.drain() if self._over else ()
            finally:
                self._lock.release()
            for call in late:  # submitted while the executor was being shut down
                cast(Call, call).future.fail_with(RuntimeError("cannot schedule new futures after shutdown"))

    def _take_in(self) -> None:
        inbox, add = self._inbox, self.pool.add
        while inbox:
            event = inbox.popleft()
            if type(event) is Call:
                add(event)
            else:
                event()

    def _carry_out(self, instruction: Start | Send | Retire) -> None:
        if type(instruction) is Send:
            connection = self._connections[instruction.worker.number]
            call = instruction.calls[0]
            if call.plan.run_time is not None or call.plan.memory is not None:
                self._keep().watch(instruction.worker.number, call.plan.run_time, call.plan.memory)
            connection.send(instruction.calls)
        elif type(instruction) is Start:
            self._to_start.append(instruction.worker)
            if self._thread is None:
                self._begin()
            self._wake()
        else:
            self._connections[instruction.worker.number].leave()

    def _keep(self) -> Keeper:
        assert self._keeper is not None, "there are workers, so there is a keeper"
        return self._keeper

    def _begin(self) -> None:
        self._waker = socket.socketpair()
        for end in self._waker:
            end.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="penstock", daemon=True)
        self._thread.start()

    def _wake(self) -> None:
        waker = self._waker
        if waker is not None:
            with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
                waker[1].send(b"x")

    # -- the I/O thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._waker is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker[0], selectors.EVENT_READ, self._woken)
        self._looked = time.monotonic()
        try:
            while not self._is_over():
                for key, mask in self._selector.select(self._patience()):
                    key.data(mask)
                self._look_for_stalls()
        finally:
            self._end()

    def _woken(self, mask: int) -> None:
        assert self._waker is not None
        with contextlib.suppress(BlockingIOError):
            self._waker[0].recv(1 << 10)
        with self._lock:
            starts, self._to_start = self._to_start, []
            blocked, self._blocked = self._blocked, []
        for worker in starts:
            self._start(worker)
        for stream in blocked:
            self._set_events(stream, selectors.EVENT_READ | selectors.EVENT_WRITE)
        if self._signal is not None and self._keeper is not None:
            with self._lock:
                for number in self._connections:
                    self._keeper.kill(number, self._signal)
                self._keeper.end(_GRACE)  # and what the signal does not end is killed
            self._signal = None

    def _set_events(self, stream: Stream, events: int) -> None:
        with contextlib.suppress(KeyError, ValueError):  # it has been closed meanwhile
            self._selector.modify(stream.sock, events, self._selector.get_key(stream.sock).data)

    def _on_blocked(self, stream: Stream) -> None:
        self._blocked.append(stream)
        self._wake()

    def _start(self, worker: Worker) -> None:
        if self._keeper is None:
            self._keeper = Keeper(self._on_blocked)
            self._selector.register(self._keeper.stream.sock, selectors.EVENT_READ, self._keeper_speaks)
        connection = Connection(worker, self._packer, self._on_blocked)
        with self._lock:
            self._connections[worker.number] = connection
            descriptors = connection.greet(self._initializer)
            self._keeper.spawn(worker, descriptors)
        connection.handed_over()
        self._selector.register(
            connection.stream.sock, selectors.EVENT_READ, lambda mask: self._worker_speaks(connection, mask)
        )

    def _worker_speaks(self, connection: Connection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            with self._lock:
                done = connection.stream.flush()
            if done:
                self._set_events(connection.stream, selectors.EVENT_READ)
        if mask & selectors.EVENT_READ:
            self._settle(connection, connection.receive())
            if connection.ended:  # its process has ended, which the keeper will tell, or has closed the stream
                self._selector.unregister(connection.stream.sock)
                with self._lock:
                    self._keep().kill(connection.worker.number, signal.SIGKILL)

    def _settle(self, connection: Connection, arrived: list[Frame]) -> None:
        """Tell the pool what has ended, so that the worker goes on; then end the futures."""
        ends = connection.understand(arrived)
        if connection.says_ready:
            connection.says_ready = False
            self._inbox.append(partial(self.pool.started, connection.worker))
        if ends:
            watched = ends[0].call.plan.run_time is not None or ends[0].call.plan.memory is not None
            if watched:  # the worker is free when the keeper says that no limit can hit it any more
                with self._lock:
                    self._keep().unwatch(connection.worker.number)
            else:
                self._inbox.append(partial(self.pool.finished, connection.worker, len(ends)))
        self._pump()
        for end in ends:
            finish(end)
        self._pump()

    def _keeper_speaks(self, mask: int) -> None:
        keeper = self._keep()
        if mask & selectors.EVENT_WRITE:
            with self._lock:
                done = keeper.stream.flush()
            if done:
                self._set_events(keeper.stream, selectors.EVENT_READ)
        events = keeper.receive()
        if events is None:
            self._keeper_lost()
            return
        for event in events:
            connection = self._connections.get(event.number)
            if connection is None:
                continue
            if event.what == "spawned":
                connection.pid = event.value
            elif event.what == "exited":
                self._worker_ended(connection, event.value, event.reason)
            elif event.what == "unwatched":
                self._inbox.append(partial(self.pool.finished, connection.worker, 1))
            else:
                self._inbox.append(partial(self._withdrawn, connection, event.value))
        self._pump()

    def _withdrawn(self, connection: Connection, begun: int) -> None:
        calls = connection.withdrawn(begun)
        for call in calls:
            call.future.again()
        self.pool.withdrawn(connection.worker, calls)

    # -- ends of workers -------------------------------------------------------------------------------

    def _worker_ended(self, connection: Connection, exitcode: int | None, reason: str | None) -> None:
        """A worker's process is gone: what it finished counts, what it ran fails, the rest goes elsewhere."""
        ends = connection.understand(connection.drain())
        ran, rest = connection.split_flight()
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.stream.sock)
        may_restart = reason is None and not self._killed
        again = [call for call in ran if may_restart and call.restarted < call.plan.restarts]
        given_up: list[Call] = []
        with self._lock:
            self._take_in()  # the pool must know of all ends before it forgets the worker
            worker = connection.worker
            self.pool.lost(worker)
            for call in again:
                call.restarted += 1
            for call in (*again, *rest):
                call.future.again()
            self.pool.put_back(reversed([*again, *rest]))
            if not worker.ready and not worker.leaving:
                given_up = self.pool.hopeless(worker.shape, connection.initializer_error is not None)
            failed = [call for call in ran if call not in again]
            del self._connections[worker.number]
        self._inbox.append(_nothing)
        self._pump()
        for end in ends:
            finish(end)
        for call in failed:
            call.future.fail_with(lost_error(call, connection.pid, exitcode, reason))
        for call in given_up:
            call.future.fail_with(initializer_failed(call, connection.initializer_error, exitcode))
        connection.close()

    def _keeper_lost(self) -> None:
        """The zygote is gone, and the workers die with it; the next one makes new ones."""
        keeper, self._keeper = self._keep(), None
        self._selector.unregister(keeper.stream.sock)
        keeper.close()
        for connection in list(self._connections.values()):
            if connection.pid is not None:
                wait_for_death(connection.pid)
            self._worker_ended(connection, None, None)

    # -- calls behind one that takes long --------------------------------------------------------------

    def _patience(self) -> float | None:
        ahead = any(len(connection.flight) > 1 for connection in list(self._connections.values()))
        return _STALL if ahead else None

    def _look_for_stalls(self) -> None:
        now = time.monotonic()
        if now - self._looked < _STALL:
            return
        self._looked = now
        for connection in list(self._connections.values()):
            if connection.worker.withdrawing or not connection.stalled():
                continue
            with self._lock:
                connection.worker.withdrawing = True
                connection.flight[connection.begun_before].pace.note(_STALL)  # it is not short after all
                self._keep().withdraw(connection.worker.number, connection.sequence)

    # -- the end ---------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if not self._closing or self._inbox:
            return False
        with self._lock:
            self._over = not (self._inbox or self._unfinished() or self._expecting())
        return self._over

    def _unfinished(self) -> bool:
        """Whether calls wait or run. A call that was cancelled while it waited is neither."""
        return self.pool.waiting or any(c.flight for c in self._connections.values())

    def _end(self) -> None:
        """Let the workers end, then the zygote; close everything."""
        for connection in list(self._connections.values()):
            connection.leave()
        if self._keeper is not None:
            with self._lock:
                self._keeper.end(_GRACE)
            self._keeper.join()
            self._keeper.close()
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()
        self._selector.close()
        assert self._waker is not None
        waker, self._waker = self._waker, None
        for end in waker:
            end.close()
        self._segments.close()


def finish(end: Ended) -> None:
    if end.failed:
        end.call.future.fail(PackedError(end.packed, end.call))
    else:
        end.call.future.finish(end.packed)


def _nothing() -> None:
    """An event that only makes the pool decide again."""


def wait_for_death(pid: int) -> None:
    """Wait until a process that is being killed has ended; not for ever."""
    with contextlib.suppress(OSError, AttributeError):
        os.kill(pid, signal.SIGKILL)
        descriptor = os.pidfd_open(pid)
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            selector.select(_GRACE)
        os.close(descriptor)


# -- forks and the end of the interpreter ----------------------------------------------------------------


def _in_forked_child() -> None:
    for node in list(_nodes):
        node.after_fork()


def _at_exit() -> None:
    """Live calls are waited for, as the standard library's executors do."""
    nodes = [node for node in _nodes if not node._forked]
    for node in nodes:
        node.close()
    for node in nodes:
        node.join()


os.register_at_fork(after_in_child=_in_forked_child)
# Not `atexit`: that runs after all threads were joined, too late for a thread that needs to be told to end. The
# standard library's executors register in the same place.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
