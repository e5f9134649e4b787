"""The guard of a worker: the parent of all processes left behind by the worker's calls.

    zygote -- guard -- worker -- processes that a call starts
                 `---- processes that have lost their parent: a daemon, say

So every process below a guard belongs to one worker, and to no other, in whatever session or environment. The worker
cannot be its own guard: a call may wait for any child, or for the end of a daemon, and must find the same as in every
other process.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterable
from typing import NoReturn

from ..system.process_title import set_title
from ..system.processes import become_subreaper, die_with_parent, end_children
from .output_copier import OutputCopier, SignalPipe

_ORPHANED = signal.SIGUSR1  # the parent has ended
_PATIENCE = 1.0  # s for killed processes to end; the zygote adopts the rest


def get_guard(parent: int, descriptors: Iterable[int]) -> socket.socket | None:
    """In a fork of `parent`: return in a fork of this process, the leader of a session; become its guard here.

    `descriptors` are the worker's alone. Return the socket to the guard; None without one.
    """
    control = None
    if sys.platform == "linux":
        parent, control = _fork(parent, descriptors)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    die_with_parent(parent)
    return control


def _fork(parent: int, descriptors: Iterable[int]) -> tuple[int, socket.socket | None]:
    """Fork the worker; return its parent there: the guard, or without room for another process the zygote.

    Beside it return the socket to the guard.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # before there can be a signal to wait for
    die_with_parent(parent, _ORPHANED)  # a signal to wait for: the processes below end first
    become_subreaper()  # before the fork, so that no orphan is missed
    guard = os.getpid()
    try:
        ours, theirs = socket.socketpair()
        worker = os.fork()
    except OSError:
        become_subreaper(False)
        return parent, None
    if worker:
        theirs.close()
        for fd in descriptors:
            os.close(fd)
        set_title("guard")
        _stand_guard(worker, OutputCopier(ours))
    ours.close()
    return guard, theirs


def _stand_guard(worker: int, output: OutputCopier) -> NoReturn:
    """Reap ended processes until the worker or the zygote ends; then end all the rest.

    The worker is not reaped here, but becomes the zygote's child, so that the zygote gets the status. Until then no
    other process can have the number.
    """
    signals = SignalPipe(_ORPHANED)
    while not _has_ended(worker) and not signals.orphaned:
        output.wait(signals.descriptor)
    end_children(_PATIENCE, spared=worker if _has_ended(worker) else 0)
    output.finish()
    os._exit(0)


def _has_ended(worker: int) -> bool:
    """Return True if the worker has ended, after reaping all other ended processes."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid == worker:
            return ended is not None
        os.waitpid(ended.si_pid, 0)
