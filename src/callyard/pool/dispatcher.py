"""The dispatcher: calls come from any thread, are decided on one at a time, and are sent to workers.

    any thread                           the I/O thread of the pool
    ------------------------------------ -------------------------------------------
    tell(call) -> inbox  --.             results, ends of workers -> updates --.
                           v                                                   v
                 the thread that gets the lock empties both into the placement,
                 and sends the decided calls, without blocking

`tell` never waits for the lock: the call stays in the inbox, and the thread with the lock looks there again after its
release. So a finalizer or a callback may submit a call at any moment, even in the middle of a decision.

An exception, as Ctrl-C in the main thread, may also interrupt any thread in the middle of a decision. Then the I/O
thread puts the accounts in order, from certain knowledge: the calls given to each connection, and all calls there are.
For this, each call is at any moment in a place where it is found: in the inbox, in the placement, or in flight at a
connection.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from ..events.recorder import Recorder
from ..utils.locks import if_free, new_lock
from ..worker.end_sequence import GRACE
from .call import Call, CallPlan, refuse
from .mpi_group import RankGroup
from .worker import RetireWorker, SendToWorker, StartWorker, Worker
from .worker_connection import WorkerConnection
from .worker_placement import WorkerPlacement
from .zygote_connection import ZygoteProcess

_HOST = socket.gethostname()
AnyConnection = WorkerConnection | RankGroup  # a worker is one process, or a group of MPI ranks


class Dispatcher:
    """The state shared by all threads of a pool: inbox, placement, connections, and the lock around the last two."""

    grace = 5.0  # s for a worker to end by itself

    def __init__(self, placement: WorkerPlacement, wake: Callable[[], object]) -> None:
        self.placement = placement
        self._wake = wake  # wakes the I/O thread
        # Guards the placement, and sending to workers and zygote. In users' threads only `if_free` takes this lock.
        self.lock = new_lock()
        self.inbox: deque[Any] = deque()  # calls, and functions to run; added without the lock, removed with it
        # From the I/O thread: a worker is ready (None), or these calls have ended there.
        self.updates: deque[tuple[Worker, list[Call] | None]] = deque()
        # By the number of the worker; changed by the I/O thread alone, so this thread reads without the lock.
        self.connections: dict[int, AnyConnection] = {}
        self.recorder: Recorder | None = None  # is told where calls begin; None where nobody asks
        self.zygote: ZygoteProcess | None = None  # made and replaced by the I/O thread
        self.unwatching: dict[int, list[Call]] = {}  # ended; the worker is free once the zygote drops the limits
        self.to_start: list[Worker] = []  # decided on, not yet seen by the I/O thread
        self.starting: list[Worker] = []  # taken over by the I/O thread, without a connection so far
        self.start_failed_at = 0.0  # the time of the last worker that could not be started
        self.io_thread: int | None = None
        self.io_polls = False  # the I/O thread looks for stalls by itself; otherwise it must be woken
        self.closing = False
        self.killed = False
        self.killed_by_executor = False  # by Ctrl-C, `terminate_workers` or `kill_workers`
        self.stopped = False  # calls are refused from now on
        self.forked = False  # this is a copy in a forked process
        self._to_cancel: dict[Call, None] = {}  # dropped, to be cancelled without the lock, as callbacks run
        self._cancelling: set[int] = set()  # the threads inside `cancel_dropped`
        self._half_done = False  # a decision is under way, or was interrupted
        self._sending: AnyConnection | None = None  # the connection that is being sent to
        self._deferred: list[SendToWorker | RetireWorker] = []  # left to the I/O thread

    # -- from any thread -------------------------------------------------------------------------------

    def tell(self, event: Any) -> None:
        """Put the event into the inbox, and take a turn unless another thread has the lock."""
        try:
            self.inbox.append(event)
            self.pump()
        except BaseException:
            self._cancelling.discard(threading.get_ident())
            self._wake()  # the I/O thread goes on with the inbox, the cancellations or the half-done decision
            raise

    def pump(self) -> None:
        """Empty the inbox and carry out the decisions. If another thread has the lock, that thread does both."""
        while not (self.forked or self.stopped) and (self.inbox or self.updates):
            # The loop looks into the inbox again after each release of the lock: the sender of an event found the lock
            # taken, and left the event to this thread.
            if not if_free(self.lock, self._take_turn):
                return
            self.cancel_dropped()
            if self.closing:  # the I/O thread may have seen a full inbox, and gone to sleep instead of ending
                self._wake()
        if self.stopped:
            refuse(self.inbox)

    def droppable(self, all_of_them: bool) -> list[Call]:
        """Return the calls that `drop_waiting` would drop at this moment. Any thread may ask."""
        arriving = [event for event in tuple(self.inbox) if type(event) is Call]
        return [*arriving, *cast("list[Call]", self.placement.droppable(all_of_them))]

    def cancel_dropped(self) -> None:
        """Cancel the calls dropped under the lock, now without the lock.

        Each call stays in `_to_cancel` until its end, so that an exception loses none. A callback that comes here again
        leaves the rest to the loop further up the stack.
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
        """Take the waiting calls out of the placement; they are cancelled after the release of the lock."""
        for call in self.placement.drain(all_of_them):
            self._to_cancel[cast(Call, call)] = None

    def _take_turn(self) -> bool:
        """Decide once; return False if an interrupted decision must be put in order first, by the I/O thread."""
        if self._half_done:
            return False
        self._half_done = True
        changed = self.take_in()
        if self.killed:  # no call begins any more, also none that a killed worker had been sent
            self.drop_waiting(True)
        elif changed and not self.stopped:
            for instruction in self.placement.decide():
                self._carry_out(instruction)
        self._half_done = False  # not in a `finally`: after an exception the decision is half done
        return True

    def take_in(self) -> bool:
        """Tell the placement of all events; return True if there may be a new decision to make.

        An event leaves the queue only after it has been dealt with. After an exception in between an event may be told
        twice, for `restore` to mend, but none is lost.
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
        """Carry out an instruction, or leave it to the I/O thread: the zygote and ranks hear only from there."""
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
        if self.recorder is not None:  # first: a call that is seen to run has started in the record, too
            worker = "" if connection.pid is None else f"worker {connection.pid}"
            for call in cast("list[Call]", instruction.calls):
                self.recorder.started(call.future, _HOST, worker, call.attempt)
        self._sending = connection
        connection.sent_at = time.monotonic()
        connection.send(cast("list[Call]", instruction.calls))
        self._sending = None  # not in a `finally`: after an exception only the worker knows how much was sent
        if not self.io_polls and len(connection.in_flight) > 1:
            # A second call behind a running one may have to be taken back, and nothing else would wake the thread for
            # that.
            self._wake()

    def wait_again(self, calls: Iterable[Call], reason: str = "") -> None:
        """Let calls that were sent, or ran, be pending again."""
        for call in calls:
            call.future.again()
            if self.recorder is not None:
                self.recorder.waiting(call.future, reason)

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
            self.running_zygote.watch(number, self.grace, None)  # for a worker whose exit functions take too long

    def end_unwanted(self, call: Call) -> bool:
        """End the worker that runs this call; return False if none does, as the call waits behind another one."""
        for number, connection in self.connections.items():
            if connection.runs(call):
                connection.worker.worn = True  # no other call may be hit
                self.running_zygote.kill(number, signal.SIGTERM, self.grace_of(call.plan))
                return True
        return False

    def grace_of(self, plan: CallPlan) -> float:
        """Return the seconds between SIGTERM and SIGKILL."""
        return min(GRACE, self.grace) if plan.grace is None else plan.grace

    def longest_grace(self, connection: AnyConnection, asked_for: bool = False) -> float | None:
        """Return the longest grace of the calls in flight there; one of them runs.

        With `asked_for`, only graces of the calls' own count; None if there are none.
        """
        plans = [call.plan for call in connection.in_flight.values()]
        if asked_for:
            return max((plan.grace for plan in plans if plan.grace is not None), default=None)
        return max(map(self.grace_of, plans), default=self.grace)

    @property
    def running_zygote(self) -> ZygoteProcess:
        assert self.zygote is not None, "there are workers, so there is the zygote that forked them"
        return self.zygote

    def run_deferred(self) -> bool:
        """Carry out what other threads have left to this one; the first step under the lock.

        The caller must have no ended calls in hand: to put the accounts in order would take them for running ones.
        """
        if self._half_done:
            self._put_in_order()
        deferred, self._deferred = self._deferred, []
        for instruction in deferred:
            self._do(instruction)
        return True

    def lose(self, worker: Worker) -> AnyConnection | None:
        """Account for a worker that has ended or was not started; return the connection, if there is one."""
        self.placement.lost(worker)
        return self.connections.pop(worker.number, None)

    def not_started(self, worker: Worker, scarce: bool, at_once: bool = False) -> list[Call]:
        """Account for a lost worker that was never ready; return the calls given up with the worker."""
        self.start_failed_at = time.monotonic()
        return cast("list[Call]", self.placement.not_started(worker.shape, scarce, at_once))

    # -- after an interruption -------------------------------------------------------------------------

    def run_interrupted(self) -> None:
        """Go on with the work that an exception has interrupted in another thread.

        The caller does not hold the lock.
        """
        if self._half_done:
            if_free(self.lock, self.run_deferred)  # with the lock taken, a thread is in the middle of a decision
        self.cancel_dropped()

    def _put_in_order(self) -> None:
        """Rebuild the accounts after an exception has interrupted another thread in the middle of a decision.

        The connections know the calls that were sent; every other call found in the placement waits.
        """
        if self._sending is not None:  # only the worker knows how much has arrived, so it gets no more
            self._sending.worker.worn = self._sending.worker.withdrawing = True
            self.running_zygote.withdraw(self._sending.worker.number, self._sending.sequence)
            self._sending = None
        # Not waiting: calls still in the inbox are added from there, and the others have ended.
        gone = {event for event in self.inbox if type(event) is Call}
        for worker, ended in self.updates:
            worker.ready = True
            gone.update(ended or ())
        self.updates.clear()
        in_flight: dict[int, list[Call]] = {worker.number: [] for worker in self.starting}
        for number, connection in self.connections.items():
            # A call with limits counts as running until the zygote has dropped them.
            in_flight[number] = self.unwatching.get(number) or list(connection.in_flight.values())
        self.wait_again(cast("list[Call]", self.placement.restore(in_flight, gone)))
        self.to_start.clear()
        # The instructions to retire may not have been carried out; `leave` may be repeated.
        self._deferred = [RetireWorker(worker) for worker in self.placement.workers.values() if worker.leaving]
        self._half_done = False
        self.inbox.append(decide_again)

    # -- the end ---------------------------------------------------------------------------------------

    def stop_if_done(self, expecting: Callable[[], bool]) -> bool:
        """Stop taking calls if the pool is closing, and no call waits, runs or is expected; return True if stopped."""
        if not self.closing or self.inbox or self.updates:
            return False
        with self.lock:
            if self._half_done or self._deferred:
                return False
            # In this order: an expected call is put into the inbox before it ceases to be expected.
            self.stopped = not (expecting() or self.inbox or self._unfinished())
        return self.stopped

    def _unfinished(self) -> bool:
        """Return True if calls wait or run. A call cancelled while waiting does neither."""
        return self.placement.waiting or any(connection.in_flight for connection in self.connections.values())

    def drain(self) -> list[Call]:
        """Take out all waiting calls, also after an interruption."""
        with self.lock:
            return [*self._drain()]

    def stop(self) -> list[Call]:
        """Take no more calls; return the waiting and the running ones."""
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
    """Change nothing; as an event in the inbox, make the placement decide again."""
