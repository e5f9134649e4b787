"""A backend of any other PEP 3148 executor: threads, mpi4py, Dask, Globus Compute.

Resources other than the defaults are refused, because the other executor could not be told of them. Callyard adds calls
that wait for futures, and the futures' notes about the origin of a failure.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures import Executor as StandardExecutor
from functools import partial
from itertools import count
from typing import Any

from ..cache.messages import RunDeclined, RunOutcome, RunReport
from ..dependencies.replace_futures import find_futures, replace_futures
from ..dependencies.wait import when_done
from ..errors import CallyardError, ResourceError
from ..futures import Future, when_ended
from ..resources import Resources
from ..status.call_status import CallStatus, unfinished
from ..status.ended_calls import EndedCalls
from ..status.executor_status import FOR_OTHER_CALLS, ExecutorStatus, RunningCall
from ..utils import interpreter_exit
from ..utils.threads import CapacityLimiter
from ..worker.current_call import Again
from .base import Settings
from .cached.cached_future import CachedCall, KeyedResult
from .unfinished_calls import UnfinishedCall


class Pep3148Backend:
    """The calls of one executor of ours that run in another library's executor."""

    detached = False

    def __init__(self, inner: StandardExecutor, settings: Settings) -> None:
        refuse_settings(inner, settings)
        self._inner, self._recorder = inner, settings.recorder
        self._limiter = CapacityLimiter(settings.max_workers)
        self._unfinished: dict[_ForwardedCall, int] = {}  # with the numbers of the calls
        self._numbers, self._places, self._ended_calls = count(), settings.max_workers, EndedCalls()
        # Our own thread hands on a call made ready by the end of another call: the inner executor, while ending a
        # future, may hold locks of its own, and would wait for itself.
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="callyard")
        self._thread = threading.local()
        self._closed = False
        # Last, after all attributes: the interpreter may end at any moment.
        interpreter_exit.register(self)

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        resources: Resources,
        ticket: CachedCall | None = None,
    ) -> Future[Any]:
        refuse_resources(self._inner, resources)
        sources = find_futures((args, kwargs))
        future = _ForwardedCall(getattr(fn, "__name__", type(fn).__name__), type(self._inner).__name__, sources)
        start = partial(self._outside, partial(self._start, future, fn, args, dict(kwargs), ticket))
        later = partial(self._outside, partial(self._helper.submit, start))

        def ready() -> None:
            if self._limiter.acquire(future, later):
                later()

        future.ready = ready
        if ticket is not None:
            future.declined = lambda why: ticket.declined(why, ready, lambda: (args, dict(kwargs)))
            future.noted = ticket.noted
        try:
            # First, before anything can start or end the call, so that `close` waits for this future.
            self._unfinished[future] = next(self._numbers)
            when_ended(future, self._forget)
            if sources:
                known = ready if ticket is None else partial(ticket.admit, partial(_known, args, kwargs), ready)
                when_done(sources, future, known)
            elif self._limiter.acquire(future, later):
                start()
        except BaseException:
            self._withdraw(future)
            raise
        return future

    def _withdraw(self, future: _ForwardedCall) -> None:
        """Cancel a call after an interrupted submission, unless the inner executor has it: no user gets the future."""
        if future.theirs is None:
            future.again()
            future.cancel()
            self._limiter.release(future)
            self._forget(future)

    def _outside(self, step: Callable[[], object]) -> None:
        """Do a step, but not in the middle of another such step of this thread.

        A finalizer may submit while this thread holds locks of the inner executor, which would wait for itself.
        """
        queue: deque[Callable[[], object]] | None = getattr(self._thread, "queue", None)
        if queue is not None:
            queue.append(step)
            return
        queue = deque([step])
        try:
            self._do_all(queue)
        except BaseException:
            self._do_all(queue)  # the steps that a finalizer has left there
            raise

    def _do_all(self, queue: deque[Callable[[], object]]) -> None:
        try:
            self._thread.queue = queue
            while queue:
                queue.popleft()()
        finally:
            self._thread.queue = None

    def _start(
        self, future: _ForwardedCall, fn: Callable[..., Any], args: Any, kwargs: Any, ticket: CachedCall | None
    ) -> None:
        """Hand the call on, once."""
        if future.begun:
            return
        future.begun, future.handed_on_at = True, time.time()
        try:
            if not future.set_running_or_notify_cancel():
                self._limiter.release(future)
                return
            args, kwargs = replace_futures((args, kwargs), lambda source: source.result())
            order = None if ticket is None else ticket.order()
            goes_on = future.goes_on_with or (args, kwargs)
            if order is None:
                theirs = self._hand_on(fn, *goes_on)
            else:
                from ..cache.run_call import run  # here, because other calls need none of this

                theirs = self._hand_on(run, (order, fn, args, kwargs, *goes_on), {})
            future.theirs = theirs
            future.again()  # running or not: from now on their future knows
            theirs.add_done_callback(lambda done: self._ended(future, done))
        except BaseException as error:
            self._limiter.release(future)
            if not isinstance(error, Exception):  # it was meant for this thread, not for the call
                future.fail_with(CallyardError(f"{error!r} interrupted {future.name!r} on its way to {self._inner!r}"))
                raise
            future.fail_with(error)

    def _hand_on(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Submit to the other executor; return its future."""
        if self._recorder is None:
            return self._inner.submit(fn, *args, **kwargs)
        from ..worker.measured_run import run_measured  # here, because few executors have a recorder

        return self._inner.submit(run_measured, os.getpid(), fn, args, kwargs)

    def _recorded(self, future: _ForwardedCall, result: Any) -> Any:
        """Return the result of a call that may have been measured, after telling the recorder of its run."""
        if self._recorder is None:
            return result
        value, usage, host, worker, began = result
        if not isinstance(value, RunOutcome) or isinstance(value.note, RunReport):  # otherwise it has not run
            self._recorder.started(future, host, worker, future.attempts, time=began)
            future.note_usage(usage)
        return value

    def _ended(self, future: _ForwardedCall, theirs: Any) -> None:
        self._limiter.release(future)
        try:
            error = theirs.exception()
        except CancelledError:
            future.cancel()
            return
        if error is not None and self._recorder is not None:
            self._recorder.started(future, "", future.place, future.attempts, time=future.handed_on_at)
        if isinstance(error, Again):
            future.run_again(error)
        elif error is not None:
            future.fail_with(error)
        elif not future.done():
            future.comes_to(self._recorded(future, theirs.result()))

    def _forget(self, future: _ForwardedCall) -> None:
        if self._unfinished.pop(future, None) is not None:
            self._ended_calls.note_end(future)
        future.theirs = future.noted = future.declined = future.ready = None  # they refer to the future and its call
        future.sources = ()
        if self._closed and not self._unfinished:
            self._helper.shutdown(wait=False)

    def status(self, ask: bool = True) -> ExecutorStatus:  # all that can be known is known here
        status = ExecutorStatus()
        for future, number in list(self._unfinished.items()):
            known = future.call_status
            if known.state == "running":
                status.add_running(RunningCall(number, future.name, known.host, known.worker))
            elif known.state == "waiting":
                status.add_next(number, future.name, FOR_OTHER_CALLS if known.awaits else known.words)
        if self._places is not None:
            status.capacity, status.used = {"workers": self._places}, {"workers": status.count("running")}
        status.add_ended(self._ended_calls)
        return status

    def unfinished(self) -> list[UnfinishedCall]:
        """Return the calls that have not ended."""
        return [UnfinishedCall(number, future) for future, number in list(self._unfinished.items())]

    def cancel_pending(self) -> None:
        for future in list(self._unfinished):
            future.cancel()

    def kill(self, signum: int) -> None:
        """Cancel the calls that have not begun; running ones go on, since the workers belong to the inner executor."""
        self.cancel_pending()

    def interrupt(self) -> None:
        self.kill(signal.SIGKILL)

    def close(self, wait: bool) -> None:
        self._closed = True
        if wait:
            self.wait_for_end()
        if not self._unfinished:
            self._helper.shutdown(wait=wait)

    def begin_end(self) -> None:
        """Do nothing: at the interpreter's end these calls can only be awaited."""

    def wait_for_end(self) -> None:
        for future in list(self._unfinished):
            _await(future)

    @property
    def description(self) -> str:
        return f"through {type(self._inner).__name__}"


def refuse_settings(inner: StandardExecutor, settings: Settings) -> None:
    """Raise CallyardError for settings of workers, which are the other executor's."""
    for name in ("initializer", "init_function", "max_tasks_per_child"):
        if getattr(settings, name) is not None:
            raise CallyardError(f"{name} belongs to the executor that is passed as backend; give it to {inner!r}")


def refuse_resources(inner: StandardExecutor, resources: Resources) -> None:
    """Raise ResourceError for any resource, because the other executor could not be told of it."""
    asked = resources.asked()
    if asked:
        raise ResourceError(
            f"{', '.join(asked)} cannot be passed on to {type(inner).__name__}; leave it out, or use another backend"
        )


class _ForwardedCall(Future[Any]):
    """A call of ours, and after the handing on the other executor's future `theirs`.

    In between the call counts as running: otherwise the call might be cancelled here and still run there.
    """

    __slots__ = (
        *("begun", "declined", "goes_on_with", "handed_on_at", "noted"),
        *("place", "ready", "sources", "theirs"),
    )

    def __init__(self, name: str, place: str, sources: Sequence[Any]) -> None:
        super().__init__(name)
        self.place = place  # the class of the other executor
        self.sources = sources  # the futures among the arguments, until the end
        self.theirs: Any = None
        self.begun = False  # handed on, or about to be
        self.handed_on_at = 0.0  # s since 1970
        self.noted: Callable[[RunReport], object] | None = None  # set for a call with a cache
        self.declined: Callable[[RunDeclined], object] | None = None
        self.ready: Callable[[], object] | None = None  # hands the call on when there is room
        self.goes_on_with: tuple[Any, Any] | None = None  # the arguments with which the call has asked to be run again

    def run_again(self, again: Again) -> None:
        """Hand the call on once more, behind others, with these arguments."""
        if self.ready is not None and not self.done():
            self.goes_on_with = again.args, again.kwargs
            self.theirs, self.begun = None, False
            self.attempts += 1
            self.ready()

    def comes_to(self, result: Any) -> None:
        """End with the result of their future, a `RunOutcome` for a call with a cache."""
        if type(result) is not RunOutcome or self.noted is None or self.declined is None:
            self.set_result(result)
        elif isinstance(result.note, RunReport):
            self.noted(result.note)
            self.set_result(result.value)
        elif result.note.reason == "differs":
            modules = ", ".join(result.note.modules)
            self.fail_with(CallyardError(
                f"{self.name!r} was not run: its worker has imported another version of {modules} than the one that "
                "was keyed; make a new executor"
            ))  # fmt: skip
        else:
            self.theirs, self.begun = None, False
            self.declined(result.note)

    def _present_status(self) -> CallStatus | None:
        theirs = self.theirs
        if theirs is None and not self.begun:
            awaits = unfinished(self.sources)
            return CallStatus("waiting", "for one of the running calls to end (max_workers)", awaits=awaits)
        if self.running():
            return CallStatus("running", worker=f"in {self.place}")
        return CallStatus("waiting", f"in the queue of {self.place}")

    def cancel(self) -> bool:
        theirs = self.theirs
        if theirs is not None and not theirs.cancel():
            return self.cancelled()
        return super().cancel()

    def running(self) -> bool:
        theirs = self.theirs
        return super().running() or (theirs is not None and not self.done() and theirs.running())


def _known(args: Any, kwargs: Any) -> Any:
    return replace_futures((args, dict(kwargs)), KeyedResult)


def _await(future: Future[Any]) -> None:
    try:
        future.peek_exception()
    except CancelledError:
        pass
