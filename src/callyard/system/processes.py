"""Processes: how they begin, whose they are when their parents vanish, and how to end them."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the part in C: `signal` makes enumerations of it
import atexit
import os
import sys
import time

from ..utils.lite_contextlib import suppress
from ..utils.lite_typing import Callable, Iterable, Iterator

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOKING = 0.01  # s between two looks, where the system has no better way to wait
_LEFT_TO_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by each interpreter, so that they are errors


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        # The part in C, and only here, because a job lives for a moment: `ctypes` loads threading from Python 3.14 on.
        import _ctypes

        class Function(_ctypes.CFuncPtr):
            _flags_ = _ctypes.FUNCFLAG_CDECL
            _restype_ = None

        library = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]  # this process
        Function(_ctypes.dlsym(library, "prctl"))(option, value, 0, 0, 0)


def become_subreaper(wanted: bool = True) -> None:
    """Become the parent of all descendants whose own parents end (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Be sent a signal when `parent` ends; end now if it has ended already (Linux).

    The kernel follows the *thread* that started this process: it must live as long as the parent.
    """
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(1)


def default_signals() -> None:
    """Undo what survives `exec`: whoever started this process may have blocked signals, or ignored some.

    A blocked SIGCHLD would hide deaths, an ignored one their exit codes.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in signal.valid_signals() - set(_LEFT_TO_PYTHON):
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)


def open_standard_descriptors() -> None:
    """Let 0, 1 and 2 be open, so that nothing else gets these numbers and is written to as if it were a terminal."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:  # each open takes the lowest number that is free
        os.set_inheritable(fd, True)
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


def children() -> list[int]:
    """Return the processes whose parent this one is; none where the system does not say."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def read_umask() -> int:
    """Return the umask of this process. Where the system does not tell it, it is set and set back."""
    with suppress(OSError, StopIteration), open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("Umask:"))
        return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def exit_code(status: int) -> int:
    """Return what a process ended with: its exit status, or minus the number of a signal."""
    return os.waitstatus_to_exitcode(status)


def watch_end(pid: int) -> int | None:
    """Return a descriptor that is readable when the process has ended; None where the system has no such thing.

    Linux has it from 5.3 on, unless the policy of a sandbox forbids it.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def wait_for_end(pid: int, patience: float) -> bool:
    """Wait until a process has ended, for at most `patience` s; whether it has. It may be anybody's."""
    import select

    descriptor = watch_end(pid)
    if descriptor is not None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        ended = bool(poll.poll(max(0.0, patience) * 1000))
        os.close(descriptor)
        return ended
    until = time.monotonic() + patience
    while _exists(pid):  # no pidfd, or it has ended already
        if time.monotonic() >= until:
            return False
        time.sleep(_LOOKING)
    return True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return not (os.path.isdir("/proc/self") and state_of(pid) in "ZX")


def state_of(pid: int) -> str:
    """Return the state of a process, in the letter of `ps`: T if it is stopped, Z if it has ended; X if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1].decode()
    except (FileNotFoundError, ProcessLookupError):
        if os.path.isdir("/proc/self"):
            return "X"
    import subprocess

    text = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], stdout=subprocess.PIPE, text=True, check=False).stdout
    return text[:1] or "X"


def kill_group(pid: int, signum: int) -> None:
    """Send a signal to the group that a process leads; to it alone, if it leads none. It must not be reaped yet."""
    try:
        os.killpg(pid, signum)
    except (ProcessLookupError, PermissionError):  # not a leader yet, or all of it has ended
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def reap(first: Callable[[int], object]) -> Iterator[tuple[int, int]]:
    """Reap the children that have ended: process id and status. `first` gets each while its number is its own still."""
    with suppress(ChildProcessError):
        while True:
            if hasattr(os, "waitid"):
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    return
                first(ended.si_pid)
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, status


def kill(pid: int) -> bool:
    """Kill a process; return whether that was allowed, which it is not for one of another user (`sudo`)."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_children(patience: float, known: Iterable[int] = (), spared: int = 0) -> None:
    """Kill the children of this process, and theirs as they become ours, and wait for their ends for so long.

    `known`: children to look for where the system does not list them; `spared` is left alone, reaped by others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))  # no end is missed between look and wait
    try:
        _end_children(time.monotonic() + patience, set(known), spared)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_children(until: float, left: set[int], spared: int) -> None:
    while True:
        killed = [pid for pid in {*left, *children()} if pid != spared and kill(pid)]
        ended = {pid for pid in killed if reaped(pid)}
        left -= ended
        now = time.monotonic()
        if not killed or now >= until:
            return
        if not ended:
            _wait_for_child(until - now)


def status_of_ended(pid: int) -> int | None:
    """The status of a child that has ended, which is reaped; before that its group is, while the number is its own."""
    if hasattr(os, "waitid"):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        kill_group(pid, signal.SIGKILL)
    ended, status = os.waitpid(pid, os.WNOHANG)
    return status if ended else None


def _wait_for_child(patience: float) -> None:
    """Wait until something happens to a child. SIGCHLD must be blocked, so that it waits if nobody does."""
    if hasattr(signal, "sigtimedwait"):
        signal.sigtimedwait((signal.SIGCHLD,), patience)
    else:
        time.sleep(min(_LOOKING, patience))


def reaped(pid: int) -> bool:
    """Reap a child; whether it has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


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
        with suppress(Exception):  # a user may have put anything there
            stream.flush()
    os._exit(0)
