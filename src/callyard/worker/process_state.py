"""The state of a process that a call may change, as far as the storing of the result depends on it.

A call that returns a value delivers the value, whatever else it did. So this state is noted before the call, and holds
again while the result is stored; afterwards the changes of the call are back, for the next call of the worker.
Environment variables are no part of the state, because the important ones have been read before.
"""

from __future__ import annotations

import os
import resource
import sys
from types import ModuleType

from ..system.processes import open_standard_descriptors
from ..utils.lite_stdlib import signal, suppress

__all__ = ["ProcessState", "end_forks", "note_modules"]

_LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
_TIMERS = (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)  # of profilers, which go on with the next call
_PACKAGE = __name__.partition(".")[0]
_ours: dict[str, ModuleType] = {}


def note_modules() -> None:
    """Keep the loaded modules of this package, because a call may remove some from `sys.modules`."""
    _ours.update((name, module) for name, module in list(sys.modules.items()) if name.partition(".")[0] == _PACKAGE)


def end_forks(pid: int) -> None:
    """End a process that the function forked and let return: only one of the two may store the result."""
    if os.getpid() != pid:
        os._exit(0)


class ProcessState:
    """The state of this process at the object's creation: umask, soft limits, depth of recursion, import path.

    Within a `with` block the state holds again, and no timer of the call's goes off, because a handler could raise
    anything. Two changes are undone for good: a lowered limit of the recursion, and an alarm, which could interrupt the
    sending of the result, or the next call.
    """

    def __init__(self) -> None:
        # The umask can be read only by a change; a strict one, in case of other threads.
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._limits = _soft_limits()
        self.recursion_limit = sys.getrecursionlimit()
        self.path, self._hooks = list(sys.path), list(sys.path_hooks)
        self._timers = [(0.0, 0.0)] * len(_TIMERS)
        self._gone: int | None = None  # a descriptor of the call's directory, if it was removed
        note_modules()

    def restore(self) -> None:
        """Let the noted state hold again."""
        if sys.getrecursionlimit() < self.recursion_limit:  # first, and for good, because all the rest needs calls
            sys.setrecursionlimit(self.recursion_limit)
        self._swap_timers()
        self._swap()
        self._leave_removed_directory()
        open_standard_descriptors()  # or files of ours would get their numbers, and the output of threads
        sys.modules.update(_ours)

    def __enter__(self) -> None:
        self.restore()

    def __exit__(self, *how: object) -> None:
        self._swap()
        if self._gone is not None:
            os.fchdir(self._gone)
            os.close(self._gone)
            self._gone = None
        self._swap_timers()  # last, because the timers' handlers may raise

    def _leave_removed_directory(self) -> None:
        """Be elsewhere for a moment: some Pythons import no extension in a removed directory.

        Our own paths are absolute.
        """
        try:
            os.getcwd()
        except OSError:
            with suppress(OSError):
                self._gone = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
                os.chdir("/")

    def _swap_timers(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._timers = [signal.setitimer(timer, *times) for timer, times in zip(_TIMERS, self._timers, strict=True)]

    def _swap(self) -> None:
        """Exchange the noted state and the present one."""
        path, hooks, limits = list(sys.path), list(sys.path_hooks), _soft_limits()
        self._umask = os.umask(self._umask)
        if limits != self._limits:
            _set_soft_limits(self._limits)
        sys.path[:] = self.path
        if hooks != self._hooks:
            sys.path_hooks[:] = self._hooks
            for place in [place for place, finder in sys.path_importer_cache.items() if finder is None]:
                del sys.path_importer_cache[place]  # looked at while there were other hooks
        self.path, self._hooks, self._limits = path, hooks, limits


def _soft_limits() -> list[int]:
    return [resource.getrlimit(kind)[0] for kind in _LIMITS]


def _set_soft_limits(limits: list[int]) -> None:
    for kind, soft in zip(_LIMITS, limits, strict=True):
        with suppress(ValueError, OSError):  # the call may have lowered the hard limit, too, for good
            resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))
