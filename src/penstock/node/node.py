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
import logging
import os
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from .. import ending
from ..errors import WorkerLost
from ..futures import Lazy
from ..system.processes import wait_for_end
from ..wire.memory import Segments
from ..wire.packing import Packer
from .call import Call
from .connection import Connection, Ended
from .io_thread import IoThread
from .keeper import Event, Keeper
from .loop import WRITE, Loop
from .losses import PackedError, StartError, lost_error
from .pool import Pool, Retire, Send, Start, Worker
from .ranks import RankGroup
from .stream import Stream

_log = logging.getLogger("penstock")
_STALL = 0.01  # s after which calls are taken back from behind one that runs
_GRACE = 5.0  # s that a worker has to end by itself
_MOST_ZYGOTES = 5  # that may end in a row without any call that ended meanwhile
_RANKS_GRACE = 3.0  # s that an MPI launcher has to end the others when a rank has gone

_nodes: weakref.WeakSet[Node] = weakref.WeakSet()


class Beside(Protocol):
    """What else the I/O thread of a node waits for: on another machine, the driver."""

    def watch(self, loop: Loop) -> None:
        """Register its sockets."""

    def before_waiting(self) -> bool:
        """Send what has been said since; whether something may have come in meanwhile, so that it is not over."""


class Node:
    """Runs calls in worker processes of this machine. Made idle: the first call starts thread and processes."""

    def __init__(
        self,
        pool: Pool,
        segments: Segments,
        packer: Packer,
        initializer: bytes | None = None,
        expecting: Callable[[], bool] = lambda: False,
        beside: Beside | None = None,
    ) -> None:
        self._pool = pool
        self._beside = beside
        self._segments = segments
        self._packer = packer
        self._initializer = initializer
        self._inbox: deque[Any] = deque()
        self._dropped: list[Any] = []  # calls that are to be cancelled, without the lock
        self._lock = threading.Lock()
        self._links: dict[int, Connection | RankGroup] = {}  # by the number of the worker
        self._keeper: Keeper | None = None
        self._keepers_lost = 0  # in a row
        self._keeper_timed = False  # the I/O thread looks whether it answers; otherwise it may sleep without end
        self._to_start: list[Worker] = []
        self._blocked: list[Stream] = []
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
        ending.register(self)

    # -- from any thread -------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Run the call when there is room for it. Raises RuntimeError where no thread is to be had for that."""
        if not self._io.begun:
            self._begin()
        self._inbox.append(call)
        if threading.get_ident() != self._thread_number:  # that one empties the inbox after its callbacks
            self._pump()

    def look_again(self) -> None:
        """Something was cancelled, or ended elsewhere: perhaps others can go on, or the node can end."""
        self._inbox.append(_nothing)
        self._pump()
        if self._closing:
            self._wake()

    def cancel_waiting(self, all_of_them: bool) -> None:
        """Cancel the calls that have not been sent to a worker. A finalizer may ask for it while the lock is held.

        Those for which a worker is being started count as begun, unless `all_of_them` are meant.
        """
        self._inbox.append(partial(self._drop_waiting, all_of_them))
        self._pump()

    def let_idle_workers_go(self) -> None:
        """Somebody else is going to use what they hold."""
        self._inbox.append(self._pool.let_idle_go)
        self._pump()

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

    # -- under the lock --------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Empty the inbox and do what the pool decides; if somebody else is at it, they will."""
        while self._inbox and not self.forked and self._lock.acquire(blocking=False):
            dropped: list[Any] = []
            late: list[Any] = []
            try:
                changed = self._take_in()
                dropped, self._dropped = self._dropped, dropped
                if self._killed:  # nothing begins any more, nor what a killed worker had been sent and not begun
                    dropped.extend(self._pool.drain())
                elif self._over:
                    late = self._pool.drain()
                elif changed:
                    for instruction in self._pool.decide():
                        self._carry_out(instruction)
            finally:
                self._lock.release()
            if self._closing:  # the I/O thread may have found something in the inbox, and thought that it goes on
                self._wake()
            for call in dropped:
                call.future.cancel()
            for call in late:  # submitted while the executor was being shut down
                call.future.fail_with(RuntimeError("cannot schedule new futures after shutdown"))

    def _drop_waiting(self, all_of_them: bool) -> None:
        self._dropped.extend(self._pool.drain(all_of_them))

    def _take_in(self) -> bool:
        """Tell the pool what has happened; whether there may be something new to decide."""
        inbox, add, changed = self._inbox, self._pool.add, False
        while inbox:
            event = inbox.popleft()
            if type(event) is Call:
                changed |= add(event)
            else:
                event()
                changed = True
        return changed

    def _carry_out(self, instruction: Start | Send | Retire) -> None:
        number = instruction.worker.number
        if type(instruction) is Send:
            calls = cast("list[Call]", instruction.calls)
            if calls[0].plan.limited:
                self._limit(number, calls[0].plan.run_time, calls[0].plan.memory)
            link = self._links[number]
            link.send(calls)
            if not self._patient and len(link.flight) > 1:
                self._wake()
        elif type(instruction) is Start:
            self._to_start.append(instruction.worker)
            self._wake()
        else:
            self._links[number].leave()
            self._limit(number, _GRACE, None)  # should its last functions take too long

    def _limit(self, number: int, run_time: float | None, memory: int | None) -> None:
        self._keep().watch(number, run_time, memory)
        if not self._keeper_timed:
            self._wake()

    def _keep(self) -> Keeper:
        assert self._keeper is not None, "there are workers, so there is a keeper"
        return self._keeper

    def _begin(self) -> None:
        if not self.forked:
            self._io.begin_with(self._run, self._make_loop)

    def _make_loop(self) -> Loop:
        loop = Loop(self._woken)
        if self._beside is not None:
            self._beside.watch(loop)
        return loop

    def _wake(self) -> None:
        self._io.wake()

    def _on_blocked(self, stream: Stream) -> None:
        self._blocked.append(stream)
        self._wake()

    # -- the I/O thread --------------------------------------------------------------------------------

    def _run(self, loop: Loop) -> None:
        self._thread_number = threading.get_ident()
        try:
            while not self._is_over():
                self._pump()  # who left something in the inbox while this thread held the lock relies on it
                self._patient = self._keeper_timed = False  # first: who sends something from now on wakes this thread
                patience = self._patience()
                if self._beside is not None and self._beside.before_waiting():
                    continue
                loop.step(patience)
                self._look_for_stalls(time.monotonic())
                if self._keeper_timed:
                    self._look_after_keeper(time.monotonic())
        except BaseException as error:  # no descriptors left, a callback that exits, or a fault of ours
            self._give_up(error)
        finally:
            self._end(loop)

    def _give_up(self, error: BaseException) -> None:
        """This node can do no more. Nobody shall wait for it for ever."""
        _log.exception("this executor cannot go on")
        with self._lock:
            self._take_in()
            self._over = True
            calls = [*self._pool.drain(), *(call for link in self._links.values() for call in link.flight.values())]
        for call in cast("list[Call]", calls):
            name = call.future.name
            broken = WorkerLost(f"{name!r} has no result, because its executor cannot go on: {error}; make a new one")
            broken.__cause__ = error
            call.future.fail_with(broken)

    def _woken(self) -> None:
        loop = cast(Loop, self._io.loop)
        with self._lock:
            for link in self._links.values():
                link.return_unused()
            starts, self._to_start = self._to_start, []
            blocked, self._blocked = self._blocked, []
        for worker in starts:
            try:
                self._start(worker, loop)
            except OSError as error:
                self._not_started(worker, error)
        for stream in blocked:
            loop.also_write(stream.sock, True)
        if self._signal is not None and self._keeper is not None:
            with self._lock:
                for number in self._links:
                    self._keeper.kill(number, self._signal)
                self._keeper.end(_GRACE)  # and what the signal does not end is killed
            self._signal = None

    def _start(self, worker: Worker, loop: Loop) -> None:
        if self._keeper is None:  # in this thread: see Keeper
            self._keeper = Keeper(self._on_blocked)
            loop.watch(self._keeper.stream.sock, self._keeper_speaks)
        link: Connection | RankGroup
        if worker.shape.ranks > 1:
            link = group = RankGroup(worker, self._packer, self._on_blocked, self._wake)
            loop.watch(group.listener, partial(self._rank_connects, group))
        else:
            link = connection = Connection(worker, self._packer, self._on_blocked, self._wake)
            loop.watch(connection.stream.sock, partial(self._worker_speaks, connection, connection))
        with self._lock:
            self._links[worker.number] = link
            descriptors = link.greet(self._initializer)
            self._keeper.spawn(worker, descriptors, link.address)
        link.handed_over()

    def _not_started(self, worker: Worker, error: OSError) -> None:
        """There was no descriptor or process to be had. The calls that need such a worker fail; others go on."""
        with self._lock:
            link = self._links.pop(worker.number, None)
            self._pool.lost(worker)
            given_up = cast("list[Call]", self._pool.hopeless(worker.shape, True))
        if link is not None:
            for sock in link.sockets():
                cast(Loop, self._io.loop).forget(sock)
            link.close()
        for call in given_up:
            broken = WorkerLost(f"no worker could be started for {call.future.name!r}: {error}")
            broken.__cause__ = error
            call.future.fail_with(broken)

    def _rank_connects(self, group: RankGroup, mask: int) -> None:
        connection = group.accept()
        loop = cast(Loop, self._io.loop)
        if connection is not None:
            loop.watch(connection.stream.sock, partial(self._worker_speaks, group, connection))
        if group.complete:
            loop.forget(group.listener)
            group.stop_listening()

    def _worker_speaks(self, link: Connection | RankGroup, connection: Connection, mask: int) -> None:
        if link.worker.number not in self._links:  # it was lost while this event waited for its turn
            return
        if mask & WRITE:
            self._flush(connection.stream)
        with self._lock if link is not connection else contextlib.nullcontext():  # a rank may be greeted
            ends = link.hear(connection, connection.receive())
        self._settle(link, ends)
        if connection.ended:  # its process has ended, which the keeper will tell, or has closed the stream
            cast(Loop, self._io.loop).forget(connection.stream.sock)
            if not link.worker.leaving:
                self._end_worker(link)

    def _flush(self, stream: Stream) -> None:
        with self._lock:
            done = stream.flush()
        if done:
            cast(Loop, self._io.loop).also_write(stream.sock, False)

    def _end_worker(self, link: Connection | RankGroup) -> None:
        with self._lock:
            if link.rank_gone:  # the launcher knows better why, and ends the other ranks
                self._keep().let_end(link.worker.number, _RANKS_GRACE)
            else:
                self._keep().kill(link.worker.number, signal.SIGKILL)

    def _settle(self, link: Connection | RankGroup, ends: list[Ended]) -> None:
        """Tell the pool what has ended, so that the worker goes on; then end the futures."""
        worker = link.worker
        if link.says_ready:
            link.says_ready = False
            self._inbox.append(partial(self._pool.started, worker))
        if link.must_end:
            with self._lock:
                self._keep().kill(worker.number, signal.SIGKILL)
        elif ends and ends[0][0].plan.limited:
            with self._lock:  # the worker is free when the keeper says that no limit can hit it any more
                self._keep().unwatch(worker.number)
        elif ends:
            self._inbox.append(partial(self._pool.finished, worker, len(ends)))
        self._pump()
        for call, packed, failed in ends:
            finish(call, packed, failed)
        self._pump()

    def _keeper_speaks(self, mask: int) -> None:
        keeper = self._keep()
        if mask & WRITE:
            self._flush(keeper.stream)
        events = keeper.receive()
        if events is None:
            self._keeper_lost()
            return
        for event in events:
            link = self._links.get(event.number)
            if link is not None:
                self._worker_event(link, event)
        self._pump()

    def _worker_event(self, link: Connection | RankGroup, event: Event) -> None:
        if event.what == "spawned":
            link.pid = event.value
        elif event.what == "exited":
            self._worker_ended(link, event.value, event.reason)
        elif event.what == "unwatched":
            self._inbox.append(partial(self._pool.finished, link.worker, 1))
        else:
            begun, unsent = event.value
            self._settle(link, cast(Connection, link).hear_of(unsent))
            self._inbox.append(partial(self._withdrawn, cast(Connection, link), begun))

    # -- ends of workers -------------------------------------------------------------------------------

    def _worker_ended(
        self, link: Connection | RankGroup, exitcode: int | None, reason: str | None, hopeless: bool = False
    ) -> None:
        """A worker's process is gone: what it finished counts, what it ran fails, the rest goes elsewhere."""
        worker = link.worker
        for sock in link.sockets():
            cast(Loop, self._io.loop).forget(sock)
        may_run_again = reason in (None, "rank", "silence") and not self._killed
        given_up: list[Any] = []
        with self._lock:  # all at once: nobody may send a call here between the last look and the end
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
                given_up = self._pool.hopeless(worker.shape, hopeless or link.initializer_error is not None)
            del self._links[worker.number]
        self._inbox.append(_nothing)
        self._pump()
        for call, packed, raised in ends:
            finish(call, packed, raised)
        for call in failed:
            call.future.fail_with(lost_error(call, link.pid, exitcode, reason, link.rank_gone))
        for call in given_up:
            call.future.fail(StartError(call, link.initializer_error, exitcode, reason))
        link.close()

    def _keeper_lost(self, reason: str | None = None) -> None:
        """The zygote is gone, and the workers die with it; the next one makes new ones."""
        keeper, links = self._keep(), list(self._links.values())  # others may speak to it until all links are lost
        cast(Loop, self._io.loop).forget(keeper.stream.sock)
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
            self._take_in()
            calls = cast("list[Call]", self._pool.drain())
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
        """For how long nothing needs to be looked at; who sends something that changes this wakes the thread."""
        self._patient = any(len(link.flight) > 1 for link in self._links.values())
        silence = None if self._keeper is None else self._keeper.patience()
        self._keeper_timed = silence is not None
        if self._patient:
            return _STALL if silence is None else min(_STALL, silence)
        return silence

    def _look_for_stalls(self, now: float) -> None:
        if now - self._looked_for_stalls < _STALL:
            return
        self._looked_for_stalls = now
        for link in list(self._links.values()):
            if type(link) is Connection and not link.worker.withdrawing and link.stalled():
                with self._lock:
                    link.worker.withdrawing = True
                    self._keep().withdraw(link.worker.number, link.sequence)

    def _withdrawn(self, connection: Connection, begun: int) -> None:
        calls = connection.withdrawn(begun)
        for running in list(connection.flight.values()):  # the I/O thread may be taking out what has ended
            running.pace.note(_STALL)  # it is not short after all
        for call in calls:
            call.future.again()
        self._pool.withdrawn(connection.worker, calls)

    # -- the end ---------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if not self._closing or self._inbox:
            return False
        with self._lock:
            # In this order: what is expected no longer has been put into the inbox before.
            self._over = not (self._expecting() or self._inbox or self._unfinished())
        return self._over

    def _unfinished(self) -> bool:
        """Whether calls wait or run. A call that was cancelled while it waited is neither."""
        return self._pool.waiting or any(link.flight for link in self._links.values())

    def _end(self, loop: Loop) -> None:
        """Let the workers end, then the zygote; close everything."""
        self._over = True
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
