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

from ..utils.lite_typing import TYPE_CHECKING, Any
from .call_errors import (
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

_BROKEN = frozenset(("NodeFailure", "RemoteTraceback", "UnreadableCall", "WorkerLost"))


def __getattr__(name: str) -> Any:
    """Those that are pools' errors too load all of multiprocessing; a job that goes well needs none of them."""
    if name not in _BROKEN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pool_errors

    globals().update({each: getattr(pool_errors, each) for each in _BROKEN})
    return globals()[name]
