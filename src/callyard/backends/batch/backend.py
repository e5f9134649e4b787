"""The batch backend: calls as jobs of a scheduler, which outlive this process.

    any thread                   the thread "callyard-jobs"
    ---------------------------- ---------------------------------------------------------------------------
    submit: pack, note inputs -> gather for a moment, attach to jobs of the same calls (earlier_batches)
    cancel                       plan the others as few arrays, write those (writer), submit them in order (submitter)
                                 look at the files now and then, for calls that have begun or ended (poller)
                                 ask the scheduler now and then, for jobs that ended without a file (poller)

`executor_state_machine` decides on the work and the time, without I/O; the other modules carry out the decisions, and
report. Commands run in a third thread (`CommandThread`), so that a hanging one keeps no look at files waiting.

A batch is written first, then submitted, and at last the job's ID is written, too. After a kill at any moment another
process finds out how far this one came: the job's comment contains the token of the batch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

from ...cache.directory import CacheDirectory
from ...dependencies.wait import when_done
from ...errors import CallyardError, SchedulerError
from ...futures import Future, ends_futures, when_ended
from ...hashing.call_key import Reference, references_of
from ...resources import Resources
from ...serialize.packed import load_with_inputs
from ...status.call_status import CallStatus
from ...status.ended_calls import EndedCalls
from ...status.executor_status import ExecutorStatus
from ...utils import interpreter_exit
from ...utils.command_thread import CommandThread
from ...utils.threads import LazyThread, next_item
from ..base import Settings
from ..cached.cached_future import CachedCall, KeyedResult
from ..failed_nodes import FailedNodes
from ..live_base import FORKED, unpicklable
from ..run_directories import remove_if_over
from ..unfinished_calls import UnfinishedCall
from .apart_pickles import ApartPickles
from .batch_state import Abandon, Ask, Drop, ExecutorAction, Look, Settle, Submit, Write
from .batch_status import add_call, status_of
from .call import JobCall, JobFuture, call_of
from .call_pickles import LargeContents, packed_call, pickle_call
from .delivery import Delivery
from .earlier_batches import EarlierBatches
from .executor_state_machine import ExecutorState
from .job_check import JobCheck
from .poller import FileWatcher, Poller
from .scheduler_client import SchedulerClient
from .submitter import Canceller, Submitter
from .writer import BatchWriter, Intake, JobSettings

_log = logging.getLogger("callyard")
_QUIET, _LONGEST = 0.02, 1.0  # s without a new call, and s in all, before the gathered calls go out together
_FAILURES = 3  # in a row, before the executor is given up


class BatchBackend:
    """The calls of one executor as jobs."""

    detached = True

    def __init__(
        self,
        scheduler: SchedulerClient,
        home: CacheDirectory,
        job_settings: JobSettings,
        settings: Settings,
        private: bool,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.home, self.job_settings, self._clock = home, job_settings, clock
        self._settings, self._contents = settings, LargeContents()
        self._apart = ApartPickles(self._contents)
        self._scheduler = scheduler
        self._private = private  # no other process looks for results there
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._waiting: dict[Future[Any], int] = {}  # the futures without an end so far, with the numbers of the calls
        self._numbers, self._ended_calls = count(), EndedCalls()
        self._commands = commands = CommandThread(self._inbox.put)
        self._state = state = ExecutorState(job_settings.poll, job_settings.result_grace)
        self._delivery = delivery = Delivery(home, private, state, clock, settings.executor, settings.recorder)
        self._earlier = earlier = EarlierBatches(home, state, delivery, clock)
        self._submitter = Submitter(commands, scheduler, state, earlier, delivery, clock)
        writer = BatchWriter(home, job_settings, settings, private)
        self._intake = Intake(commands, scheduler, state, writer, earlier, delivery, self._submitter)
        poller = Poller(commands, scheduler, state, delivery, clock)
        self._poller, self._watcher = poller, FileWatcher(state, delivery, poller, clock)
        self._canceller = Canceller(commands, scheduler, state, earlier, delivery)
        delivery.told_of_moves = self._canceller.end_left_behind
        self._check = JobCheck(scheduler.texts, job_settings)
        self._thread = LazyThread("callyard-jobs")
        self.failed_nodes = FailedNodes(job_settings.exclude_failed_nodes)
        self._closing = self._leaving = False
        self._broken = False
        self.forked = False
        # Last, after all attributes: a fork, or the end of the interpreter, may come at any moment.
        _backends.add(self)
        interpreter_exit.register(self)

    # -- any thread ----------------------------------------------------------------------------------------

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        resources: Resources,
        ticket: CachedCall | None = None,
    ) -> Future[Any]:
        if self.forked:
            raise RuntimeError(FORKED)
        if self._broken:
            raise SchedulerError("this executor cannot look after jobs any more, see the log; make a new one")
        resources = self.failed_nodes.without(self._check.completed(resources))
        self._check.check(resources)
        future = JobFuture(getattr(fn, "__name__", None) or type(fn).__name__, self._wake)
        parts, sources = (fn, args, dict(kwargs)), list[Any]()
        try:
            if ticket is not None:
                references, partial_key = tuple[Reference, ...](), ticket.partial_key()
                imported, reach = partial_key.imported, partial_key.reach
            else:
                references, reach = references_of(fn, args, kwargs, self._settings.changes_data)
                imported = frozenset(reference[0] for reference in references)
            data = pickle_call(parts, sources, self._contents)
            apart_data = self._apart.of(parts, imported, reach)
        except Exception as error:
            future.fail_with(unpicklable(fn, args, kwargs, error))
            return future
        self._begin()  # first: without a thread there is no call
        call = future.call = JobCall(future, resources, ticket, self, data, apart_data, sources, references)
        try:
            self._accept(call, sources)
        except BaseException:  # no user is going to have this future, so no job must come of this call
            future.cancel()
            self._forget(call, future)
            raise
        return future

    def _accept(self, call: JobCall, sources: list[Any]) -> None:
        future = call.future
        # Before anything can end the call: an executor being closed looks here for calls to wait for.
        self._waiting[future] = next(self._numbers)
        when_ended(future, partial(self._forget, call))
        foreign = tuple(source for source in sources if call_of(source, self) is None)
        if sources:
            when_done(tuple(sources), future, _nothing)  # a failure of one is at once the call's failure
        if foreign:
            when_done(foreign, future, partial(self._admit, call))
        else:
            self._enter(call)

    def _admit(self, call: JobCall) -> None:
        """Enter a call after the ends of foreign inputs; without other inputs, try its key in the cache first."""
        if call.ticket is None or not all(source.done() for source in call.sources):
            self._enter(call)
            return
        known = list(map(KeyedResult, call.sources))
        data = call.data
        call.ticket.admit(lambda: load_with_inputs(packed_call(data), known)[1:], partial(self._enter, call))

    def _enter(self, call: JobCall) -> None:
        self._do(partial(self._state.enter, [call]))

    def _do(self, step: Callable[[], object]) -> None:
        self._begin()
        self._inbox.put(step)

    def _begin(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: no thread can be started; nothing has changed.
        """
        if not self.forked:
            self._thread.start(self._run)

    def _wake(self) -> None:
        if self._thread.started:
            self._inbox.put(_nothing)

    def _forget(self, call: JobCall, future: Future[Any]) -> None:
        if self._waiting.pop(future, None) is not None:
            self._ended_calls.note_end(future)
        if self._thread.started:
            # Through the inbox, because no thread but "callyard-jobs" touches the states of calls and batches.
            self._inbox.put(partial(self._state.left, call))

    def status_of(self, future: JobFuture) -> CallStatus | None:
        """Return the status of a call that has not ended."""
        call = future.call
        return None if call is None else status_of(call, self._state, self._scheduler.name, self._clock())

    def status(self, ask: bool = True) -> ExecutorStatus:  # all that is known is known here
        status = ExecutorStatus()
        for future, number in list(self._waiting.items()):
            call = future.call if isinstance(future, JobFuture) and not future.done() else None
            if call is not None:
                add_call(status, call, status_of(call, self._state, self._scheduler.name, self._clock()), number)
        status.add_ended(self._ended_calls)
        return status

    def unfinished(self) -> list[UnfinishedCall]:
        """Return the calls that have not ended."""
        calls = [(number, future, getattr(future, "call", None)) for future, number in list(self._waiting.items())]
        return [UnfinishedCall(number, future, "" if call is None else call.id) for number, future, call in calls]

    # -- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        ends_futures(self._wake)
        failures = 0  # in a row
        while failures < _FAILURES:
            try:
                if self._is_over():  # here, because no event tells of this thread's own work
                    self._tidy()
                    return
                self._take_in(self._patience())
                for action in self._state.decide(self._clock()):
                    _guarded(partial(self._carry_out, action))
                failures = 0
            except BaseException:  # in a decision; errors of calls and batches stay there
                failures += 1
                _log.exception("callyard: jobs cannot be looked after")
        # Before the futures fail: a callback may submit another call, and must learn that no thread looks after it.
        self._broken = True
        for future in list(self._waiting):
            future.fail_with(SchedulerError(f"{future.name!r} is not looked after any more; make a new executor"))

    def _patience(self) -> float | None:
        """Return the seconds until the next task; None if an event must come first."""
        due = self._state.due()
        return None if due is None else max(0.0, due - self._clock())

    def _take_in(self, patience: float | None) -> None:
        """Take all events out of the inbox. After a new call wait a moment for more calls."""
        until = None
        while True:
            try:
                event = next_item(self._inbox, patience)
            except queue.Empty:
                return
            _guarded(event)
            until = until or self._clock() + _LONGEST  # from the first event on, however long the wait before
            # Without new calls only the events already there are taken, so that the decisions are not delayed.
            patience = min(_QUIET, max(0.0, until - self._clock())) if self._state.new else 0.0

    def _carry_out(self, action: ExecutorAction, at_last: bool = False) -> None:
        match action:
            case Write():
                self._intake.write(self._clock(), at_last)
            case Submit(batch):
                self._submitter.send(batch)
            case Look(batches):
                self._watcher.look(batches)
            case Ask(batches):
                self._poller.ask(batches)
            case Abandon(calls):
                self._canceller.abandon(calls)
            case Drop(batch, calls):
                self._canceller.drop(batch, calls)
            case Settle(batch):
                self._earlier.settle(batch.directory)

    # -- ends ------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if self._leaving:
            self._send_last()
            return True
        if not self._closing or self._waiting or not self._state.is_idle:
            return False
        self._scheduler.stop_asking()
        return not self._commands.busy

    def _send_last(self) -> None:
        """Submit all that the scheduler takes now, at the interpreter's end; then no caller here waits any more."""
        self._take_in(0.0)
        self._scheduler.stop_asking()
        # A command under way may be a submission; its end comes through the inbox.
        while self._commands.busy:
            _guarded(self._inbox.get())
        self._commands.stay()
        self._state.hurry()
        while actions := [each for each in self._state.decide(self._clock()) if not isinstance(each, (Look, Ask))]:
            for action in actions:
                _guarded(partial(self._carry_out, action, at_last=True))
        left = [call for call in self._state.unsent_calls() if not call.future.done()]
        if left:
            _log.warning(
                "callyard: the scheduler has not taken %d calls yet; `callyard resume %s` submits them later",
                len(left), self.home.path,
            )  # fmt: skip
        self._earlier.leave()
        for future in list(self._waiting):
            future.on_cancel = None
            future.again()  # running ones are cancelled too, as far as this process can tell
            future.cancel()

    def _tidy(self) -> None:
        """Remove files of jobs without a submitter, because only other processes can do so."""
        with contextlib.suppress(OSError, CallyardError):
            self._earlier.tidy()
            if self._private:
                remove_if_over(self.home)

    def cancel_pending(self) -> None:
        for future in list(self._waiting):
            future.cancel()
        self._wake()

    def kill(self, signum: int) -> None:
        """End the jobs awaited by this executor alone."""
        self._closing = True
        self._do(self._canceller.end_all)
        self.cancel_pending()

    def interrupt(self) -> None:
        """End for Ctrl-C: the jobs stay, unless no process could ever have their results."""
        if self._private:
            self.kill(0)
        else:
            self.begin_end()

    def close(self, wait: bool) -> None:
        self._closing = True
        self._apart.forget()
        if not self._thread.started and (self._private or os.path.exists(f"{self.home.path}/jobs")):
            self._do(_nothing)  # no call was made, but there may be old files to remove
        self._wake()
        if wait:
            self.wait_for_end()

    def begin_end(self) -> None:
        self._closing = self._leaving = True
        self._wake()

    def wait_for_end(self) -> None:
        if not self.forked:
            self._thread.join()

    def after_fork(self) -> None:
        """Refuse calls in a forked child without the thread: the jobs are the parent's."""
        self.forked = True

    @property
    def description(self) -> str:
        where = "" if not self._private else f", without a cache, in {self.home.path}"
        return f"detached, each call a job of {self.job_settings.place or self.job_settings.scheduler}{where}"


_backends: weakref.WeakSet[BatchBackend] = weakref.WeakSet()


def _in_forked_child() -> None:
    for backend in list(_backends):
        backend.after_fork()


os.register_at_fork(after_in_child=_in_forked_child)


def _guarded(step: Callable[[], object]) -> None:
    """Take a step for one call or batch; an unforeseen error does not reach the others."""
    try:
        step()
    except BaseException:
        _log.exception("callyard: a step for jobs was interrupted")


def _nothing() -> None:
    """Do nothing: as an event, this wakes the thread."""
