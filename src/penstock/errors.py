"""The exceptions of Penstock, and what each of them is besides.

    PenstockError
     +-- ResourceError        also ValueError: a request nobody can meet, or a key nobody knows
     +-- UnpicklableCall      also PicklingError and TypeError: function, arguments or result cannot be sent
     |    +-- UnreadableCall  also BrokenProcessPool: they were sent, but cannot be opened on arrival
     +-- WorkerLost           also BrokenProcessPool: the process that ran the call is gone
     +-- TimeLimitExceeded    also TimeoutError: the call ran longer than its `run_time`
     +-- OutOfMemory          also MemoryError: the call took more than its `memory`

What the function itself raises arrives as itself, with the traceback of the worker as its cause.
"""

from __future__ import annotations

# The traceback of the worker as text: the `__cause__` of an exception that comes from there. It is the standard
# library's own, so that whoever knows that one knows ours.
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.process import _RemoteTraceback as RemoteTraceback
from pickle import PicklingError

__all__ = [
    "OutOfMemory",
    "PenstockError",
    "RemoteTraceback",
    "ResourceError",
    "TimeLimitExceeded",
    "UnpicklableCall",
    "UnreadableCall",
    "WorkerLost",
]


class PenstockError(Exception):
    """The base of every error that Penstock itself raises."""


class ResourceError(PenstockError, ValueError):
    """A resource key that nobody knows, a value that makes no sense, or more than there is."""


class UnpicklableCall(PenstockError, PicklingError, TypeError):
    """The function, one of its arguments or its result cannot be sent between processes."""


class UnreadableCall(UnpicklableCall, BrokenProcessPool):
    """What was sent cannot be opened where it arrived; the cause says why.

    The pool goes on. The class is also what `ProcessPoolExecutor`, which does not, raises then.
    """


class WorkerLost(PenstockError, BrokenProcessPool):
    """The worker died while it ran this call; other calls and the executor go on.

    `exitcode` is what the operating system reported: the exit status, or minus the number of the
    signal that ended the worker; None if it is not known.
    """

    exitcode: int | None = None


class TimeLimitExceeded(PenstockError, TimeoutError):
    """The call ran longer than its `run_time` and was ended."""


class OutOfMemory(PenstockError, MemoryError):
    """The call took more memory than its `memory` and was ended."""
