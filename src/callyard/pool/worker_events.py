"""Worker events: messages from workers and from the zygote, and the fate of calls when a worker ends.

All of this runs in the I/O thread of the pool, which takes the dispatcher's lock for the state that other threads see,
too. Futures are ended without the lock: their callbacks may submit calls, or wait for a thread that does.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from ..errors import WorkerLost
from ..futures import Lazy
from ..system.processes import wait_for_end
from ..transport.event_loop import WRITE, EventLoop
from ..transport.stream import FrameStream
from .blocked_streams import BlockedStreams
from .call import Call
from .call_errors import PackedError, StartError, alone_error, lost_error
from .dispatcher import AnyConnection, Dispatcher, decide_again
from .mpi_group import RankGroup
from .worker_connection import Ended, WorkerConnection
from .zygote_connection import ZygoteEvent

_log = logging.getLogger("callyard")
_STALL = 0.01  # s after which calls are taken back from behind a running one
_MOST_ZYGOTES = 5  # losses in a row, without an ended call in between, after which waiting calls fail
_SIGNALLED = frozenset((-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGKILL))  # exit codes
_OUT_OF_MEMORY = "OutOfMemory"
# The reasons for the end of a worker: lost, or beyond a limit of its call, with the name of the call's error.
_LOST = (None, "rank", "silence")
_BEYOND_LIMITS = {"memory": _OUT_OF_MEMORY, "job memory": _OUT_OF_MEMORY, "run_time": "TimeLimitExceeded"}
_RANKS_GRACE = 3.0  # s for an MPI launcher to end the others when a rank has gone


class WorkerEvents:
    """The handlers of the I/O thread's loop, and the checks of that thread between two events."""

    def __init__(self, dispatcher: Dispatcher, loop: EventLoop, wake: Callable[[], object]) -> None:
        self._dispatcher, self._loop = dispatcher, loop
        self.streams = BlockedStreams(dispatcher.lock, loop, wake, self._on_broken)
        self._zygotes_lost = 0  # in a row
        self._zygote_timed = False  # True if the zygote may be silent too long, so that each wait ends in a check
        self._looked_for_stalls = 0.0

    # -- handlers --------------------------------------------------------------------------------------

    def on_rank_connecting(self, group: RankGroup, mask: int) -> None:
        try:
            connection = group.accept()
            if connection is not None:
                self._loop.watch(connection.stream.sock, partial(self.on_worker, group, connection))
        except OSError as error:  # the other ranks would wait for this one for ever
            group.fault = f"a rank could not be connected to ({error})"
            self._loop.forget(group.listener)
            self._end_worker(group)
            return
        if group.complete:
            self._loop.forget(group.listener)
            group.stop_listening()

    def on_worker(self, owner: AnyConnection, connection: WorkerConnection, mask: int) -> None:
        """Read from or write to a process of a worker; `owner` is the group of ranks, or `connection` itself."""
        if owner.worker.number not in self._dispatcher.connections:  # lost while this event waited for its turn
            return
        if mask & WRITE:
            self.streams.flush(connection.stream)
        # A rank may be greeted, and sending needs the lock.
        with self._dispatcher.lock if owner is not connection else contextlib.nullcontext():
            ends = owner.take_frames(connection, connection.receive())
        self.settle(owner, ends)
        if connection.ended:  # the process has ended, as the zygote is going to tell, or has closed the stream
            self._loop.forget(connection.stream.sock)
            if not owner.worker.leaving:
                self._end_worker(owner)

    def settle(self, connection: AnyConnection, ends: list[Ended]) -> None:
        """Tell the placement of the ended calls, so that the worker gets the next ones; only then end the futures."""
        dispatcher, worker = self._dispatcher, connection.worker
        if connection.says_ready:
            connection.says_ready = False
            dispatcher.updates.append((worker, None))
        if connection.must_end:
            with dispatcher.lock:
                dispatcher.running_zygote.kill(worker.number, signal.SIGKILL)
        elif ends and ends[0][0].plan.limited:
            with dispatcher.lock:  # the worker is free once the zygote says that no limit can hit any more
                dispatcher.unwatching[worker.number] = [ends[0][0]]
                dispatcher.running_zygote.unwatch(worker.number)
        elif ends:
            dispatcher.updates.append((worker, [call for call, _, _ in ends]))
        dispatcher.pump()
        # Without the lock, and after the next calls have been sent: callbacks may take long.
        self._finish(ends)
        dispatcher.pump()  # the callbacks of this thread have only put their calls into the inbox

    def on_zygote(self, mask: int) -> None:
        zygote = self._dispatcher.running_zygote
        if mask & WRITE:
            self.streams.flush(zygote.stream)
            if self._dispatcher.zygote is not zygote:  # nothing can be sent to the old one, which is gone
                return
        events = zygote.receive()
        if events is None:
            self._zygote_lost()
            return
        for event in events:
            connection = self._dispatcher.connections.get(event.number)
            if connection is not None:
                self._on_zygote_event(connection, event)
        self._dispatcher.pump()

    def _on_zygote_event(self, connection: AnyConnection, event: ZygoteEvent) -> None:
        if event.what == "spawned":
            connection.pid = event.value
            connection.handed_over()  # only now: the message with the descriptors may have had to wait
        elif event.what == "exited":
            self._worker_ended(connection, event.value, event.reason, used=event.used)
        elif event.what == "unwatched":
            dispatcher = self._dispatcher
            dispatcher.updates.append((connection.worker, dispatcher.unwatching.pop(event.number)))
        else:
            self._calls_withdrawn(cast(WorkerConnection, connection), *event.value)

    # -- ends of workers -------------------------------------------------------------------------------

    def _end_worker(self, connection: AnyConnection) -> None:
        zygote = self._dispatcher.running_zygote
        with self._dispatcher.lock:
            if connection.rank_gone:  # the launcher knows the reason better, and ends the other ranks
                zygote.let_end(connection.worker.number, _RANKS_GRACE)
            else:
                zygote.kill(connection.worker.number, signal.SIGKILL)

    def _on_broken(self, stream: FrameStream) -> None:
        """End the other side of a broken stream: it receives no more calls, so answers would be awaited for ever."""
        zygote = self._dispatcher.zygote
        if zygote is not None and zygote.stream is stream:
            self._zygote_lost()
            return
        for connection in list(self._dispatcher.connections.values()):
            if stream.sock in connection.sockets() and not connection.worker.leaving:
                connection.fault = f"nothing could be sent to it ({stream.broken})"
                self._end_worker(connection)

    def _worker_ended(
        self,
        connection: AnyConnection,
        exitcode: int | None,
        reason: str | None,
        hopeless: bool = False,
        used: Sequence[float] | None = None,
    ) -> None:
        """Account for a process that is gone: finished calls count, the running one fails, the rest goes elsewhere."""
        dispatcher, worker = self._dispatcher, connection.worker
        for sock in connection.sockets():
            self._loop.forget(sock)
        given_up: list[Call] = []
        with dispatcher.lock:  # all at once: no call may be sent here between the last look and the end
            dispatcher.run_deferred()
            dispatcher.unwatching.pop(worker.number, None)
            dispatcher.take_in()  # ends to be known first, and withdrawn calls, which the worker has begun to skip
            ends = connection.drain()
            failed = self._put_back(connection, reason)
            if not worker.ready and not dispatcher.killed:
                scarce = exitcode is None and reason not in (None, "silence") and not hopeless  # there was no process
                at_once = hopeless or connection.initializer_error is not None or connection.alone is not None
                given_up = dispatcher.not_started(worker, scarce, at_once)
        dispatcher.inbox.append(decide_again)
        dispatcher.pump()
        # Futures last, without the lock: by now the pool works on, whatever the callbacks of the futures do.
        self._finish(ends)
        if reason is None and dispatcher.killed_by_executor and exitcode in _SIGNALLED:
            reason = "executor"
        for call in failed:
            usage = connection.used_until_its_end(used) if call.measured else None
            if usage is not None:
                call.used(usage)
            if hasattr(call, "unwanted"):
                cancel_unwanted(call)
                continue
            before = f"{connection.fault}, so " if connection.fault else connection.rank_gone
            call.future.fail_with(lost_error(call, connection.pid, exitcode, reason, before))
        for call in given_up:
            _fail_not_started(call, connection, exitcode, reason)
        connection.close()

    def _finish(self, ends: list[Ended]) -> None:
        for call, packed, failed in ends:
            if not call.asks_again:
                finish(call, packed, failed)
            elif call.future.passes_again_on and not hasattr(call, "unwanted"):
                call.future.pass_again_on(packed, failed)
            elif words := prepare_next_run(call, packed, failed, self._dispatcher.killed):
                self._run_again(call, words)
            else:
                finish(call, packed, failed)

    def _run_again(self, call: Call, words: str) -> None:
        """Put a call that is to run again behind all others, unless the pool is being killed."""
        self._dispatcher.wait_again([call], words)
        if self._dispatcher.killed:
            call.future.cancel()
        else:
            self._dispatcher.inbox.append(call)

    def _put_back(self, connection: AnyConnection, reason: str | None) -> list[Call]:
        """Let the calls of a lost worker wait again, also the running one as often as it may; return the others."""
        ran, rest = connection.take_unfinished()
        may = [call for call in ran if not (self._dispatcher.killed or hasattr(call, "unwanted"))]
        self._dispatcher.lose(connection.worker)
        again = [call for call in may if reason in _LOST and call.restarted < call.plan.restarts]
        for call in again:
            # A run with a lost worker counts for the limit of restarts, and for the attempts shown to the user.
            call.restarted += 1
            call.next_attempt()
        self._dispatcher.wait_again(again, "for another worker, because the one before was lost")
        error = _BEYOND_LIMITS.get(reason or "", "")
        with_more = [call for call in may if call.run_with_more(error)]
        self._dispatcher.wait_again(with_more, words_of_more(error))
        self._dispatcher.wait_again(rest)
        # To the front, the oldest first: these calls have waited once.
        self._dispatcher.placement.put_back(reversed([*again, *with_more, *rest]))
        return [call for call in ran if call not in again and call not in with_more]

    # -- the zygote ------------------------------------------------------------------------------------

    def _zygote_lost(self, reason: str | None = None) -> None:
        """Account for a zygote that is gone: all workers die with it, and the next zygote forks new ones."""
        dispatcher = self._dispatcher
        zygote, connections = dispatcher.running_zygote, list(dispatcher.connections.values())
        self._loop.forget(zygote.stream.sock)
        zygote.close()
        some_ended = any(connection.sequence > len(connection.in_flight) for connection in connections)
        self._zygotes_lost = 0 if some_ended else self._zygotes_lost + 1
        until = time.monotonic() + dispatcher.grace
        for connection in connections:
            # Wait first: a call must not run again beside its old process.
            if connection.pid is not None:
                wait_for_end(connection.pid, until - time.monotonic())
            why = None if connection.worker.ready else zygote.why_not_started
            self._worker_ended(connection, None, why or reason, hopeless=why is not None)
        dispatcher.zygote = None  # only now: other threads may talk to the zygote until all workers are accounted for
        if self._zygotes_lost >= _MOST_ZYGOTES:
            self._fail_waiting(f"the process that starts workers ended {self._zygotes_lost} times in a row")

    def _fail_waiting(self, why: str) -> None:
        self._zygotes_lost = 0
        for call in self._dispatcher.drain():
            call.future.fail_with(WorkerLost(f"no worker could be started for {call.future.name!r}: {why}"))

    def check_zygote(self, now: float) -> None:
        """End a silent zygote: it would neither keep limits nor report deaths."""
        dispatcher, zygote = self._dispatcher, self._dispatcher.zygote
        if zygote is None or not self._zygote_timed:
            return
        with dispatcher.lock:
            answers = zygote.answers(now)
        if not answers:
            _log.error("the process that keeps the limits of calls does not answer: it is ended, with its workers")
            zygote.abandon([each.pid for each in dispatcher.connections.values() if each.pid is not None])
            self._zygote_lost("silence")
            dispatcher.pump()

    # -- calls behind a long one -------------------------------------------------------------------------

    def patience(self) -> float | None:
        """Return the seconds for which no check is due; a thread that sends something else wakes this one.

        `io_polls` is False during the look at the connections: a call sent in the meantime wakes this thread.
        """
        dispatcher = self._dispatcher
        dispatcher.io_polls = False
        dispatcher.io_polls = bool(self.streams.stuck) or any(
            len(connection.in_flight) > 1 for connection in dispatcher.connections.values()
        )
        silence = None if dispatcher.zygote is None else dispatcher.zygote.patience()
        self._zygote_timed = silence is not None
        times = (_STALL if dispatcher.io_polls else None, silence)
        return min((time for time in times if time is not None), default=None)

    def withdraw_stalled(self, now: float) -> None:
        """Ask the zygote to take back the calls behind one that has been running for a while."""
        if now - self._looked_for_stalls < _STALL:
            return
        self._looked_for_stalls = now
        for connection in list(self._dispatcher.connections.values()):
            # Ranks are sent one call at a time, so nothing waits behind another call there.
            if type(connection) is WorkerConnection and not connection.worker.withdrawing and connection.stalled():
                with self._dispatcher.lock:
                    connection.worker.withdrawing = True
                    self._dispatcher.running_zygote.withdraw(connection.worker.number, connection.sequence)

    def _calls_withdrawn(self, connection: WorkerConnection, begun: int, unsent: bytes) -> None:
        """Put back the calls after number `begun`, withdrawn by the zygote, and end the calls in `unsent`."""
        self.settle(connection, connection.receive_unsent(unsent))
        dispatcher = self._dispatcher
        with dispatcher.lock:
            dispatcher.run_deferred()
            dispatcher.take_in()  # ends that the placement must know first
            calls = connection.withdrawn(begun)
            for running in list(connection.in_flight.values()):
                running.pace.note(_STALL)  # the running call is not short after all
            dispatcher.wait_again(calls)
            dispatcher.placement.withdrawn(connection.worker, calls)
        dispatcher.inbox.append(decide_again)


def prepare_next_run(call: Call, packed: Lazy, failed: bool, killed: bool) -> str:
    """Prepare the next run of a call that asks for one; return what it waits for, "" if it does not run again.

    Args:
        call: the call, which has ended.
        packed: its arguments for the next run, or its error.
        failed: the call has used up its memory, and asks for its next limit.
        killed: no further run can begin.
    """
    if hasattr(call, "unwanted"):
        return ""
    if failed:
        return words_of_more(_OUT_OF_MEMORY) if not killed and call.run_with_more(_OUT_OF_MEMORY) else ""
    call.run_again(packed)
    return "for its next run, because it has raised Again"


def words_of_more(error: str) -> str:
    """Return what a call waits for after an error that leads to the next limit of a list."""
    return f"for its next run, with the next limit after {error}"


def finish(call: Call, packed: Lazy, failed: bool) -> None:
    """End the call's future, unless the call did not run here and is going to run elsewhere."""
    note = call.note
    if note is not None and call.noted is not None and call.noted(call, note):
        return  # the call did not run here
    if hasattr(call, "unwanted") and (failed or call.asks_again):
        cancel_unwanted(call)
    elif failed:
        call.future.fail(PackedError(packed, call))
    else:
        call.pace.finished += 1  # before the end: whoever has the result may ask for the status at once
        if not call.future.finish(packed):
            call.pace.finished -= 1  # cancelled meanwhile


def cancel_unwanted(call: Call) -> None:
    """Cancel a call that ran, and was ended by a person's word."""
    call.future.again()
    call.future.cancel()


def _fail_not_started(call: Call, connection: AnyConnection, exitcode: int | None, reason: str | None) -> None:
    if connection.alone:
        call.future.fail_with(alone_error(call, connection.worker.shape.ranks, connection.alone))
    else:
        why = reason or connection.fault or None
        call.future.fail(StartError(call, connection.initializer_error, exitcode, why))
