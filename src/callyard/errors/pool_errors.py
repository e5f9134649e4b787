"""The errors that are also `BrokenProcessPool`, which `ProcessPoolExecutor` raises when one of its processes dies."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

# The traceback of the worker as text: the `__cause__` of an exception that comes from there. It is the standard
# library's class, so that programs and people that know it know ours.
from concurrent.futures.process import _RemoteTraceback as RemoteTraceback

from .error_classes import CallyardError, UnpicklableCall

__all__ = ["NodeFailure", "RemoteTraceback", "UnreadableCall", "WorkerLost"]


class UnreadableCall(UnpicklableCall, BrokenProcessPool):
    """Function, arguments or result cannot be opened where they arrived; the cause says why. The executor goes on.

    It is a `BrokenProcessPool`, because `ProcessPoolExecutor`, which does not go on, raises that.
    """


class WorkerLost(CallyardError, BrokenProcessPool):
    """The worker died while it ran the call; other calls and the executor go on.

    Attributes:
        exitcode: what the operating system reported, the exit status or minus the number of the signal that ended the
            worker; None if it is not known.

    Examples:
        >>> import os
        >>> executor.submit(os._exit, 3).exception().exitcode
        3
    """

    exitcode: int | None = None


class NodeFailure(WorkerLost):
    """The machine that ran the call is gone or does not answer; other calls go on."""


for _error in (NodeFailure, UnreadableCall, WorkerLost):
    _error.__module__ = __package__  # where users and pickles find them
