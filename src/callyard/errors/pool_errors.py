"""The subclasses of `BrokenProcessPool`, the error of `ProcessPoolExecutor` at the death of one of its processes."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

# The traceback of the worker as text, the `__cause__` of an exception from a worker. The standard library's own class,
# so that programs which handle the tracebacks of process pools handle these too.
from concurrent.futures.process import _RemoteTraceback as RemoteTraceback

from .error_classes import CallyardError, UnpicklableCall

__all__ = ["NodeFailure", "RemoteTraceback", "UnreadableCall", "WorkerLost"]


class UnreadableCall(UnpicklableCall, BrokenProcessPool):
    """Function, arguments or result cannot be opened on arrival; the cause tells the reason. The executor goes on.

    Also a `BrokenProcessPool`, the error of `ProcessPoolExecutor` in this case, whose pool does not go on.
    """


class WorkerLost(CallyardError, BrokenProcessPool):
    """The worker died during the call; other calls and the executor go on.

    Attributes:
        exitcode: the exit status of the worker, or minus the number of the signal that ended the worker; None if
            unknown.

    Examples:
        >>> import os
        >>> executor.submit(os._exit, 3).exception().exitcode
        3
    """

    exitcode: int | None = None


class NodeFailure(WorkerLost):
    """The machine of the call is gone or does not answer; other calls go on."""


for _error in (NodeFailure, UnreadableCall, WorkerLost):
    _error.__module__ = __package__  # where users and pickles find them
