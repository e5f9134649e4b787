"""`Executor`: the standard library's interface, with resources for each call and futures as arguments.

The class checks arguments, fills in defaults and hands calls to a backend; nothing here runs a call.
"""

from __future__ import annotations

import logging
import os
import signal
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future as StandardFuture
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from itertools import islice
from time import monotonic, time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import argument_checks
from .backends.base import Backend, Settings, status_of
from .backends.registry import open_backend, open_plan, other_resources
from .backends.unfinished_calls import cancel_calls, unfinished_of
from .dependencies.map_chunks import run_chunk
from .errors import CallyardError, ResourceError
from .errors.suggestions import strict
from .futures import Future, batched, before_sleep, unasked
from .report import status_server
from .resources import Resources
from .status.executor_status import ExecutorStatus
from .utils import interpreter_exit
from .utils.environment import MAX_NESTED, forced_dry_run, nested
from .utils.interrupt_checks import is_cancellation, is_interrupt
from .utils.public_names import public_names

if TYPE_CHECKING:
    from .backends.dry_run.plan import Plan
    from .events.call_record import RunRecord
    from .events.event import Event
    from .recording.run_recorder import RunRecorder
    from .report.graph import Graph
    from .report.progress import Progress
    from .result_cache import Cache

__all__ = ["Executor"]

_log = logging.getLogger("callyard")
T = TypeVar("T")


class Executor(StandardExecutor):
    """An executor that gives each call the resources it asks for, once the futures among its arguments are done.

    It is a `concurrent.futures.Executor`. Leaving a `with` block waits for the calls. Leaving it by Ctrl-C (or
    `SystemExit`), in a coroutine too, cancels waiting calls and ends running ones; jobs whose results go to a cache go
    on. If the block is left because its coroutine is cancelled for another reason, calls that have not begun are
    cancelled, and the rest is not waited for.

    Args:
        max_workers: the number of calls at once (count); default: as many as the resources allow.
        backend: the place of the calls: "local" (the default) or `Local(...)`, "slurm" or `Slurm(...)`, "flux" or
            `Flux(...)`, likewise `PBS`, `LSF` and `GridEngine`, or any other `concurrent.futures.Executor`. "auto"
            stands for the innermost scheduler around this process, else the one with a command here, else this machine.
        cache: a directory, or a `Cache(...)`, for results. A call that was made before, in any process, is answered
            from there. Default: no cache.
        resource_dict: the default resources of calls, as `{"memory": "500MB", "run_time": 60}`; the keys are those of
            `Resources`, or executorlib's names. Default: one core for each call, no limits.
        initializer: a function that each worker calls before its first call, as `initializer(*initargs)`.
        initargs: the arguments of `initializer`; default: none.
        init_function: a function that each worker calls once. It returns a dict; the values fill parameters of the same
            names, unless the call has given them.
        max_tasks_per_child: the number of calls after which a worker is replaced (count); default: no limit.
        progress: True to show how many calls are done, run, wait, have failed, and about how long the rest takes: a
            line at the bottom of a terminal, a bar in a notebook, nothing elsewhere. Default: False.
        logs: a directory for the output and the failure of each call, one file for each that has any, as
            "relax-12.log"; for live calls on this machine without a cache, as a cache keeps both. Default: none.
        events: what happens to calls, and what they use (time, memory, bytes), is recorded: a path appends it to that
            file, as JSON lines; a function is called with each event, in a thread of its own; True only keeps the
            record in memory. Default: nothing is recorded, and nothing measured.
        dry_run: True to compute, submit and store nothing, and print at the end what each call would do, and why: see
            `plan`. Calls in the cache are answered. The variable `CALLYARD_DRY_RUN=1` in the environment does the same
            for all executors of a program. Default: False.

    Raises:
        TypeError: a parameter is unknown (the message names its place), or a value has the wrong type.
        ValueError: `max_workers` or `max_tasks_per_child` is less than 1.
        ResourceError: a resource is unknown, makes no sense or is more than there is; or executors are nested more
            than ten deep.
        CacheError: the directory of the cache cannot be used (`UnsafeCache`: others could have written in it).
        CallyardError: there is no such backend, it lacks Slurm or an optional library, or it does not support a
            parameter.

    Examples:
        >>> with Executor(max_workers=2) as executor:
        ...     power = executor.submit(pow, 2, 10)
        ...     larger = executor.submit(max, power, 1000)  # waits for the other call
        ...     larger.result()
        1024
    """

    @strict(argument_checks.place_in_executor, "takes only max_workers by position; name the rest, as backend='slurm'")
    def __init__(
        self,
        max_workers: int | None = None,
        *,
        backend: Any = "local",
        cache: Cache | str | os.PathLike[str] | None = None,
        resource_dict: Mapping[str, Any] | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        init_function: Callable[[], dict[str, Any]] | None = None,
        max_tasks_per_child: int | None = None,
        progress: bool = False,
        logs: str | os.PathLike[str] | None = None,
        events: str | os.PathLike[str] | Callable[[Event], object] | bool | None = None,
        dry_run: bool = False,
    ) -> None:
        argument_checks.check_count("max_workers", max_workers, alternative="backend")
        argument_checks.check_count("max_tasks_per_child", max_tasks_per_child)
        argument_checks.check_initializers(initializer, initargs, init_function)
        _check_depth()
        forced = forced_dry_run(os.environ)
        recorder = None if dry_run or forced else _recorder(events)
        settings = Settings(
            max_workers, initializer, tuple(initargs), init_function, max_tasks_per_child, logs, recorder
        )
        known = Resources(others=dict.fromkeys(other_resources(backend)))
        self._resources = known.updated(resource_dict or {})
        if dry_run or forced:
            self._running = _Running(open_plan(backend, settings, cache, forced))
        else:
            self._running = _Running(
                open_backend(backend, settings, cache), recorder, _progress() if progress else None
            )
        if recorder is not None:
            recorder.begin(repr(self), self._running.status("", ask=False).capacity)
        _log.info("%r", self)

    @strict(
        words="takes resources by name, as with_resources(cores_per_rank=2); of a dict, with_resources(**resources)"
    )
    def with_resources(self, **resources: Any) -> Executor:
        """Return this executor with other default resources; it shares workers and shutdown with the original.

        The method is cheap, reserves nothing, and serves wherever a library takes an executor.

        Args:
            **resources: keys of `Resources`, or executorlib's names; other resources stay unchanged.

        Raises:
            ResourceError: a resource is unknown or makes no sense.
            TypeError: a resource is given by position.

        Examples:
            >>> limited = executor.with_resources(memory="500MB", run_time="1min")
            >>> limited.submit(sum, [1, 2, 3]).result()
            6
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._resources = self._resources.updated(resources)
        return other

    def submit(  # type: ignore[override]  # `resource_dict` is ours, and no parameter of the function
        self,
        fn: Callable[..., T],
        /,
        *args: Any,
        resource_dict: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Future[T]:
        """Run `fn(*args, **kwargs)` once the futures among the arguments are done, and return the future of its result.

        Arguments are packed now, so later changes to them do not matter. Futures are found at any depth of lists,
        tuples, dicts, sets and dataclasses, may come from any library, and are replaced by their results.

        Args:
            fn: the function; one from a script or a notebook, a lambda or a closure is sent by value.
            *args: the positional arguments of `fn`.
            resource_dict: resources of this call, over the executor's defaults; the keys are those of `Resources`, or
                executorlib's names. `fn` does not get it.
            **kwargs: the keyword arguments of `fn`.

        Raises:
            TypeError: `fn` is not callable, or gets a resource by a keyword that is none of its parameters.
            ResourceError: a resource is unknown, makes no sense or is more than there is.
            CacheError: the executor has a cache, and an argument has no content that can be hashed.
            RuntimeError: the executor has been shut down.

        Examples:
            >>> future = executor.submit(round, 2.71828, ndigits=2, resource_dict={"memory": "1GB", "run_time": "2h"})
            >>> future.result()
            2.72
        """
        running = self._running
        if running.closed or interpreter_exit.begun:
            what = "shutdown" if running.closed else "interpreter shutdown"
            raise RuntimeError(f"cannot schedule new futures after {what}")
        if not callable(fn):
            raise argument_checks.no_function("submit", fn)
        if kwargs:
            argument_checks.check_keywords(fn, kwargs)
        resources = self._resources if resource_dict is None else self._resources.updated(resource_dict)
        future: Future[T]
        if running.recorder is None:
            future = running.backend.submit(fn, args, kwargs, resources)
        else:
            future = running.recorder.submit(running.backend.submit, fn, args, kwargs, resources)
        if running.progress is not None:
            running.progress.follow(future)
        return future

    @strict(argument_checks.place_in_map)
    def map(  # the base class's, with `buffersize` on every Python and chunks
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over the results of `fn(a, b, ...)` for each tuple of `zip(*iterables)`, in order.

        Calls that are not needed any more, because one has failed or the iterator is closed, are cancelled. For
        resources, use `with_resources(...).map(...)`.

        Args:
            fn: the function.
            *iterables: for each parameter an iterable of its values; the shortest ends the calls.
            timeout: the time after the call of `map` for each result to be there (s); default: no limit.
            chunksize: the number of elements in one call (count); default: 1.
            buffersize: the number of calls ahead of the results taken (count); default: all are submitted at once.

        Raises:
            TypeError: `fn` is not callable, or a number has the wrong type.
            ValueError: `chunksize` or `buffersize` is less than 1.
            TimeoutError: while iterating: a result is not there in time.

        Examples:
            >>> list(executor.map(pow, [2, 3, 4], [10, 2, 2]))
            [1024, 9, 16]
        """
        argument_checks.check_map(fn, timeout, chunksize, buffersize)
        tuples = zip(*iterables)  # noqa: B905  # ends with the shortest, as map() does
        if chunksize == 1:
            submits: Iterator[Future[Any]] = (self.submit(fn, *args) for args in tuples)
            return _results(submits, buffersize, timeout)
        chunks = iter(lambda: tuple(islice(tuples, chunksize)), ())
        submits = (self.submit(run_chunk, fn, chunk) for chunk in chunks)
        return _elements(_results(submits, buffersize, timeout))

    def batched(self, futures: Iterable[StandardFuture[T]], n: int) -> list[Future[tuple[T, ...]]]:
        """Return futures of tuples of `n` results each, in the order in which `futures` finish.

        The same as `callyard.batched`.

        Args:
            futures: any `concurrent.futures.Future` objects.
            n: the number of results in a batch (count, 1 or more).

        Raises:
            TypeError: one of `futures` is not a future, or `n` not an integer.
            ValueError: `n` is less than 1.

        Examples:
            >>> lengths = executor.batched([executor.submit(len, "x" * i) for i in range(3)], 2)
            >>> [len(each.result()) for each in lengths]
            [2, 1]
        """
        return batched(futures, n)

    def status(self) -> ExecutorStatus:
        """Return the numbers of calls by function and state, what runs where, what waits for what, and what is in use.

        `print(executor.status())` shows it on a screen. Any thread may ask at any moment; on another computer the
        question takes a round trip, a second at most.

        Examples:
            >>> executor.submit(pow, 2, 10).result()
            1024
            >>> executor.status().count("running")
            0
        """
        return self._running.status(self._words())

    def plan(self) -> Plan:
        """Return what the calls so far would do, of an executor with `dry_run=True`.

        Raises:
            CallyardError: this executor runs its calls.

        Examples:
            >>> with Executor(dry_run=True) as planning:
            ...     large = planning.submit(pow, 2, 10)
            ...     larger = planning.submit(max, large, 1000)
            ...     planning.plan()
            <Plan of 2 calls: 1 to compute, 1 after inputs>
        """
        plan = self._running.plan()
        if plan is None:
            raise CallyardError("this executor runs its calls; for a plan, make it with dry_run=True")
        return plan

    @strict()
    def report(self, path: str | os.PathLike[str] = "run.html") -> None:
        """Write a page about the calls so far: timeline, graph, table, failures, what was asked for and what was used.

        It needs an executor with `events=` (`events=True` will do), and works after the shutdown, too. The page needs
        no network and no other file.

        Args:
            path: the file, which is replaced; a new one is for you alone. Default: "run.html".

        Raises:
            CallyardError: this executor keeps no record of its calls.
            OSError: the file cannot be written.

        Examples:
            >>> with Executor(events=True) as recorded:
            ...     recorded.submit(pow, 2, 10).result()
            1024
            >>> recorded.report("run.html")
        """
        from .report.output_file import write_file
        from .report.page import page

        write_file(path, page(self._running.shown_record(), time()))

    def graph(self) -> Graph:
        """Return the graph of the calls so far, coloured by their states; of more than fifty calls, by function.

        Print it for Mermaid's text, save it as SVG or PNG, or show it in a notebook. It needs an executor with
        `events=` (`events=True` will do), or one of a dry run.

        Raises:
            CallyardError: this executor keeps no record of its calls.

        Examples:
            >>> with Executor(dry_run=True) as planning:
            ...     power = planning.submit(pow, 2, 10)
            ...     larger = planning.submit(max, power, 1000)
            ...     print(planning.graph())
            flowchart LR
                n0["pow ◇ to compute"]:::planned
                n1["max ◇ to compute"]:::planned
                n0 --> n1
            ...
        """
        from .report.graph import graph_of

        return graph_of(self._running.shown_record())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and free all resources once the calls submitted so far have ended.

        Args:
            wait: True to return only then; default: True.
            cancel_futures: True to cancel the calls that have not begun; default: False.

        Examples:
            >>> executor.shutdown(wait=False)
        """
        self._running.shutdown(wait, cancel_futures)

    def terminate_workers(self) -> None:
        """End the workers now, by SIGTERM, and shut down.

        Running calls fail with `WorkerLost`; waiting calls are cancelled.
        """
        self._running.kill(signal.SIGTERM)

    def kill_workers(self) -> None:
        """End the workers now, by SIGKILL, and shut down; for workers that ignore SIGTERM.

        Running calls fail with `WorkerLost`; waiting calls are cancelled.
        """
        self._running.kill(signal.SIGKILL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave(error)
        except (KeyboardInterrupt, SystemExit):  # during the wait for the calls, the longest part of the exit
            self._running.interrupt()
            self.shutdown(wait=True)
            raise
        except BaseException:  # raised from outside, as by the handler of an alarm
            self.shutdown(wait=False)
            raise
        finally:
            if error is not None:  # it tells of the trouble
                unasked.forget_all()

    def _leave(self, error: BaseException | None) -> None:
        if is_interrupt(error):
            self._running.interrupt()
        elif is_cancellation(error):  # waiting would hold up all coroutines of the loop
            self.shutdown(wait=False, cancel_futures=True)
            return
        self.shutdown(wait=True)

    def __reduce__(self) -> Any:
        raise TypeError("an executor stays in its process; make one inside the call")

    def __dir__(self) -> list[str]:
        return public_names(super().__dir__())

    def _repr_html_(self) -> str:
        from .display.call_states import STATES
        from .display.notebook_html import card

        status = self._running.status("", ask=False)
        facts = [("Resources", ", ".join(f"{name}={value!r}" for name, value in self._resources.asked().items()))]
        facts += [("In use", status.use_in_words()), ("State", "shut down" if self._running.closed else "")]
        return card(
            f"Executor {self._running.backend.description}", facts, {state: status.count(state) for state in STATES}
        )

    def _words(self) -> str:
        state = ", shut down" if self._running.closed else ""
        asked = "".join(f", {name}={value!r}" for name, value in self._resources.asked().items())
        return f"{self._running.backend.description}{asked}{state}"

    def __repr__(self) -> str:
        status = self._running.status("", ask=False)
        return f"<callyard.Executor {self._words()}{f', {status.counts_in_words()}' if status.calls else ''}>"


class _Running:
    """The state shared by an executor and its `with_resources` views: the backend, and the flag for the shutdown."""

    def __init__(self, backend: Backend, recorder: RunRecorder | None = None, progress: Progress | None = None) -> None:
        self.backend = backend
        self.recorder, self.progress = recorder, progress
        self.closed = False
        self._shown = status_server.show(self)
        # When neither executor nor view is left.
        self._closer = weakref.finalize(self, _close, backend, recorder, progress, self._shown)
        self._closer.atexit = False

    @property
    def record(self) -> RunRecord | None:
        """The record of all calls up to this moment; None if it was not asked for (`events=`).

        The recorder's thread goes on changing it: look at a copy of `calls` (`list(record.calls.values())`).
        """
        if self.recorder is None:
            return None
        self.recorder.flush()
        return self.recorder.record

    def status(self, executor: str, ask: bool = True) -> ExecutorStatus:
        status = status_of(self.backend, ask)
        status.executor = executor
        return status

    def shown_status(self) -> ExecutorStatus:
        return self.status(f"{self.backend.description}{', shut down' if self.closed else ''}")

    def explain_call(self, number: int) -> str:
        return next((call.future.explain() for call in unfinished_of(self.backend) if call.number == number), "")

    def cancel_call(self, number: int | None, key: str) -> list[str]:
        """Cancel calls here. By its key a job is cancelled in the cache, for all who wait for it, if it is noted there."""
        noted = self.backend.detached and not getattr(self.backend, "elsewhere", False)
        return [] if key and noted else cancel_calls(self.backend, number, key)

    def plan(self) -> Plan | None:
        """Return the plan of a dry run; None if the calls are run."""
        from .backends.dry_run.backend import DryRunBackend

        return self.backend.plan() if isinstance(self.backend, DryRunBackend) else None

    def shown_record(self) -> RunRecord:
        """Return a record to be shown, which stays as it is at this moment."""
        plan = self.plan()
        if plan is not None:
            from .report.planned_run import run_of_plan

            return run_of_plan(plan)
        record = self.record
        if record is None:
            raise CallyardError(
                "this executor keeps no record of its calls; make it with events=True, or with a file for them, as "
                "events='events.jsonl'"
            )
        return replace(record, calls=dict(record.calls))

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self.closed = True
        if cancel_futures:
            self.backend.cancel_pending()
        if wait:
            before_sleep()
        self.backend.close(wait)
        if self.recorder is not None:
            self.recorder.close(wait)
        if self.progress is not None:
            self.progress.close() if wait else self.progress.end_with_calls()
        # Last: if an exception interrupts the above, the backend is still closed when the executor is collected.
        self._closer.detach()
        if wait:
            status_server.hide(self._shown)
            unasked.end_silence(self)

    def kill(self, signum: int) -> None:
        self.closed = True
        unasked.begin_silence(self)
        self.backend.kill(signum)
        if self.recorder is not None:
            self.recorder.close()
        if self.progress is not None:
            self.progress.end_with_calls()

    def interrupt(self) -> None:
        self.closed = True
        unasked.begin_silence(self)
        self.backend.interrupt()


def _progress() -> Progress | None:
    from .report.progress import progress_here  # here, because few programs use it

    return progress_here()


def _recorder(events: str | os.PathLike[str] | Callable[[Event], object] | bool | None) -> RunRecorder | None:
    """Return the recorder for what the user asks for; None for nothing."""
    if (events is None or events is False) and not logging.getLogger("callyard.events").level:
        return None
    from .recording.run_recorder import RunRecorder  # here, because few programs use it
    from .recording.targets import targets_of

    targets = targets_of(None if isinstance(events, bool) else events)
    return RunRecorder(targets) if targets or events is True else None


def _close(backend: Backend, recorder: RunRecorder | None, progress: Progress | None, shown: int) -> None:
    status_server.hide(shown)
    backend.close(False)
    if recorder is not None:
        recorder.close()
    if progress is not None:
        progress.end_with_calls()


def _check_depth() -> None:
    depth = nested(os.environ)
    if depth >= MAX_NESTED:
        raise ResourceError(
            f"executors are nested {depth} deep, each made within a call of the one before; a module that makes calls "
            "while it is imported does that without end: put them under if __name__ == '__main__', or into a function"
        )


def _results(submits: Iterator[Future[Any]], buffersize: int | None, timeout: float | None) -> Iterator[Any]:
    """Submit calls now, up to `buffersize`; return an iterator over the results that submits one call for each."""
    end = None if timeout is None else float(timeout) + monotonic()
    futures: deque[Future[Any]] = deque()
    try:
        futures.extend(islice(submits, buffersize))
    except BaseException:  # no caller will get the iterator and ask for their results
        for future in futures:
            future.cancel()
        raise

    def iterate() -> Iterator[Any]:
        try:
            while futures:
                if buffersize is not None:
                    futures.extend(islice(submits, 1))
                # popped first, so that no reference here keeps a result alive
                yield _take(futures.popleft(), timeout, end)
        finally:
            while futures:
                futures.popleft().cancel()

    return iterate()


def _take(future: Future[Any], timeout: float | None, end: float | None) -> Any:
    try:
        return future.result(None if end is None else end - monotonic())
    except FutureTimeout:
        if future.done():  # the call itself raised the error
            raise
        raise FutureTimeout(f"{future.name!r} has not ended {timeout:g} s after map() was called") from None
    finally:
        future.cancel()
        del future


def _elements(lists: Iterator[list[T]]) -> Iterator[T]:
    for results in lists:
        elements = results[::-1]  # a copy: with a cache, another `map` may be given the very same list
        del results
        while elements:
            yield elements.pop()
