"""The exceptions of Callyard, and the standard ones that each of them also is.

    CallyardError
     +-- ResourceError        also ValueError: an unknown resource, or more than there is
     +-- UnpicklableCall      also PicklingError and TypeError: function, arguments or result cannot be sent
     |    +-- UnreadableCall  also BrokenProcessPool: they were sent, but cannot be opened on arrival
     +-- WorkerLost           also BrokenProcessPool: the process that ran the call is gone
     |    +-- NodeFailure     with the machine that it ran on
     +-- TimeLimitExceeded    also TimeoutError: the call ran longer than its `run_time`
     +-- OutOfMemory          also MemoryError: the call took more than its `memory`
     +-- SchedulerError       a scheduler refuses, does not answer, or provides nothing
     +-- JobCancelled         the job of the call was cancelled from outside
     +-- JobLost              the scheduler does not know the job any more, and it left no result
     +-- CacheError           a cache, one of its files or a key cannot be used
          +-- UnsafeCache     other users could have written it
          +-- VersionMismatch another version of Callyard or Python wrote it

An exception that the function itself raises arrives as it is, with the worker's traceback as its cause.
"""

from __future__ import annotations

from ..utils.lite_typing import TYPE_CHECKING, Any
from .error_classes import (
    CacheError,
    CallyardError,
    JobCancelled,
    JobLost,
    OutOfMemory,
    ResourceError,
    SchedulerError,
    TimeLimitExceeded,
    UnpicklableCall,
    UnsafeCache,
    VersionMismatch,
)

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

_POOL_ERRORS = frozenset(("NodeFailure", "RemoteTraceback", "UnreadableCall", "WorkerLost"))


def __getattr__(name: str) -> Any:
    """Load the errors that are also the process pool's: their base class loads all of multiprocessing.

    The process of a job that goes well needs none of them.
    """
    if name not in _POOL_ERRORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pool_errors

    globals().update({each: getattr(pool_errors, each) for each in _POOL_ERRORS})
    return globals()[name]
