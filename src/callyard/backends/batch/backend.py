"""Calls that are jobs of a scheduler and outlive this process.

    any thread                   the thread "callyard-jobs"
    ---------------------------- ---------------------------------------------------------------------------
    submit: pack, note inputs -> a moment later: which of them has somebody submitted before? watch those (earlier).
    cancel                       The others: plan few arrays, write them down (writing), submit them in order (sending)
                                 look at the files now and then:      what has begun, what has ended (watch)
                                 ask the scheduler now and then:      what ended without a file, and why (questions)

Commands are typed in a third thread (clerk), so that one that hangs keeps nobody from looking at files.

What is written comes before what is submitted, and that before what is written about it: wherever this process is
killed, another one finds out how far it came, because the token of what was written is in the job's comment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any

from ...cache.directory import CacheDirectory
from ...dependencies.wait import when_done
from ...errors import CallyardError, SchedulerError
from ...futures import Future, ends_futures, when_ended
from ...resources import Resources
from ...serialize.function_registry import dumps
from ...serialize.importable import apart
from ...serialize.packer import Packed, load_with_inputs, note_futures
from ...utils import interpreter_exit
from ...utils.command_thread import CommandThread
from ...utils.threads import LazyThread
from ..base import Settings
from ..cached.future import CachedCall, KeyedResult
from ..live import FORKED, unpicklable
from ..resource_mapping import job_options
from ..run_directories import remove_if_over
from .attach import EarlierBatches
from .call import JobCall, JobFuture, call_of
from .canceller import Canceller
from .intake import Intake, give_up
from .job_files import FileWatcher
from .poller import Poller
from .scheduler_client import SchedulerClient
from .submitter import Submitter
from .tracker import Tracker
from .writer import BatchWriter, JobSettings

_log = logging.getLogger("callyard")
_QUIET, _LONGEST = 0.02, 1.0  # s without a new call, and s in all, after which what was submitted goes out together
_FAILURES = 3  # in a row, after which it is given up


class BatchBackend:
    """The calls of one executor as jobs."""

    detached = True

    def __init__(
        self, desk: SchedulerClient, home: CacheDirectory, terms: JobSettings, settings: Settings, private: bool
    ) -> None:
        self.home, self.terms = home, terms
        self._desk = desk
        self._private = private  # nobody else looks for results there
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._waiting: set[Future[Any]] = set()  # those whose futures have not ended
        self._clerk = clerk = CommandThread(self._inbox.put)
        self._following = following = Tracker(home, private, terms.poll, self._ended)
        self._earlier = earlier = EarlierBatches(home, following)
        self._sender = Submitter(clerk, desk, following, earlier)
        self._questions = Poller(clerk, desk, following, self._sender, terms.result_grace)
        writer = BatchWriter(home, terms, settings, private)
        self._intake = intake = Intake(self, clerk, desk, writer, earlier, self._sender, terms.poll[0])
        self._watch = FileWatcher(following, earlier, self._questions, terms.result_grace, intake.new.append)
        self._withdrawal = Canceller(clerk, desk, following, earlier)
        self._thread = LazyThread("callyard-jobs")
        self._closing = self._leaving = False
        self._broken = False
        self.forked = False
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
        resources = self._with_defaults(resources)
        job_options(resources)  # refuses what cannot be
        future = JobFuture(getattr(fn, "__name__", None) or type(fn).__name__, self._wake)
        parts, sources = (fn, args, dict(kwargs)), list[Any]()
        try:
            data = dumps(parts, reduce=note_futures(sources))
            apart_data = _dumped_apart(parts, ticket)
        except Exception as error:
            future.fail_with(unpicklable(fn, args, kwargs, error))
            return future
        self._begin()  # first: where no thread is to be had there is no call
        call = future.call = JobCall(future, resources, ticket, self, data, apart_data, sources)
        try:
            self._accept(call, sources)
        except BaseException:  # nobody is going to have this future: there shall be no job for it
            future.cancel()
            self._forget(call, future)
            raise
        return future

    def _accept(self, call: JobCall, sources: list[Any]) -> None:
        future = call.future
        self._waiting.add(future)
        when_ended(future, partial(self._forget, call))
        foreign = tuple(source for source in sources if call_of(source, self) is None)
        if sources:
            when_done(tuple(sources), future, _nothing)  # a failure of one is its failure at once
        if foreign:
            when_done(foreign, future, partial(self._admit, call))
        else:
            self._enter(call)

    def _with_defaults(self, resources: Resources) -> Resources:
        asked = resources.asked()
        missing = {name: value for name, value in self.terms.defaults.items() if name not in asked}
        return resources.updated(missing)

    def _admit(self, call: JobCall) -> None:
        """Its other inputs are here; if that is all of them, its key can be made and looked up."""
        if call.ticket is None or not all(source.done() for source in call.sources):
            self._enter(call)
            return
        known = list(map(KeyedResult, call.sources))
        data = Packed(call.data)
        call.ticket.admit(lambda: load_with_inputs(data, known)[1:], partial(self._enter, call))

    def _enter(self, call: JobCall) -> None:
        self._do(partial(self._intake.take, [call]))

    def _do(self, step: Callable[[], object]) -> None:
        self._begin()
        self._inbox.put(step)

    def _begin(self) -> None:
        """Raises RuntimeError where no thread is to be had; then nothing has changed."""
        if not self.forked:
            self._thread.start(self._run)

    def _wake(self) -> None:
        if self._thread.started:
            self._inbox.put(_nothing)

    def _forget(self, call: JobCall, future: Future[Any]) -> None:
        self._waiting.discard(future)
        if not call.entered:  # others may wait for it to be written down, which it is not going to be
            self._do(partial(self._intake.take, call.followers))
        self._wake()

    # -- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        ends_futures(self._wake)
        failures = 0  # in a row
        while failures < _FAILURES:
            try:
                if self._is_over():  # here, because nobody wakes this thread for what it has done itself
                    self._tidy()
                    return
                self._take_in(self._patience())
                self._send(False)
                self._watch.look()
                self._questions.ask()
                self._sender.drop_cancelled()
                self._withdrawal.drop_cancelled()
                failures = 0
            except BaseException as error:  # a disk that is full, a callback that exits: nobody shall wait for ever
                failures += 1
                _log.exception("callyard: jobs cannot be looked after")
                self._fail_all(error)
        self._broken = True
        for future in list(self._waiting):
            future.fail_with(SchedulerError(f"{future.name!r} is not looked after any more; make a new executor"))

    def _patience(self) -> float | None:
        """S until something is to be done; none if that is not before somebody says so."""
        due = self._intake.due(), self._sender.due(), self._following.due()
        known = [at for at in due if at is not None]
        return max(0.0, min(known) - monotonic()) if known else None

    def _take_in(self, patience: float | None) -> None:
        """What was put into the inbox. New calls are given a moment in which more of them may come."""
        until = None
        while True:
            try:
                self._inbox.get(timeout=patience)()
            except queue.Empty:
                return
            until = until or monotonic() + _LONGEST  # from the first on, however long that was waited for
            patience = min(_QUIET, max(0.0, until - monotonic())) if self._intake.new else 0.0

    def _fail_all(self, error: BaseException) -> None:
        give_up([*self._intake.take_all(), *self._sender.calls(), *self._following.calls()], error)
        self._sender.clear()
        self._following.batches.clear()

    def _send(self, at_last: bool) -> None:
        if monotonic() >= self._sender.at:
            self._intake.write(at_last)
            self._sender.send()

    # -- ends ------------------------------------------------------------------------------------------------

    def _ended(self, call: JobCall) -> None:
        """Nothing more is to be known of it."""
        call.future.call = None

    def _is_over(self) -> bool:
        if self._leaving:
            self._send_last()
            return True
        busy = self._intake.new or self._sender.calls() or self._waiting or self._following.batches
        if not self._closing or busy:
            return False
        self._desk.stop_asking()
        return not self._clerk.busy

    def _send_last(self) -> None:
        """At the interpreter's end: what can be submitted now is; then nobody here waits any more."""
        self._take_in(0.0)
        self._desk.stop_asking()
        while self._clerk.busy:
            self._inbox.get()()
        self._clerk.stay()
        self._sender.at = 0.0
        self._send(True)
        left = [call for call in self._sender.calls() if not call.future.done()]
        if left:
            _log.warning(
                "callyard: the scheduler has not taken %d calls yet; `callyard resume %s` submits them later",
                len(left), self.home.path,
            )  # fmt: skip
        self._following.leave()
        for future in list(self._waiting):
            future.on_cancel = None
            future.again()  # what runs is cancelled too, as far as anybody here can see
            future.cancel()

    def _tidy(self) -> None:
        """Jobs whose submitters are gone leave files that only others can remove."""
        with contextlib.suppress(OSError, CallyardError):
            self._earlier.tidy()
            if self._private:
                remove_if_over(self.home)

    def cancel_pending(self) -> None:
        for future in list(self._waiting):
            future.cancel()
        self._wake()

    def kill(self, signum: int) -> None:
        """End the jobs that only this executor waits for."""
        self._closing = True
        self._do(self._withdrawal.end_all)
        self.cancel_pending()

    def interrupt(self) -> None:
        """Ctrl-C: the jobs stay, except where nobody could ever have their results."""
        if self._private:
            self.kill(0)
        else:
            self.begin_end()

    def close(self, wait: bool) -> None:
        self._closing = True
        if not self._thread.started and (self._private or os.path.exists(f"{self.home.path}/jobs")):
            self._do(_nothing)  # no call was made, but there is something to tidy up
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
        """In a forked child, where the thread is not: the jobs are the parent's to look after."""
        self.forked = True

    @property
    def description(self) -> str:
        where = "" if not self._private else f", without a cache, in {self.home.path}"
        return f"detached, each call a job of {self.terms.scheduler}{where}"


_backends: weakref.WeakSet[BatchBackend] = weakref.WeakSet()


def _in_forked_child() -> None:
    for backend in list(_backends):
        backend.after_fork()


os.register_at_fork(after_in_child=_in_forked_child)


def _nothing() -> None:
    """Only to be woken."""


def _dumped_apart(parts: Any, ticket: CachedCall | None) -> bytes | None:
    """The call with the user's modules inside, for where the job finds other versions of them than were keyed."""
    modules = ticket.modules() if ticket is not None else frozenset()
    if not modules:
        return None
    with apart(modules):
        return dumps(parts, reduce=note_futures([]))
