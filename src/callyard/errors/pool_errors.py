"""The errors that are besides what `ProcessPoolExecutor` raises when a process of its pool is gone; see the package."""

from __future__ import annotations

# The traceback of the worker as text: the `__cause__` of an exception that comes from there. It is the standard
# library's own, so that whoever knows that one knows ours.
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.process import _RemoteTraceback as RemoteTraceback

from .call_errors import CallyardError, UnpicklableCall

__all__ = ["NodeFailure", "RemoteTraceback", "UnreadableCall", "WorkerLost"]


class UnreadableCall(UnpicklableCall, BrokenProcessPool):
    """What was sent cannot be opened where it arrived; the cause says why.

    The pool goes on. The class is also what `ProcessPoolExecutor`, which does not, raises then.
    """


class WorkerLost(CallyardError, BrokenProcessPool):
    """The worker died while it ran this call; other calls and the executor go on.

    `exitcode` is what the operating system reported: the exit status, or minus the number of the
    signal that ended the worker; None if it is not known.
    """

    exitcode: int | None = None


class NodeFailure(WorkerLost):
    """The machine that ran this call is gone, or nobody hears of it any more; other calls go on."""


for _error in (NodeFailure, UnreadableCall, WorkerLost):
    _error.__module__ = __package__  # where users and pickles find them
