"""`Executor`: the standard library's interface, with resources for each call and futures as arguments.

The class checks arguments, fills in defaults and hands calls to a backend; nothing here runs a call.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future as StandardFuture
from itertools import islice
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import argument_checks
from .backends.base import Settings
from .backends.registry import open_backend, open_plan, other_resources
from .dependencies.map_chunks import run_chunk
from .errors import CallyardError, ResourceError
from .errors.suggestions import strict
from .futures import Future, batched, unasked
from .futures.map_results import flattened, results_in_order
from .resources import Resources
from .running_executor import RunningExecutor, progress_for_here, recorder_for
from .status.executor_status import ExecutorStatus
from .utils import interpreter_exit
from .utils.environment import MAX_NESTED, forced_dry_run, nested
from .utils.interrupt_checks import is_cancellation, is_interrupt
from .utils.public_names import public_names

if TYPE_CHECKING:
    from .backends.dry_run.plan import Plan
    from .events.event import Event
    from .report.graph import Graph
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
            file, as JSON lines, once a second; a function is called with each event, in a thread of its own; True
            only keeps the record in memory. Default: nothing is recorded, and nothing measured.
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
        max_workers = argument_checks.positive_count("max_workers", max_workers, alternative="backend")
        max_tasks_per_child = argument_checks.positive_count("max_tasks_per_child", max_tasks_per_child)
        argument_checks.check_flag("progress", progress)
        argument_checks.check_flag("dry_run", dry_run)
        argument_checks.check_initializers(initializer, initargs, init_function)
        _check_depth()
        forced = forced_dry_run(os.environ)
        recorder = None if dry_run or forced else recorder_for(events)
        settings = Settings(
            max_workers, initializer, tuple(initargs), init_function, max_tasks_per_child, logs, recorder
        )
        known = Resources(others=dict.fromkeys(other_resources(backend)))
        self._resources = known.updated(resource_dict or {})
        if dry_run or forced:
            self._running = RunningExecutor(open_plan(backend, settings, cache, forced))
        else:
            self._running = RunningExecutor(
                open_backend(backend, settings, cache), recorder, progress_for_here() if progress else None
            )
        if recorder is not None:
            recorder.begin(repr(self), self._running.status("", ask=False).capacity)
        _log.info("%r", self)

    @strict(
        words="takes resources by name, as with_resources(cores_per_rank=2); of a dict, with_resources(**resources)"
    )
    def with_resources(self, /, **resources: Any) -> Executor:
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
            ResourceError: the calls have a `cache_key`, and so would all have one result.
            TimeoutError: while iterating: a result is not there in time.

        Examples:
            >>> list(executor.map(pow, [2, 3, 4], [10, 2, 2]))
            [1024, 9, 16]
        """
        argument_checks.check_map(fn, timeout, chunksize, buffersize, self._resources.cache_key)
        tuples = zip(*iterables)  # noqa: B905  # ends with the shortest, as map() does
        if chunksize == 1:
            submits: Iterator[Future[Any]] = (self.submit(fn, *args) for args in tuples)
            return results_in_order(submits, buffersize, timeout)
        chunks = iter(lambda: tuple(islice(tuples, chunksize)), ())
        submits = (self.submit(run_chunk, fn, chunk) for chunk in chunks)
        return flattened(results_in_order(submits, buffersize, timeout))

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


def _check_depth() -> None:
    depth = nested(os.environ)
    if depth >= MAX_NESTED:
        raise ResourceError(
            f"executors are nested {depth} deep, each made within a call of the one before; a module that makes calls "
            "while it is imported does that without end: put them under if __name__ == '__main__', or into a function"
        )
