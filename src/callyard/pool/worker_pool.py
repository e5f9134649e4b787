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

An exception may interrupt any thread in the middle of a decision, too, Ctrl-C the main thread. What is half done then
is put in order by the I/O thread, by what is known for certain: what each link has been given, and which calls there
are. A call is always in a place where it is found then: in the inbox, in the pool, or in the flight of a link.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from ..errors import WorkerLost
from ..futures import Lazy, ends_futures
from ..serialize.packer import Packer
from ..serialize.shared_memory import SegmentPool
from ..system.descriptors import make_room
from ..system.exit_status import ROOM
from ..system.processes import wait_for_end
from ..transport.event_loop import WRITE, EventLoop, Handler, IoThread
from ..transport.stream import FrameStream
from ..utils import interpreter_exit
from ..utils.locks import if_free, new_lock
from .call import Call, refuse
from .mpi_group import RankGroup
from .worker_connection import EACH, PART, Ended, WorkerConnection
from .worker_errors import PackedError, StartError, alone_error, lost_error
from .worker_placement import RetireWorker, SendToWorker, StartWorker, Worker, WorkerPlacement
from .zygote_process import ZygoteEvent, ZygoteProcess

_log = logging.getLogger("callyard")
_STALL = 0.01  # s after which calls are taken back from behind one that runs, or what could not be sent is tried again
_START_AGAIN = 5.0  # s after which more workers are tried where some could not be started
_GRACE = 5.0  # s that a worker has to end by itself
_MOST_ZYGOTES = 5  # that may end in a row without any call that ended meanwhile
_RANKS_GRACE = 3.0  # s that an MPI launcher has to end the others when a rank has gone

_nodes: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


class ExtraSocket(Protocol):
    """What else the I/O thread of a node waits for: on another machine, the driver."""

    def watch(self, loop: EventLoop) -> None:
        """Register its sockets."""

    def before_waiting(self) -> bool:
        """Send what has been said since; whether something may have come in meanwhile, so that it is not over."""


class WorkerPool:
    """Runs calls in worker processes of this machine. Made idle: the first call starts thread and processes."""

    def __init__(
        self,
        pool: WorkerPlacement,
        segments: SegmentPool,
        packer: Packer,
        initializer: bytes | None = None,
        expecting: Callable[[], bool] = lambda: False,
        beside: ExtraSocket | None = None,
    ) -> None:
        self._pool = pool
        self._beside = beside
        self._segments = segments
        self._packer = packer
        self._initializer = initializer
        self._inbox: deque[Any] = deque()
        self._news: deque[tuple[Worker, list[Call] | None]] = deque()  # a worker is ready, or these have ended there
        self._dropped: dict[Call, None] = {}  # calls that are to be cancelled, without the lock
        self._dropping: set[int] = set()  # the threads that are at it
        self._lock = new_lock()
        self._half_done = False  # a decision is being made and carried out, or was interrupted at that
        self._sending: WorkerConnection | RankGroup | None = None
        self._links: dict[int, WorkerConnection | RankGroup] = {}  # by the number of the worker
        self._unwatching: dict[int, list[Call]] = {}  # what had limits and has ended; the worker is not free yet
        self._keeper: ZygoteProcess | None = None
        self._keepers_lost = 0  # in a row
        self._keeper_timed = False  # the I/O thread looks whether it answers
        self._to_start: list[Worker] = []
        self._starting: list[Worker] = []  # by the I/O thread, just now
        self._left: list[SendToWorker | RetireWorker] = []  # to the I/O thread
        self._blocked: list[FrameStream] = []
        self._stuck: list[FrameStream] = []  # see Stream
        self._held_back = 0.0  # when the last worker could not be started
        self._io = IoThread()
        self._thread_number: int | None = None
        self._looked_for_stalls = 0.0
        self._patient = False  # the I/O thread looks for stalls; otherwise it may sleep without end
        self._expecting = expecting  # whether calls may still come after closing
        self._closing = False
        self._signal: int | None = None  # to be sent to all workers
        self._killed = False
        self._over = False  # the I/O thread takes no more calls
        self.forked = False  # this is a copy in a forked process
        _nodes.add(self)
        interpreter_exit.register(self)

    # -- from any thread -------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Run the call when there is room for it. Raises RuntimeError where no thread is to be had for that."""
        if not self._io.started:
            self._begin()
        if threading.get_ident() != self._thread_number:
            self._tell(call)
        else:
            self._inbox.append(call)  # which is emptied after the callbacks

    def look_again(self) -> None:
        """Something was cancelled, or ended elsewhere: perhaps others can go on, or the node can end."""
        self._tell(_nothing)
        if self._closing:
            self._wake()

    def cancel_waiting(self, all_of_them: bool) -> None:
        """Cancel the calls that have not been sent to a worker. A finalizer may ask for it while the lock is held.

        Those for which a worker is being started count as begun, unless `all_of_them` are meant.
        """
        self._tell(partial(self._drop_waiting, all_of_them))

    def let_idle_workers_go(self) -> None:
        """Somebody else is going to use what they hold."""
        self._tell(self._pool.let_idle_go)

    def prepare(self) -> None:
        """A call is going to come, so that there must be somebody to wait for it."""
        self._begin()

    def close(self) -> None:
        """Take the calls that are there to their ends, and those that are expected; then end."""
        self._closing = True
        self._wake()

    def kill(self, signum: int) -> None:
        """End the workers by a signal, and the node. What runs fails; what waits must be cancelled before."""
        self._signal = signum
        self._killed = self._closing = True
        self._wake()

    def begin_end(self) -> None:
        """At the interpreter's end: live calls are waited for."""
        if not self.forked:
            self.close()

    def wait_for_end(self) -> None:
        if not self.forked:
            self.join()

    def join(self) -> None:
        """Wait until everything has ended: processes, thread, sockets."""
        self._io.join()

    @property
    def process_ids(self) -> list[int]:
        return [link.pid for link in list(self._links.values()) if link.pid is not None]

    def _tell(self, event: Any) -> None:
        try:
            self._inbox.append(event)
            self._pump()
        except BaseException:
            self._dropping.discard(threading.get_ident())
            self._wake()  # the I/O thread goes on with what is in the inbox, dropped or half done
            raise

    # -- under the lock --------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Empty the inbox and do what the pool decides; if somebody else is at it, they will."""
        while not (self.forked or self._over) and (self._inbox or self._news):
            if not if_free(self._lock, self._take_a_turn):
                return
            self._end_dropped()
            if self._closing:  # the I/O thread may have found something in the inbox, and thought that it goes on
                self._wake()
        if self._over:
            refuse(self._inbox)

    def _take_a_turn(self) -> bool:
        """Whether that could be done now; it cannot before the I/O thread has put in order what was interrupted."""
        if self._half_done:
            return False
        self._half_done = True
        changed = self._take_in()
        if self._killed:  # nothing begins any more, nor what a killed worker had been sent and not begun
            self._drop_waiting(True)
        elif changed and not self._over:
            for instruction in self._pool.decide():
                self._carry_out(instruction)
        self._half_done = False
        return True

    def _end_dropped(self) -> None:
        """Each stays in there until it has ended. A callback that comes here again leaves them to the loop below."""
        me = threading.get_ident()
        if not self._dropped or me in self._dropping:
            return
        self._dropping.add(me)
        while self._dropped:
            for call in tuple(self._dropped):
                call.future.cancel()
                self._dropped.pop(call, None)
        self._dropping.discard(me)

    def _drop_waiting(self, all_of_them: bool) -> None:
        for call in self._pool.drain(all_of_them):
            self._dropped[cast(Call, call)] = None

    def _take_in(self) -> bool:
        """Tell the pool what has happened; whether there may be something new to decide.

        What is taken from the inbox or the news is taken when it has been done.
        """
        inbox, news, add, changed = self._inbox, self._news, self._pool.add, False
        while news:
            worker, ended = news[0]
            if ended is None:
                self._pool.started(worker)
            else:
                self._pool.finished(worker, len(ended))
            news.popleft()
            changed = True
        while inbox and not self._over:
            event = inbox[0]
            if type(event) is Call:
                changed |= add(event)
            else:
                event()
                changed = True
            inbox.popleft()
        return changed

    def _carry_out(self, instruction: StartWorker | SendToWorker | RetireWorker) -> None:
        """Do it, or leave it to the I/O thread: that one alone speaks to the keeper and to ranks."""
        if type(instruction) is StartWorker:
            self._to_start.append(instruction.worker)
            self._wake()
        elif type(instruction) is SendToWorker and not instruction.calls[0].alone:
            self._send(self._links[instruction.worker.number], instruction)
        elif threading.get_ident() == self._thread_number:
            self._do(cast("SendToWorker | RetireWorker", instruction))
        else:
            self._left.append(cast("SendToWorker | RetireWorker", instruction))
            self._wake()

    def _send(self, link: WorkerConnection | RankGroup, instruction: SendToWorker) -> None:
        self._sending = link
        link.send(cast("list[Call]", instruction.calls))
        self._sending = None
        if not self._patient and len(link.flight) > 1:
            self._wake()

    def _do(self, instruction: SendToWorker | RetireWorker) -> None:
        number = instruction.worker.number
        if type(instruction) is SendToWorker:
            plan = cast(Call, instruction.calls[0]).plan
            if plan.limited:
                self._keep().watch(number, plan.run_time, plan.memory)
            self._send(self._links[number], instruction)
        else:
            self._links[number].leave()
            self._keep().watch(number, _GRACE, None)  # should its last functions take too long

    def _do_what_is_left(self) -> bool:
        """To the I/O thread, before that does something else under the lock. It must have no ends in hand."""
        if self._half_done:
            self._put_in_order()
        left, self._left = self._left, []
        for instruction in left:
            self._do(instruction)
        return True

    def _put_in_order(self) -> None:
        """An exception has interrupted another thread in the middle of a decision."""
        if self._sending is not None:  # what was sent is known to its worker alone, which gets nothing more
            self._sending.worker.worn = self._sending.worker.withdrawing = True
            self._keep().withdraw(self._sending.worker.number, cast(WorkerConnection, self._sending).sequence)
            self._sending = None
        gone = {event for event in self._inbox if type(event) is Call}
        for worker, ended in self._news:
            worker.ready = True
            gone.update(ended or ())
        self._news.clear()
        flights: dict[int, list[Call]] = {worker.number: [] for worker in self._starting}
        for number, link in self._links.items():
            flights[number] = self._unwatching.get(number) or list(link.flight.values())
        for call in cast("list[Call]", self._pool.restore(flights, gone)):
            call.future.again()
        self._to_start.clear()
        self._left = [RetireWorker(worker) for worker in self._pool.workers.values() if worker.leaving]
        self._half_done = False
        self._inbox.append(_nothing)

    def _keep(self) -> ZygoteProcess:
        assert self._keeper is not None, "there are workers, so there is a keeper"
        return self._keeper

    def _begin(self) -> None:
        if not self.forked:
            self._io.start_with(self._run, self._make_loop)

    def _make_loop(self) -> EventLoop:
        make_room(PART * EACH * min(self._pool.max_workers, self._pool.capacity.cores))
        loop = EventLoop(self._woken)
        if self._beside is not None:
            self._beside.watch(loop)
        return loop

    def _wake(self) -> None:
        self._io.wake()

    def _on_blocked(self, stream: FrameStream) -> None:
        self._blocked.append(stream)
        self._wake()

    # -- the I/O thread --------------------------------------------------------------------------------

    def _run(self, loop: EventLoop) -> None:
        self._thread_number = threading.get_ident()
        ends_futures(self.look_again)
        try:
            while not self._is_over():
                self._go_on()
                self._pump()  # who left something in the inbox while this thread held the lock relies on it
                self._patient = False  # first: who sends something from now on wakes this thread
                patience = self._patience()
                if self._beside is not None and self._beside.before_waiting():
                    continue
                loop.step(patience)
                self._look_for_stalls(time.monotonic())
                self._try_again(time.monotonic())
                if self._keeper_timed:
                    self._look_after_keeper(time.monotonic())
        except BaseException as error:  # no descriptors left, a callback that exits, or a fault of ours
            self._give_up(error)
        finally:
            self._end(loop)

    def _go_on(self) -> None:
        """With what an exception has interrupted in other threads."""
        if self._half_done:
            if_free(self._lock, self._do_what_is_left)  # otherwise somebody is in the middle of it
        self._end_dropped()

    def _give_up(self, error: BaseException) -> None:
        """This node can do no more. Nobody shall wait for it for ever."""
        _log.exception("this executor cannot go on")
        with self._lock:
            self._sending = None
            if self._half_done:
                self._put_in_order()
            self._take_in()
            self._over = True
            calls = [*self._pool.drain(), *(call for link in self._links.values() for call in link.flight.values())]
        for call in cast("list[Call]", calls):
            name = call.future.name
            broken = WorkerLost(f"{name!r} has no result, because its executor cannot go on: {error}; make a new one")
            broken.__cause__ = error
            call.future.fail_with(broken)

    def _woken(self) -> None:
        loop = cast(EventLoop, self._io.loop)
        with self._lock:
            self._do_what_is_left()
            for link in self._links.values():
                link.catch_up()
            refused = [(link, ends) for link in self._links.values() if (ends := link.refused())]
            self._starting, self._to_start = self._to_start, []
            blocked, self._blocked = self._blocked, []
        for link, ends in refused:
            self._settle(link, ends)
        while self._starting:
            worker = self._starting[0]
            try:
                self._start(worker, loop)
            except OSError as error:
                self._not_started(worker, error)
            self._starting.pop(0)
        for stream in blocked:
            self._attend(stream)
        if self._signal is not None and self._keeper is not None:
            with self._lock:
                for number in self._links:
                    self._keeper.kill(number, self._signal)
                self._keeper.end(_GRACE)  # and what the signal does not end is killed
            self._signal = None

    def _start(self, worker: Worker, loop: EventLoop) -> None:
        if self._keeper is None:  # in this thread: see Keeper
            keeper = ZygoteProcess(self._on_blocked)
            self._watch_or_close(loop, keeper.stream.sock, self._keeper_speaks, keeper)
            self._keeper = keeper
        link: WorkerConnection | RankGroup
        if worker.shape.ranks > 1:
            link = group = RankGroup(worker, self._packer, self._on_blocked, self._wake)
            self._watch_or_close(loop, group.listener, partial(self._rank_connects, group), group)
        else:
            link = connection = WorkerConnection(worker, self._packer, self._on_blocked, self._wake)
            speaks = partial(self._worker_speaks, connection, connection)
            self._watch_or_close(loop, connection.stream.sock, speaks, connection)
        with self._lock:
            self._links[worker.number] = link
            descriptors = link.greet(self._initializer)
            self._keeper.spawn(worker, descriptors, link.address)

    @staticmethod
    def _watch_or_close(
        loop: EventLoop, sock: socket.socket, handler: Handler, owner: ZygoteProcess | WorkerConnection | RankGroup
    ) -> None:
        try:
            loop.watch(sock, handler)
        except OSError:
            owner.close()
            raise

    def _not_started(self, worker: Worker, error: OSError) -> None:
        """There was no descriptor or process to be had: calls that have no other worker to wait for fail."""
        with self._lock:
            self._do_what_is_left()
            link = self._links.pop(worker.number, None)
            self._pool.lost(worker)
            given_up = cast("list[Call]", self._pool.not_started(worker.shape, scarce=True))
            self._held_back = time.monotonic()
        self._inbox.append(_nothing)
        if link is not None:
            for sock in link.sockets():
                cast(EventLoop, self._io.loop).forget(sock)
            link.close()
        for call in given_up:
            broken = WorkerLost(f"no worker could be started for {call.future.name!r}: {error}; {ROOM}")
            broken.__cause__ = error
            call.future.fail_with(broken)

    def _attend(self, stream: FrameStream) -> None:
        """Something could not be sent at once, or cannot be at all."""
        if stream.broken:
            self._end_other_side(stream, stream.broken)
        elif stream.stuck or not cast(EventLoop, self._io.loop).also_write(stream.sock, True):
            self._stuck.append(stream)

    def _end_other_side(self, stream: FrameStream, why: str) -> None:
        """Nothing can be said there any more, so whatever waits for it would wait for ever."""
        if self._keeper is not None and self._keeper.stream is stream:
            self._keeper_lost()
            return
        for link in list(self._links.values()):
            if stream.sock in link.sockets() and not link.worker.leaving:
                link.fault = f"nothing could be sent to it ({why})"
                self._end_worker(link)

    def _try_again(self, now: float) -> None:
        """Do what could not be done before, because the system lacked something for it."""
        stuck, self._stuck = self._stuck, []
        for stream in stuck:
            with self._lock:
                done = stream.flush()
            if not done or stream.broken:
                self._attend(stream)
        if self._pool.held_back and now - self._held_back >= _START_AGAIN:
            self._held_back = now
            self._inbox.append(self._pool.try_again)

    def _rank_connects(self, group: RankGroup, mask: int) -> None:
        loop = cast(EventLoop, self._io.loop)
        try:
            connection = group.accept()
            if connection is not None:
                loop.watch(connection.stream.sock, partial(self._worker_speaks, group, connection))
        except OSError as error:  # a rank without a connection: the others would wait for it for ever
            group.fault = f"a rank could not be connected to ({error})"
            loop.forget(group.listener)
            self._end_worker(group)
            return
        if group.complete:
            loop.forget(group.listener)
            group.stop_listening()

    def _worker_speaks(self, link: WorkerConnection | RankGroup, connection: WorkerConnection, mask: int) -> None:
        if link.worker.number not in self._links:  # it was lost while this event waited for its turn
            return
        if mask & WRITE:
            self._flush(connection.stream)
        with self._lock if link is not connection else contextlib.nullcontext():  # a rank may be greeted
            ends = link.hear(connection, connection.receive())
        self._settle(link, ends)
        if connection.ended:  # its process has ended, which the keeper will tell, or has closed the stream
            cast(EventLoop, self._io.loop).forget(connection.stream.sock)
            if not link.worker.leaving:
                self._end_worker(link)

    def _flush(self, stream: FrameStream) -> None:
        with self._lock:
            done = stream.flush()
        if done or stream.stuck:
            cast(EventLoop, self._io.loop).also_write(stream.sock, False)
        if stream.stuck or stream.broken:
            self._attend(stream)

    def _end_worker(self, link: WorkerConnection | RankGroup) -> None:
        with self._lock:
            if link.rank_gone:  # the launcher knows better why, and ends the other ranks
                self._keep().let_end(link.worker.number, _RANKS_GRACE)
            else:
                self._keep().kill(link.worker.number, signal.SIGKILL)

    def _settle(self, link: WorkerConnection | RankGroup, ends: list[Ended]) -> None:
        """Tell the pool what has ended, so that the worker goes on; then end the futures."""
        worker = link.worker
        if link.says_ready:
            link.says_ready = False
            self._news.append((worker, None))
        if link.must_end:
            with self._lock:
                self._keep().kill(worker.number, signal.SIGKILL)
        elif ends and ends[0][0].plan.limited:
            with self._lock:  # the worker is free when the keeper says that no limit can hit it any more
                self._unwatching[worker.number] = [ends[0][0]]
                self._keep().unwatch(worker.number)
        elif ends:
            self._news.append((worker, [call for call, _, _ in ends]))
        self._pump()
        for call, packed, failed in ends:
            finish(call, packed, failed)
        self._pump()

    def _keeper_speaks(self, mask: int) -> None:
        keeper = self._keep()
        if mask & WRITE:
            self._flush(keeper.stream)
            if self._keeper is not keeper:  # nothing can be said to it, so it is gone
                return
        events = keeper.receive()
        if events is None:
            self._keeper_lost()
            return
        for event in events:
            link = self._links.get(event.number)
            if link is not None:
                self._worker_event(link, event)
        self._pump()

    def _worker_event(self, link: WorkerConnection | RankGroup, event: ZygoteEvent) -> None:
        if event.what == "spawned":
            link.pid = event.value
            link.handed_over()  # only now: what was to be sent may have had to wait
        elif event.what == "exited":
            self._worker_ended(link, event.value, event.reason)
        elif event.what == "unwatched":
            self._news.append((link.worker, self._unwatching.pop(event.number)))
        else:
            begun, unsent = event.value
            self._settle(link, cast(WorkerConnection, link).hear_of(unsent))
            with self._lock:
                self._do_what_is_left()
                self._take_in()  # ends that the pool must know first
                self._withdrawn(cast(WorkerConnection, link), begun)
            self._inbox.append(_nothing)

    # -- ends of workers -------------------------------------------------------------------------------

    def _worker_ended(
        self, link: WorkerConnection | RankGroup, exitcode: int | None, reason: str | None, hopeless: bool = False
    ) -> None:
        """A worker's process is gone: what it finished counts, what it ran fails, the rest goes elsewhere."""
        worker = link.worker
        for sock in link.sockets():
            cast(EventLoop, self._io.loop).forget(sock)
        may_run_again = reason in (None, "rank", "silence") and not self._killed
        given_up: list[Any] = []
        with self._lock:  # all at once: nobody may send a call here between the last look and the end
            self._do_what_is_left()
            self._unwatching.pop(worker.number, None)
            self._take_in()  # ends that the pool must know, and calls withdrawn, which the worker has begun to skip
            ends = link.drain()
            ran, rest = link.split_flight()
            again = [call for call in ran if may_run_again and call.restarted < call.plan.restarts]
            failed = [call for call in ran if call not in again]
            self._pool.lost(worker)
            for call in again:
                call.restarted += 1
            for call in (*again, *rest):
                call.future.again()
            self._pool.put_back(reversed([*again, *rest]))
            if not worker.ready and not self._killed:
                scarce = exitcode is None and reason not in (None, "silence") and not hopeless  # there was no process
                at_once = hopeless or link.initializer_error is not None or link.alone is not None
                given_up = self._pool.not_started(worker.shape, scarce, at_once)
                self._held_back = time.monotonic()
            del self._links[worker.number]
        self._inbox.append(_nothing)
        self._pump()
        for call, packed, raised in ends:
            finish(call, packed, raised)
        for call in failed:
            before = f"{link.fault}, so " if link.fault else link.rank_gone
            call.future.fail_with(lost_error(call, link.pid, exitcode, reason, before))
        for call in given_up:
            if link.alone:
                call.future.fail_with(alone_error(call, worker.shape.ranks, link.alone))
            else:
                call.future.fail(StartError(call, link.initializer_error, exitcode, reason or link.fault or None))
        link.close()

    def _keeper_lost(self, reason: str | None = None) -> None:
        """The zygote is gone, and the workers die with it; the next one makes new ones."""
        keeper, links = self._keep(), list(self._links.values())  # others may speak to it until all links are lost
        cast(EventLoop, self._io.loop).forget(keeper.stream.sock)
        keeper.close()
        self._keepers_lost = 0 if any(link.sequence > len(link.flight) for link in links) else self._keepers_lost + 1
        until = time.monotonic() + _GRACE
        for link in links:
            if link.pid is not None:
                wait_for_end(link.pid, until - time.monotonic())
            why = None if link.worker.ready else keeper.why_not_started
            self._worker_ended(link, None, why or reason, hopeless=why is not None)
        self._keeper = None
        if self._keepers_lost >= _MOST_ZYGOTES:
            self._give_up_waiting(f"the process that starts workers ended {self._keepers_lost} times in a row")

    def _give_up_waiting(self, why: str) -> None:
        self._keepers_lost = 0
        with self._lock:
            if self._half_done:
                self._put_in_order()
            self._take_in()
            calls = cast("list[Call]", [*self._pool.drain()])
        for call in calls:
            call.future.fail_with(WorkerLost(f"no worker could be started for {call.future.name!r}: {why}"))

    def _look_after_keeper(self, now: float) -> None:
        """End a zygote that does not answer: it keeps no limits, and tells no deaths."""
        if self._keeper is None:
            return
        with self._lock:
            answers = self._keeper.answers(now)
        if not answers:
            _log.error("the process that keeps the limits of calls does not answer: it is ended, with its workers")
            self._keeper.abandon([link.pid for link in self._links.values() if link.pid is not None])
            self._keeper_lost("silence")
            self._pump()

    # -- calls behind one that takes long --------------------------------------------------------------

    def _patience(self) -> float | None:
        """Return for how long nothing needs to be looked at; a thread that sends something else wakes this one."""
        self._patient = bool(self._stuck) or any(len(link.flight) > 1 for link in self._links.values())
        silence = None if self._keeper is None else self._keeper.patience()
        self._keeper_timed = silence is not None
        start_again = _START_AGAIN if self._pool.held_back else None
        times = (_STALL if self._patient else None, silence, start_again)
        return min((time for time in times if time is not None), default=None)

    def _look_for_stalls(self, now: float) -> None:
        if now - self._looked_for_stalls < _STALL:
            return
        self._looked_for_stalls = now
        for link in list(self._links.values()):
            if type(link) is WorkerConnection and not link.worker.withdrawing and link.stalled():
                with self._lock:
                    link.worker.withdrawing = True
                    self._keep().withdraw(link.worker.number, link.sequence)

    def _withdrawn(self, connection: WorkerConnection, begun: int) -> None:
        calls = connection.withdrawn(begun)
        for running in list(connection.flight.values()):  # the I/O thread may be taking out what has ended
            running.pace.note(_STALL)  # it is not short after all
        for call in calls:
            call.future.again()
        self._pool.withdrawn(connection.worker, calls)

    # -- the end ---------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if not self._closing or self._inbox or self._news:
            return False
        with self._lock:
            if self._half_done or self._left:
                return False
            # In this order: what is expected no longer has been put into the inbox before.
            self._over = not (self._expecting() or self._inbox or self._unfinished())
        return self._over

    def _unfinished(self) -> bool:
        """Whether calls wait or run. A call that was cancelled while it waited is neither."""
        return self._pool.waiting or any(link.flight for link in self._links.values())

    def _end(self, loop: EventLoop) -> None:
        """Let the workers end, then the zygote; close everything."""
        self._over = True
        self._end_dropped()
        self._pump()  # what came too late must be told so
        for link in self._links.values():
            link.leave()
        if self._keeper is not None:
            with self._lock:
                self._keeper.end(_GRACE)
            self._keeper.join()
            self._keeper.close()
        for link in self._links.values():
            link.close()
        self._links.clear()
        loop.close()
        self._segments.close()

    # -- forks -----------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In a forked child: this copy can do nothing, and must not hold the connections of the original open."""
        self.forked = True
        sockets = [sock for link in self._links.values() for sock in link.sockets()]
        if self._keeper is not None:
            sockets.append(self._keeper.stream.sock)
        if self._io.loop is not None:
            sockets.extend(self._io.loop.sockets())
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.close()


def finish(call: Call, packed: Lazy, failed: bool) -> None:
    """End the call's future, unless it was not run and is going to be."""
    if call.note is not None and call.noted is not None and call.noted(call, call.note):
        return  # it was not run here
    if failed:
        call.future.fail(PackedError(packed, call))
    else:
        call.future.finish(packed)


def _nothing() -> None:
    """An event that only makes the pool decide again."""


# -- forks -----------------------------------------------------------------------------------------------


def _in_forked_child() -> None:
    for node in list(_nodes):
        node.after_fork()


os.register_at_fork(after_in_child=_in_forked_child)
