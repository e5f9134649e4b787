"""Processes: their start, the adoption of orphans, and ways to end them."""

from __future__ import annotations

import atexit
import os
import sys
import time

from ..utils.lite_stdlib import Callable, Iterable, Iterator, signal, suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOKING = 0.01  # s between two looks, on systems without a better way to wait
_LEFT_TO_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # each interpreter ignores these, to turn them into errors


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
    """Adopt all descendants whose own parents end (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Have a signal sent to this process when `parent` ends; exit if the parent has ended already (Linux).

    The kernel watches the *thread* that started this process, so the thread must live as long as the parent.
    """
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(1)


def default_signals() -> None:
    """Undo the signal settings that survive `exec`: the parent may have blocked or ignored some signals.

    A blocked SIGCHLD would hide deaths, an ignored one their exit codes.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in signal.valid_signals() - set(_LEFT_TO_PYTHON):
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)


def open_standard_descriptors() -> None:
    """Open descriptors 0, 1 and 2, so that no other file gets these numbers and is written to like a terminal."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:  # each open takes the lowest free number
        os.set_inheritable(fd, True)
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


def children() -> list[int]:
    """Return the children of this process; an empty list where the system does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def read_umask() -> int:
    """Return the umask of this process. Where the system does not tell, set another one and set the old one back."""
    with suppress(OSError, StopIteration), open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("Umask:"))
        return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def exit_code(status: int) -> int:
    """Return the exit status of a process, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(status)


def watch_end(pid: int) -> int | None:
    """Return a descriptor that becomes readable at the end of a process; None on systems without such descriptors.

    Linux has them from 5.3 on, unless a sandbox forbids the call.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def wait_for_end(pid: int, patience: float) -> bool:
    """Wait at most `patience` s for the end of any process, not only a child; return True if it has ended."""
    import select

    descriptor = watch_end(pid)
    if descriptor is not None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        ended = bool(poll.poll(max(0.0, patience) * 1000))
        os.close(descriptor)
        return ended
    until = time.monotonic() + patience
    while _exists(pid):  # no pidfd, or the process has ended already
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
    """Return the state of a process as the letter of `ps`: T stopped, Z ended but not reaped; X for no process."""
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
    """Send a signal to the group led by a process not yet reaped, or to the process alone if it leads none."""
    try:
        os.killpg(pid, signum)
    except (ProcessLookupError, PermissionError):  # not a leader yet, or the whole group has ended
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def reap(first: Callable[[int], object]) -> Iterator[tuple[int, int, float, int]]:
    """Reap ended children: yield process id and status, processor time (s) and the peak of resident memory (bytes).

    The latter two include the children that the process has waited for: their times, and the largest of their peaks.

    Before each, call `first`, while no other process has the number.
    """
    with suppress(ChildProcessError):
        while True:
            if hasattr(os, "waitid"):
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    return
                first(ended.si_pid)
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, status, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss


def kill(pid: int) -> bool:
    """Kill a process; return False if it is gone, or belongs to another user (`sudo`)."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_children(patience: float, known: Iterable[int] = (), spared: int = 0) -> None:
    """Kill the children of this process, then their orphans after adoption, and wait up to `patience` s for the ends.

    `known` are children to look for on systems without a list of them; `spared` is left alone, because others reap it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))  # no end is missed between look and wait
    try:
        _end_children(time.monotonic() + patience, set(known), spared)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_children(until: float, left: set[int], spared: int) -> None:
    while True:
        # Again in each round: the end of a child hands its own children to this process.
        killed = [pid for pid in {*left, *children()} if pid != spared and kill(pid)]
        ended = {pid for pid in killed if reaped(pid)}
        left -= ended
        now = time.monotonic()
        if not killed or now >= until:
            return
        if not ended:
            _wait_for_child(until - now)


def status_of_ended(pid: int) -> int | None:
    """Return the status of a child, None if it still runs. The group is killed before the reaping frees the number."""
    if hasattr(os, "waitid"):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        kill_group(pid, signal.SIGKILL)
    ended, status = os.waitpid(pid, os.WNOHANG)
    return status if ended else None


def _wait_for_child(patience: float) -> None:
    """Wait until a child changes its state. SIGCHLD must be blocked, so that a signal sent before the wait is kept."""
    if hasattr(signal, "sigtimedwait"):
        signal.sigtimedwait((signal.SIGCHLD,), patience)
    else:
        time.sleep(min(_LOOKING, patience))


def reaped(pid: int) -> bool:
    """Reap a child; return True if it has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def leave_quickly() -> None:
    """End this process as the interpreter does, but without tearing down the modules, the slowest part of an end.

    Non-daemon threads are joined, functions registered with `atexit` run, and buffered output is written.
    """
    if "mpi4py.MPI" in sys.modules:
        return  # mpi4py finalizes MPI at the very end, in a hook open to C code alone
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()  # multiprocessing calls the same two functions
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a user may have put any object there
            stream.flush()
    os._exit(0)
