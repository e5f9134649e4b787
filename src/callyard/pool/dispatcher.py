"""The dispatcher: calls that any thread submits, decided on one at a time and sent to workers.

    any thread                           the I/O thread of the pool
    ------------------------------------ -------------------------------------------
    tell(call) -> inbox  --.             results, ends of workers -> updates --.
                           v                                                   v
                 the thread that gets the lock empties both into the placement,
                 and sends what that decides, without blocking

`tell` never waits for the lock: it leaves the call in the inbox, and the thread that holds the lock looks there again
after letting go. So a finalizer or a callback may submit a call at any moment, even in the middle of a decision.

An exception may interrupt any thread in the middle of a decision, too, Ctrl-C the main thread. What is half done then
is put in order by the I/O thread, from what is known for certain: what each connection has been given, and which calls
there are. At any moment a call is in a place where it is found: in the inbox, in the placement, or in flight at a
connection.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from ..utils.locks import if_free, new_lock
from ..worker.end_sequence import GRACE
from .call import Call, CallPlan, refuse
from .mpi_group import RankGroup
from .worker import RetireWorker, SendToWorker, StartWorker, Worker
from .worker_connection import WorkerConnection
from .worker_placement import WorkerPlacement
from .zygote_connection import ZygoteProcess

AnyConnection = WorkerConnection | RankGroup  # a worker is one process, or a group of MPI ranks


class Dispatcher:
    """What all threads of a pool share: the inbox, the placement, the connections, and the lock around the last two."""

    grace = 5.0  # s that a worker has to end by itself

    def __init__(self, placement: WorkerPlacement, wake: Callable[[], object]) -> None:
        self.placement = placement
        self._wake = wake  # the I/O thread
        self.lock = new_lock()
        self.inbox: deque[Any] = deque()  # calls, and functions that change what is to be decided
        self.updates: deque[tuple[Worker, list[Call] | None]] = deque()  # a worker is ready, or these have ended there
        self.connections: dict[int, AnyConnection] = {}  # by the number of the worker
        self.zygote: ZygoteProcess | None = None  # made and replaced by the I/O thread
        self.unwatching: dict[int, list[Call]] = {}  # calls with limits that have ended; the worker is not free yet
        self.to_start: list[Worker] = []
        self.starting: list[Worker] = []  # by the I/O thread, just now
        self.start_failed_at = 0.0  # when the last worker could not be started
        self.io_thread: int | None = None
        self.io_polls = False  # the I/O thread looks for stalls by itself; otherwise it may sleep without end
        self.closing = False
        self.killed = False
        self.stopped = False  # no more calls are taken
        self.forked = False  # this is a copy in a forked process
        self._to_cancel: dict[Call, None] = {}  # without the lock, because callbacks run
        self._cancelling: set[int] = set()  # the threads that are at it
        self._half_done = False  # a decision is being made and carried out, or was interrupted at that
        self._sending: AnyConnection | None = None  # to it, just now
        self._deferred: list[SendToWorker | RetireWorker] = []  # left to the I/O thread

    # -- from any thread -------------------------------------------------------------------------------

    def tell(self, event: Any) -> None:
        """Leave the event in the inbox, and empty that unless another thread is at it."""
        try:
            self.inbox.append(event)
            self.pump()
        except BaseException:
            self._cancelling.discard(threading.get_ident())
            self._wake()  # the I/O thread goes on with what is in the inbox, to be cancelled or half done
            raise

    def pump(self) -> None:
        """Empty the inbox and carry out what the placement decides; a thread that is at it already does both."""
        while not (self.forked or self.stopped) and (self.inbox or self.updates):
            if not if_free(self.lock, self._take_turn):
                return
            self.cancel_dropped()
            if self.closing:  # the I/O thread may have found something in the inbox, and thought that it goes on
                self._wake()
        if self.stopped:
            refuse(self.inbox)

    def cancel_dropped(self) -> None:
        """Cancel the calls that were dropped under the lock, now that this thread does not hold it.

        Each stays in `_to_cancel` until it has ended, so that an exception loses none. A callback that comes here again
        leaves them to the loop further up its stack.
        """
        me = threading.get_ident()
        if not self._to_cancel or me in self._cancelling:
            return
        self._cancelling.add(me)
        while self._to_cancel:
            for call in tuple(self._to_cancel):
                call.future.cancel()
                self._to_cancel.pop(call, None)
        self._cancelling.discard(me)

    # -- under the lock --------------------------------------------------------------------------------

    def drop_waiting(self, all_of_them: bool) -> None:
        """Take out the calls that wait; they are cancelled after the lock has been let go."""
        for call in self.placement.drain(all_of_them):
            self._to_cancel[cast(Call, call)] = None

    def _take_turn(self) -> bool:
        """Decide once; False where that must wait until the I/O thread has put in order what was interrupted."""
        if self._half_done:
            return False
        self._half_done = True
        changed = self.take_in()
        if self.killed:  # nothing begins any more, nor what a killed worker had been sent and not begun
            self.drop_waiting(True)
        elif changed and not self.stopped:
            for instruction in self.placement.decide():
                self._carry_out(instruction)
        self._half_done = False  # not in a `finally`: after an exception it is half done
        return True

    def take_in(self) -> bool:
        """Tell the placement what has happened; return whether there may be something new to decide.

        Each event is removed from its queue only after it was dealt with: an exception in between may have it told
        twice, which `restore` mends, but never lost.
        """
        inbox, updates, add, changed = self.inbox, self.updates, self.placement.add, False
        while updates:
            worker, ended = updates[0]
            if ended is None:
                self.placement.started(worker)
            else:
                self.placement.finished(worker, len(ended))
            updates.popleft()
            changed = True
        while inbox and not self.stopped:
            event = inbox[0]
            if type(event) is Call:
                changed |= add(event)
            else:
                event()
                changed = True
            inbox.popleft()
        return changed

    def _carry_out(self, instruction: StartWorker | SendToWorker | RetireWorker) -> None:
        """Do it, or leave it to the I/O thread, which alone talks to the zygote and to ranks."""
        if type(instruction) is StartWorker:
            self.to_start.append(instruction.worker)
            self._wake()
        elif type(instruction) is SendToWorker and not instruction.calls[0].alone:
            self._send(self.connections[instruction.worker.number], instruction)
        elif threading.get_ident() == self.io_thread:
            self._do(cast("SendToWorker | RetireWorker", instruction))
        else:
            self._deferred.append(cast("SendToWorker | RetireWorker", instruction))
            self._wake()

    def _send(self, connection: AnyConnection, instruction: SendToWorker) -> None:
        self._sending = connection
        connection.send(cast("list[Call]", instruction.calls))
        self._sending = None  # not in a `finally`: after an exception nobody knows how much was sent
        if not self.io_polls and len(connection.in_flight) > 1:
            self._wake()

    # -- in the I/O thread, under the lock -------------------------------------------------------------

    def _do(self, instruction: SendToWorker | RetireWorker) -> None:
        number = instruction.worker.number
        if type(instruction) is SendToWorker:
            plan = cast(Call, instruction.calls[0]).plan
            if plan.limited:
                if plan.run_time is not None:
                    cast(Call, instruction.calls[0]).deadline = time.monotonic() + plan.run_time
                self.running_zygote.watch(number, plan.run_time, plan.memory, self.grace_of(plan), plan.warning)
            self._send(self.connections[number], instruction)
        else:
            self.connections[number].leave()
            self.running_zygote.watch(number, self.grace, None)  # should its last functions take too long

    def grace_of(self, plan: CallPlan) -> float:
        """Return the seconds between SIGTERM and SIGKILL."""
        return min(GRACE, self.grace) if plan.grace is None else plan.grace

    def longest_grace(self, connection: AnyConnection, asked_for: bool = False) -> float | None:
        """Return the grace of the calls that were sent there; one of them runs. `asked_for`: None if none has asked."""
        plans = [call.plan for call in connection.in_flight.values()]
        if asked_for:
            return max((plan.grace for plan in plans if plan.grace is not None), default=None)
        return max(map(self.grace_of, plans), default=self.grace)

    @property
    def running_zygote(self) -> ZygoteProcess:
        assert self.zygote is not None, "there are workers, so there is the zygote that forked them"
        return self.zygote

    def run_deferred(self) -> bool:
        """Do what other threads have left to this one, before it does anything else under the lock.

        The caller must have no ended calls in hand: putting in order would take them for running ones.
        """
        if self._half_done:
            self._put_in_order()
        deferred, self._deferred = self._deferred, []
        for instruction in deferred:
            self._do(instruction)
        return True

    def lose(self, worker: Worker) -> AnyConnection | None:
        """Account for a worker that has ended or was not started; return its connection, if it had one."""
        self.placement.lost(worker)
        return self.connections.pop(worker.number, None)

    def not_started(self, worker: Worker, scarce: bool, at_once: bool = False) -> list[Call]:
        """Account for a lost worker that was never ready; return the calls that are given up for it."""
        self.start_failed_at = time.monotonic()
        return cast("list[Call]", self.placement.not_started(worker.shape, scarce, at_once))

    # -- after an interruption -------------------------------------------------------------------------

    def run_interrupted(self) -> None:
        """Go on with what an exception has interrupted in another thread. Without the lock."""
        if self._half_done:
            if_free(self.lock, self.run_deferred)  # otherwise a thread is in the middle of it
        self.cancel_dropped()

    def _put_in_order(self) -> None:
        """Rebuild the accounts after an exception has interrupted another thread in the middle of a decision.

        The connections know what was sent; whatever else is found in the placement waits.
        """
        if self._sending is not None:  # how much was sent is known to its worker alone, which gets nothing more
            self._sending.worker.worn = self._sending.worker.withdrawing = True
            self.running_zygote.withdraw(self._sending.worker.number, self._sending.sequence)
            self._sending = None
        gone = {event for event in self.inbox if type(event) is Call}
        for worker, ended in self.updates:
            worker.ready = True
            gone.update(ended or ())
        self.updates.clear()
        in_flight: dict[int, list[Call]] = {worker.number: [] for worker in self.starting}
        for number, connection in self.connections.items():
            in_flight[number] = self.unwatching.get(number) or list(connection.in_flight.values())
        for call in cast("list[Call]", self.placement.restore(in_flight, gone)):
            call.future.again()
        self.to_start.clear()
        self._deferred = [RetireWorker(worker) for worker in self.placement.workers.values() if worker.leaving]
        self._half_done = False
        self.inbox.append(decide_again)

    # -- the end ---------------------------------------------------------------------------------------

    def stop_if_done(self, expecting: Callable[[], bool]) -> bool:
        """Stop taking calls if the pool is closing and none waits, runs or is expected."""
        if not self.closing or self.inbox or self.updates:
            return False
        with self.lock:
            if self._half_done or self._deferred:
                return False
            # In this order: a call that is expected no longer has been put into the inbox before.
            self.stopped = not (expecting() or self.inbox or self._unfinished())
        return self.stopped

    def _unfinished(self) -> bool:
        """Return whether calls wait or run. A call that was cancelled while it waited does neither."""
        return self.placement.waiting or any(connection.in_flight for connection in self.connections.values())

    def drain(self) -> list[Call]:
        """Take out all calls that wait, whatever was interrupted."""
        with self.lock:
            return [*self._drain()]

    def stop(self) -> list[Call]:
        """Take no more calls; return those that wait and those that run."""
        with self.lock:
            self._sending = None
            waiting = [*self._drain()]
            self.stopped = True
            return waiting + [call for each in self.connections.values() for call in each.in_flight.values()]

    def _drain(self) -> Iterator[Call]:
        if self._half_done:
            self._put_in_order()
        self.take_in()
        return cast("Iterator[Call]", self.placement.drain())


def decide_again() -> None:
    """An event that only makes the placement decide again."""
