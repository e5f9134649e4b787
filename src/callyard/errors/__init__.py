"""The exceptions of Callyard, and what each of them is besides.

    CallyardError
     +-- ResourceError        also ValueError: a request nobody can meet, or a key nobody knows
     +-- UnpicklableCall      also PicklingError and TypeError: function, arguments or result cannot be sent
     |    +-- UnreadableCall  also BrokenProcessPool: they were sent, but cannot be opened on arrival
     +-- WorkerLost           also BrokenProcessPool: the process that ran the call is gone
     |    +-- NodeFailure     with the machine that it ran on
     +-- TimeLimitExceeded    also TimeoutError: the call ran longer than its `run_time`
     +-- OutOfMemory          also MemoryError: the call took more than its `memory`
     +-- SchedulerError       a scheduler refuses, does not answer, or gives nothing
     +-- JobCancelled         somebody cancelled the job that was to make the call
     +-- JobLost              the scheduler does not know the job any more, and it left no result
     +-- CacheError           a cache, one of its files or a key that cannot be used, and why
          +-- UnsafeCache     others than its owner could have written it
          +-- VersionMismatch it comes from another version of Callyard or Python

What the function itself raises arrives as itself, with the traceback of the worker as its cause.
"""

from __future__ import annotations

from _pickle import PicklingError

from ..utils.lite_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pool_errors import NodeFailure, RemoteTraceback, UnreadableCall, WorkerLost

__all__ = [
    "CacheError",
    "CallyardError",
    "JobCancelled",
    "JobLost",
    "NodeFailure",
    "OutOfMemory",
    "RemoteTraceback",
    "ResourceError",
    "SchedulerError",
    "TimeLimitExceeded",
    "UnpicklableCall",
    "UnreadableCall",
    "UnsafeCache",
    "VersionMismatch",
    "WorkerLost",
]


class CallyardError(Exception):
    """The base of every error that Callyard itself raises."""


class ResourceError(CallyardError, ValueError):
    """A resource key that nobody knows, a value that makes no sense, or more than there is."""


class UnpicklableCall(CallyardError, PicklingError, TypeError):
    """The function, one of its arguments or its result cannot be sent between processes."""


class SchedulerError(CallyardError):
    """A scheduler refuses what it was asked, does not answer, or gives nothing; in its own words where it has any."""


class JobCancelled(CallyardError):
    """The job that was to make this call was cancelled, by its user elsewhere or by an administrator."""


class JobLost(CallyardError):
    """The scheduler does not know the job of this call any more, and it has left no result."""


class TimeLimitExceeded(CallyardError, TimeoutError):
    """The call ran longer than its `run_time` and was ended."""


class OutOfMemory(CallyardError, MemoryError):
    """The call took more memory than its `memory` and was ended."""


class CacheError(CallyardError):
    """A cache, one of its files, or a call to be remembered cannot be used; the message says what to do."""


class UnsafeCache(CacheError):
    """Others than its owner could have written it, and to open it is to run what they wrote."""


class VersionMismatch(CacheError):
    """The other side is another version of Callyard or of Python."""


_BROKEN = frozenset(("NodeFailure", "RemoteTraceback", "UnreadableCall", "WorkerLost"))


def __getattr__(name: str) -> Any:
    """Those that are pools' errors too load all of multiprocessing; a job that goes well needs none of them."""
    if name not in _BROKEN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pool_errors

    globals().update({each: getattr(pool_errors, each) for each in _BROKEN})
    return globals()[name]
