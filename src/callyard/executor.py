"""`Executor`: the standard library's interface, with resources for each call and futures as arguments."""

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
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import usage_errors
from .backends.base import Backend, Settings
from .backends.registry import open_backend, other_resources
from .dependencies.map_chunks import run_chunk
from .errors import ResourceError
from .errors.suggestions import strict
from .futures import Future, batched, before_sleep
from .report.progress import Progress
from .resources import Resources
from .utils import interpreter_exit
from .utils.environment import MAX_NESTED, nested
from .utils.interrupts import is_cancellation, is_interrupt

if TYPE_CHECKING:
    from .cache.cache import Cache

__all__ = ["Executor"]

_log = logging.getLogger("callyard")
T = TypeVar("T")


class Executor(StandardExecutor):
    """Runs function calls, each with the resources that it asks for, once the futures among its arguments are done.

    Args:
        max_workers: how many calls run at once; default: as many as there are resources for.
        backend: who gives the resources: "local", `Local(...)`, "slurm", `Slurm(...)`, or any other
            `concurrent.futures.Executor`.
        cache: a directory, or `Cache(...)`, in which results are remembered: a call that was made before, in
            whatever process, is answered from there.
        resource_dict: the default resources of its calls; see `Resources`.
        initializer: called once in each worker before its first call, with `initargs`.
        init_function: called once in each worker; the dict that it returns fills parameters of calls that have
            those names and were not given.
        max_tasks_per_child: calls after which a worker is replaced by a fresh one.
        progress: show a line with how many calls are done.

    A `with` block that is left by Ctrl-C (or `SystemExit`) cancels what waits and ends what runs, in a coroutine too;
    calls that are jobs and are remembered stay. One that is left because its coroutine is cancelled otherwise cancels
    what has not begun, and does not wait for the rest.

        >>> with Executor() as executor:
        ...     a = executor.submit(pow, 2, 10)
        ...     b = executor.submit(max, a, 1000)
        ...     b.result()
        1024
    """

    @strict(usage_errors.place_in_executor, "takes only max_workers by position; name the rest, as backend='slurm'")
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
    ) -> None:
        usage_errors.check_count("max_workers", max_workers, alternative="backend")
        usage_errors.check_count("max_tasks_per_child", max_tasks_per_child)
        usage_errors.check_initializers(initializer, initargs, init_function)
        _check_depth()
        settings = Settings(max_workers, initializer, tuple(initargs), init_function, max_tasks_per_child)
        known = Resources(others=dict.fromkeys(other_resources(backend)))
        self._resources = known.updated(resource_dict or {})
        self._running = _Running(open_backend(backend, settings, cache), Progress() if progress else None)
        _log.info("%r", self)

    @strict(
        words="takes resources by name, as with_resources(cores_per_rank=2); of a dict, with_resources(**resources)"
    )
    def with_resources(self, **resources: Any) -> Executor:
        """The same executor with other default resources: its workers, its shutdown.

            >>> big = executor.with_resources(cores_per_rank=8, memory=16)
            >>> big.submit(phonons, structure)

        Raises:
            ResourceError: a resource is unknown or makes no sense.
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._resources = self._resources.updated(resources)
        return twin

    def submit(  # type: ignore[override]  # `resource_dict` is ours, and no parameter of the function
        self,
        fn: Callable[..., T],
        /,
        *args: Any,
        resource_dict: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Future[T]:
        """Run `fn(*args, **kwargs)` when the futures among the arguments are done; the future of its result.

        Arguments are taken as they are now. Futures are found at any depth of lists, tuples, dicts, sets and
        dataclasses; they may come from any library.

        Raises:
            TypeError: `fn` is no function, or gets a resource by a keyword that is none of its parameters.
            ResourceError: what is asked for is unknown, makes no sense or can never be had.
            CacheError: the call is to be remembered, and an argument has no meaning that can be hashed.
            RuntimeError: the executor has been shut down.
        """
        running = self._running
        if running.closed or interpreter_exit.begun:
            what = "shutdown" if running.closed else "interpreter shutdown"
            raise RuntimeError(f"cannot schedule new futures after {what}")
        if not callable(fn):
            raise usage_errors.no_function("submit", fn)
        if kwargs:
            usage_errors.check_keywords(fn, kwargs)
        resources = self._resources if resource_dict is None else self._resources.updated(resource_dict)
        future: Future[T] = running.backend.submit(fn, args, kwargs, resources)
        if running.progress is not None:
            running.progress.follow(future)
        return future

    @strict(usage_errors.place_in_map)
    def map(  # the base class's, with `buffersize` on every Python and chunks
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The results of `fn(a, b, ...)` for each tuple of `zip(*iterables)`, in order.

        Args:
            timeout: s from now until a result must be there, else `TimeoutError`.
            chunksize: elements that make one call.
            buffersize: calls that may be ahead of the results taken; default: all are submitted at once.
        """
        usage_errors.check_map(fn, timeout, chunksize, buffersize)
        tuples = zip(*iterables)  # noqa: B905  # as map() does, it ends with the shortest
        if chunksize == 1:
            submits: Iterator[Future[Any]] = (self.submit(fn, *args) for args in tuples)
            return _results(submits, buffersize, timeout)
        chunks = iter(lambda: tuple(islice(tuples, chunksize)), ())
        submits = (self.submit(run_chunk, fn, chunk) for chunk in chunks)
        return _elements(_results(submits, buffersize, timeout))

    def batched(self, futures: Iterable[StandardFuture[T]], n: int) -> list[Future[tuple[T, ...]]]:
        """Futures of tuples of `n` results each, in the order in which `futures` finish; see `callyard.batched`."""
        return batched(futures, n)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; let go of all resources once those submitted have ended.

        Args:
            wait: return only then.
            cancel_futures: cancel what has not begun.
        """
        self._running.shutdown(wait, cancel_futures)

    def terminate_workers(self) -> None:
        """End the workers now (SIGTERM): what runs fails with `WorkerLost`, what waits is cancelled."""
        self._running.kill(signal.SIGTERM)

    def kill_workers(self) -> None:
        """End the workers now (SIGKILL): what runs fails with `WorkerLost`, what waits is cancelled."""
        self._running.kill(signal.SIGKILL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave(error)
        except (KeyboardInterrupt, SystemExit):  # while it waits for the calls: most of the time is spent here
            self._running.interrupt()
            self.shutdown(wait=True)
            raise
        except BaseException:  # raised from outside, as by the handler of an alarm
            self.shutdown(wait=False)
            raise

    def _leave(self, error: BaseException | None) -> None:
        if is_interrupt(error):
            self._running.interrupt()
        elif is_cancellation(error):  # to wait would hold up all coroutines of the loop
            self.shutdown(wait=False, cancel_futures=True)
            return
        self.shutdown(wait=True)

    def __reduce__(self) -> Any:
        raise TypeError("an executor stays in its process; make one inside the call")

    def __repr__(self) -> str:
        state = ", shut down" if self._running.closed else ""
        asked = "".join(f", {name}={value!r}" for name, value in self._resources.asked().items())
        return f"<callyard.Executor {self._running.backend.description}{asked}{state}>"


class _Running:
    """What the faces of one executor share: the backend, and whether it takes calls. Its end is theirs."""

    def __init__(self, backend: Backend, progress: Progress | None) -> None:
        self.backend = backend
        self.progress = progress
        self.closed = False
        self._closer = weakref.finalize(self, backend.close, False)  # when nobody refers to the executor any more
        self._closer.atexit = False

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self.closed = True
        if cancel_futures:
            self.backend.cancel_pending()
        if wait:
            before_sleep()
        self.backend.close(wait)
        self._closer.detach()  # last: who interrupts the above lets go by letting go of the executor
        if wait and self.progress is not None:
            self.progress.close()

    def kill(self, signum: int) -> None:
        self.closed = True
        self.backend.kill(signum)

    def interrupt(self) -> None:
        self.closed = True
        self.backend.interrupt()


def _check_depth() -> None:
    depth = nested(os.environ)
    if depth >= MAX_NESTED:
        raise ResourceError(
            f"executors are nested {depth} deep, each made within a call of the one before; a module that makes calls "
            "while it is imported does that without end: put them under if __name__ == '__main__', or into a function"
        )


def _results(submits: Iterator[Future[Any]], buffersize: int | None, timeout: float | None) -> Iterator[Any]:
    """The results in order; calls are submitted now, up to `buffersize`, and then one for each result taken."""
    end = None if timeout is None else float(timeout) + monotonic()
    futures: deque[Future[Any]] = deque()
    try:
        futures.extend(islice(submits, buffersize))
    except BaseException:  # nobody is going to ask for what there is so far
        for future in futures:
            future.cancel()
        raise

    def iterate() -> Iterator[Any]:
        try:
            while futures:
                if buffersize is not None:
                    futures.extend(islice(submits, 1))
                yield _take(futures.popleft(), timeout, end)  # taken out first: nothing here keeps a result alive
        finally:
            while futures:
                futures.popleft().cancel()

    return iterate()


def _take(future: Future[Any], timeout: float | None, end: float | None) -> Any:
    try:
        return future.result(None if end is None else end - monotonic())
    except FutureTimeout:
        if future.done():  # it is what the call raised
            raise
        raise FutureTimeout(f"{future.name!r} has not ended {timeout:g} s after map() was called") from None
    finally:
        future.cancel()
        del future


def _elements(lists: Iterator[list[T]]) -> Iterator[T]:
    for results in lists:
        elements = results[::-1]  # a copy: where calls are remembered, another `map` may be given the very list
        del results
        while elements:
            yield elements.pop()
