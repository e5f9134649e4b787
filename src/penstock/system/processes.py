"""Processes whose parents may vanish, and how to end them."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGKILL = 9


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        # The part in C, and only here, because a job lives for a moment: `ctypes` loads threading from Python 3.14 on.
        import _ctypes

        class Function(_ctypes.CFuncPtr):
            _flags_ = _ctypes.FUNCFLAG_CDECL
            _restype_ = None

        library = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]  # this process
        Function(_ctypes.dlsym(library, "prctl"))(option, value, 0, 0, 0)


def become_subreaper() -> None:
    """Become the parent of all descendants whose own parents end (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Be killed when `parent` ends; end now if it has ended already (Linux).

    The kernel follows the *thread* that started this process: it must live as long as the parent.
    """
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def children() -> list[int]:
    """The processes whose parent this one is; empty where the system does not say."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def read_umask() -> int:
    """The umask of this process. Where the system does not tell it, it is set and set back."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("Umask:"))
        return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def exit_code(status: int) -> int:
    """What a process ended with: its exit status, or minus the number of a signal."""
    return os.waitstatus_to_exitcode(status)


def watch_end(pid: int) -> int | None:
    """A descriptor that is readable when the process has ended; None where the system has no such thing.

    Linux has it from 5.3 on, unless the policy of a sandbox forbids it.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def wait_for_death(pid: int, patience: float) -> None:
    """Kill a process and wait until it has ended, for at most `patience` s."""
    import select

    with contextlib.suppress(OSError, AttributeError):  # gone already; a system without pidfd
        os.killpg(pid, _SIGKILL)  # a worker leads a group: what it started ends too
        descriptor = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(patience * 1000)
        os.close(descriptor)


def leave_quickly() -> None:
    """End this process as the interpreter does, but without taking its modules apart: that takes most of the time.

    What waits for it is done: threads that are not daemons, functions registered with `atexit`, buffered output.
    """
    if "mpi4py.MPI" in sys.modules:
        return  # it finalizes MPI at the very end, where only C code is told
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()  # this and the next are what multiprocessing calls
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a user may have put anything there
            stream.flush()
    os._exit(0)
