"""The exceptions of Callyard, each with its standard base classes.

    CallyardError
     +-- ResourceError        also ValueError: an unknown resource, or more than there is
     +-- UnpicklableCall      also PicklingError and TypeError: function, arguments or result cannot be sent
     |    +-- UnreadableCall  also BrokenProcessPool: function, arguments or result cannot be opened on arrival
     +-- WorkerLost           also BrokenProcessPool: the worker of the call is gone
     |    +-- NodeFailure     with its machine
     +-- TimeLimitExceeded    also TimeoutError: the call ran longer than its `run_time`
     +-- OutOfMemory          also MemoryError: the call took more than its `memory`
     +-- SchedulerError       a scheduler refuses, does not answer, or provides nothing
     +-- JobCancelled         the job of the call was cancelled from outside
     +-- JobLost              the scheduler has forgotten the job, and there is no result
     +-- NotComputed          also SystemExit: a dry run has no such result
     +-- CacheError           a cache, one of its files or a key cannot be used
          +-- UnsafeCache     other users could have written the cache
          +-- VersionMismatch another version of Callyard or Python wrote the file

An exception from the function itself arrives unchanged, with the worker's traceback as its cause.
"""

from __future__ import annotations

from ..utils.lite_stdlib import TYPE_CHECKING, Any
from .error_classes import (
    CacheError,
    CallyardError,
    JobCancelled,
    JobLost,
    NotComputed,
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
    "NotComputed",
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
    """Load the pool errors on demand: their base class loads all of multiprocessing, and a job that goes well has none.

    All at once, so that later look-ups find them in the module and do not come here.
    """
    if name not in _POOL_ERRORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pool_errors

    globals().update({each: getattr(pool_errors, each) for each in _POOL_ERRORS})
    return globals()[name]
