"""The guard of a worker: the parent of all that its calls leave behind.

    zygote -- guard -- worker -- what a call starts
                 `---- what has lost its own parent: a daemon, say

So what is below a guard belongs to its worker, and to no other, whatever sessions and environments are made there. The
worker cannot be its own guard: a call may wait for any child, or for a daemon to be gone, and must find what it would
find in every other process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from typing import NoReturn

from ..system.processes import become_subreaper, die_with_parent, end_children

_ORPHANED = signal.SIGUSR1  # the parent has ended
_PATIENCE = 1.0  # s that what is killed has to end; what still has not is then the zygote's


def get_guard(parent: int, descriptors: Iterable[int]) -> None:
    """In a fork of `parent`: return in a fork of this process, the leader of a session; this one becomes its guard.

    `descriptors` are the worker's alone.
    """
    if sys.platform == "linux":
        parent = _fork(parent, descriptors)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    die_with_parent(parent)


def _fork(parent: int, descriptors: Iterable[int]) -> int:
    """Fork the worker; return its parent there: the guard, or without room for another process the zygote."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # before there is anything to be told of
    die_with_parent(parent, _ORPHANED)
    become_subreaper()
    guard = os.getpid()
    try:
        worker = os.fork()
    except OSError:
        become_subreaper(False)
        return parent
    if worker:
        for fd in descriptors:
            os.close(fd)
        _stand_guard(worker)
    return guard


def _stand_guard(worker: int) -> NoReturn:
    """Reap what ends here until the worker or the zygote does; then end all.

    The worker is not reaped: it becomes the zygote's child, which so gets its status. Its number is its own until then.
    """
    while not _has_ended(worker) and signal.sigwait((signal.SIGCHLD, _ORPHANED)) != _ORPHANED:
        pass
    end_children(_PATIENCE, spared=worker if _has_ended(worker) else 0)
    os._exit(0)


def _has_ended(worker: int) -> bool:
    """Return whether the worker has ended, after all others that have are reaped."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid == worker:
            return ended is not None
        os.waitpid(ended.si_pid, 0)
