"""The errors that need nothing but what Python has loaded anyway; see the package, from which all are imported."""

from __future__ import annotations

from _pickle import PicklingError


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


for _error in (
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
):
    _error.__module__ = __package__  # where users and pickles find them
