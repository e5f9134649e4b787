"""The error classes without a base class in multiprocessing; the package's docstring shows the tree of all."""

from __future__ import annotations

from _pickle import PicklingError  # not from `pickle`, which takes a job too long to import

from ..utils.lite_stdlib import Any

__all__ = [
    "CacheError",
    "CallyardError",
    "JobCancelled",
    "JobLost",
    "NotComputed",
    "OutOfMemory",
    "ResourceError",
    "SchedulerError",
    "TimeLimitExceeded",
    "UnpicklableCall",
    "UnsafeCache",
    "VersionMismatch",
]


class CallyardError(Exception):
    """The base class of all errors of Callyard.

    Examples:
        >>> try:
        ...     Executor(backend="slrm")
        ... except CallyardError as error:
        ...     print(error)
        backend='slrm' is not a backend that this version knows: did you mean 'slurm'?
    """

    # What is known of the run of a call that has not told anything itself: "host", "pid", "began" (s since 1970).
    _run: dict[str, Any] | None = None


class ResourceError(CallyardError, ValueError):
    """A resource is unknown, its value makes no sense, or a call asks for more than there is; also a `ValueError`.

    Raised by `submit`, before the call waits for anything.

    Examples:
        >>> try:
        ...     executor.submit(abs, -1, resource_dict={"memry": 2})
        ... except ResourceError as error:
        ...     print(error)
        unknown resource 'memry': did you mean 'memory'?
    """


class UnpicklableCall(CallyardError, PicklingError, TypeError):
    """The function, an argument or the result cannot be sent between processes; also a `TypeError`.

    The message names the object.

    Examples:
        >>> import threading
        >>> isinstance(executor.submit(print, threading.Lock()).exception(), UnpicklableCall)
        True
    """


class NotComputed(CallyardError, SystemExit):
    """A dry run has no result of this call, which would be computed; also a `SystemExit`, with status 0.

    So a program that asks for such a result, and does not catch this error, ends in silence, after its plan.

    Attributes:
        call: the number of the call in the plan.
        run: the random name of the executor's run.

    Examples:
        >>> with Executor(dry_run=True) as planning:
        ...     future = planning.submit(pow, 2, 10)
        ...     isinstance(future.exception(), NotComputed), len(planning.plan().calls)
        (True, 1)
    """

    def __init__(self, message: str = "", call: int = 0, run: str = "") -> None:
        super().__init__(message, call, run)
        self.call, self.run = call, run
        self.code = 0

    def __str__(self) -> str:
        return str(self.args[0])


class SchedulerError(CallyardError):
    """A scheduler refuses a job or does not answer; the message contains the scheduler's own words, if any.

    Examples:
        >>> try:
        ...     results = list(executor.map(abs, range(9)))
        ... except SchedulerError as error:
        ...     print("the cluster says:", error)
    """


class JobCancelled(CallyardError):
    """The job of the call was cancelled from outside, by its user or an administrator."""


class JobLost(CallyardError):
    """The scheduler has forgotten the job of the call, and the job has left no result."""


class TimeLimitExceeded(CallyardError, TimeoutError):
    """The call ran longer than its `run_time` and was ended; also a `TimeoutError`.

    Examples:
        >>> import time
        >>> call = executor.submit(time.sleep, 60, resource_dict={"run_time": 0.1})
        >>> isinstance(call.exception(), TimeLimitExceeded)
        True
    """


class OutOfMemory(CallyardError, MemoryError):
    """The call took more memory than its `memory` and was ended; also a `MemoryError`.

    Examples:
        >>> call = executor.submit(lambda: len(b"x" * (1 << 30)), resource_dict={"memory": "256MB"})
        >>> isinstance(call.exception(), OutOfMemory)
        True
    """


class CacheError(CallyardError):
    """A cache, one of its files, or a call to be cached cannot be used; the message tells the remedy."""


class UnsafeCache(CacheError):
    """Other users could have written the cache, and loading a result would run their code."""


class VersionMismatch(CacheError):
    """Another version of Callyard or of Python wrote the file, or runs on the node."""


for _error in (
    *(CallyardError, NotComputed, ResourceError, UnpicklableCall, SchedulerError, JobCancelled, JobLost),
    *(TimeLimitExceeded, OutOfMemory, CacheError, UnsafeCache, VersionMismatch),
):
    _error.__module__ = __package__  # where users and pickles find them
