"""What the calls of these tests do. Workers import this module, so it imports nothing of the tests."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, NoReturn

import callyard

# -- telling and waiting ------------------------------------------------------------------------------


def note(path: str, text: object) -> object:
    """Append a line; short lines of several processes never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)
    return text


def noted(path: str) -> list[str]:
    """The lines of a file; none if there is no file."""
    try:
        with open(path) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def tell(fifo: str, text: object = "") -> None:
    """Wait until somebody listens, and tell them."""
    with open(fifo, "w") as file:
        file.write(str(text))


def hear(fifo: str) -> str:
    """Wait until somebody tells, and until all who do have finished."""
    with open(fifo) as file:
        return file.read()


def stay(*_: object) -> NoReturn:
    """Never return."""
    while True:
        signal.pause()


def tell_and_stay(fifo: str, *_: object) -> NoReturn:
    tell(fifo, os.getpid())
    stay()


def tell_and_hear(there: str, back: str) -> int:
    """Say which process this is, and return it when answered."""
    tell(there, os.getpid())
    hear(back)
    return os.getpid()


def note_once_heard(path: str, text: object, fifo: str) -> object:
    hear(fifo)
    return note(path, text)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


# -- deaths -------------------------------------------------------------------------------------------


def segfault() -> None:
    ctypes.string_at(0)


def kill_self(signum: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), signum)
    stay()


def exit_at_once(code: int) -> NoReturn:
    os._exit(code)


def note_and_die(path: str, times: int) -> int:
    """Die until it has been tried so many times; then how often it was."""
    note(path, os.getpid())
    tries = len(noted(path))
    if tries <= times:
        kill_self()
    return tries


def note_and_die_at(path: str, number: int, fatal: int) -> int:
    note(path, number)
    if number == fatal:
        kill_self()
    return number


def note_and_stay_at(path: str, number: int, blocking: int, fifo: str) -> int:
    """Short for every number but one, which ends when somebody tells the fifo."""
    if number == blocking:
        hear(fifo)
    note(path, number)
    return number


# -- processes that calls start ---------------------------------------------------------------------------


def start_child(**how: Any) -> int:
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], **how)
    child.returncode = 0  # left behind on purpose: no warning
    return child.pid


def start_daemon(session: bool) -> int:
    """A process whose parent has ended, in a session of its own if asked for."""
    read, write = os.pipe()
    if os.fork() == 0:
        if session:
            os.setsid()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os.close(write)
            stay()
        os.write(write, str(pid).encode())
        os._exit(0)
    os.wait()
    os.close(write)
    with open(read) as file:
        return int(file.read())


def start_through(steps: list[str]) -> int:
    """A process at the end of such steps: `fork` (and the parent ends), `setsid`, `exec` without any environment."""
    read, write = os.pipe()
    if os.fork() == 0:
        for step in steps:
            if step == "setsid" and os.getpid() != os.getsid(0):
                os.setsid()
            elif step == "fork" and os.fork():
                os._exit(0)
        os.write(write, str(os.getpid()).encode())
        if "exec" in steps:
            os.close(read)
            os.close(write)
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        stay()
    pid = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    return pid


def start_and_stay(fifo: str, steps: list[str]) -> NoReturn:
    tell(fifo, f"{os.getpid()} {start_through(steps)}")
    stay()


def end_a_daemon() -> str:
    """As `stop` of a service does: until its number is free, which it is not as long as nobody has reaped it."""
    pid = start_daemon(session=True)
    os.kill(pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.001)
    return "gone"


def wait_for_all_children() -> int:
    """Of a call that has a daemon, which is none of them."""
    start_daemon(session=True)
    if os.fork() == 0:
        os._exit(0)
    count = 0
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return count
        count += 1


def start_all() -> list[int]:
    """Every kind of process that a call may leave behind."""
    return [
        start_child(),
        start_child(start_new_session=True),
        start_daemon(session=False),
        start_daemon(session=True),
    ]


def start_all_and_stay(fifo: str) -> NoReturn:
    tell(fifo, " ".join(map(str, [os.getpid(), *start_all()])))
    stay()


def start_child_and_sleep(path: str) -> None:
    note(path, start_child())
    time.sleep(1000)


# -- limits in time --------------------------------------------------------------------------------------


def time_left() -> float | None:
    call = callyard.current()
    assert call is not None
    return call.time_left()


def raise_when_ending() -> NoReturn:
    while not callyard.ending():
        pass
    raise ValueError("too late")


# -- blocked in C ----------------------------------------------------------------------------------------


def hold_the_interpreter(path: str = "") -> None:
    """Sleep for ever in C with the GIL held, as a compiled loop does."""
    if path:
        note(path, os.getpid())
    ctypes.PyDLL(None).sleep(1000)


# -- memory ----------------------------------------------------------------------------------------------


def allocate(size: int) -> int:
    return len(bytearray(size))


def allocate_in_children(size: int, count: int) -> NoReturn:
    """Children that hold so much each, in memory that a data limit does not count."""
    fill = f"m = mmap.mmap(-1, {size}); [m.write(bytes(1 << 20)) for _ in range({size >> 20})]"
    code = f"import mmap, signal; {fill}; signal.pause()"
    for _ in range(count):
        subprocess.Popen([sys.executable, "-c", code])
    stay()


def fill_a_nameless_file(size: int) -> None:
    """In memory that nobody maps."""
    descriptor = os.memfd_create("filled")
    for _ in range(size >> 20):
        os.write(descriptor, bytes(1 << 20))
    stay()


def fill_in_a_daemon(size: int) -> None:
    """In memory of a process that is nobody's child here any more."""
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        fill_a_nameless_file(size)
    stay()


# -- what is inherited -------------------------------------------------------------------------------------


def mask_and_handlers() -> tuple[list[int], dict[int, str]]:
    """The signals that are blocked, and those that are not left to the system."""
    handlers = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return sorted(map(int, mask)), {n: repr(how) for n, how in handlers.items() if how != signal.SIG_DFL}


def signals_of_a_program() -> tuple[int, int]:
    """Those that a program which a call starts finds blocked and ignored, as bits.

    Without two of glibc's own, which `posix_spawn`, and so make, leaves ignored, and no program can change.
    """
    text = subprocess.run(["cat", "/proc/self/status"], stdout=subprocess.PIPE, text=True, check=True).stdout
    status = dict(line.split(":\t") for line in text.splitlines())
    own = 0b11 << 31
    return int(status["SigBlk"], 16) & ~own, int(status["SigIgn"], 16) & ~own


def kinds_of_standard_descriptors() -> list[str]:
    targets = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)]
    return ["null" if target == os.devnull else target.partition(":")[0] for target in targets]


# -- calls that do not clean up --------------------------------------------------------------------------


def fork_and_both_return() -> int:
    os.fork()
    return os.getpid()


def fork_and_both_raise() -> None:
    os.fork()
    raise ValueError(os.getpid())


def close_descriptors(fifo: str = "") -> int:
    os.closerange(3, 1 << 10)
    if fifo:
        hear(fifo)
    return os.getpid()


def start_thread() -> int:
    threading.Thread(target=stay).start()
    return os.getpid()


def raise_in_initializer() -> None:
    raise ValueError("no licence")


def stay_in_initializer(fifo: str) -> None:
    tell_and_stay(fifo)


def die_in_initializer(path: str, times: int) -> None:
    note_and_die(path, times)


# -- ranks -----------------------------------------------------------------------------------------------


def rank_and_size() -> tuple[int, int]:
    from mpi4py import MPI

    return MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()


def start_all_and_stay_on_each_rank(fifos: list[str]) -> NoReturn:
    start_all_and_stay(fifos[rank_and_size()[0]])


def start_children_and_stay(fifo: str) -> NoReturn:
    tell(fifo, f"{start_child()} {start_daemon(session=False)}")
    stay()


def fork_and_die() -> NoReturn:
    if os.fork() == 0:
        stay()
    os._exit(4)


# -- endings ---------------------------------------------------------------------------------------------


def tell_and_ignore(fifo: str, signum: int) -> NoReturn:
    signal.signal(signum, signal.SIG_IGN)
    tell_and_stay(fifo)


# -- stress ----------------------------------------------------------------------------------------------


def note_and_work(path: str, number: int, seconds: float, *others: int) -> int:
    """Note who runs which call; its result is its number."""
    note(path, f"{number} {os.getpid()}")
    if seconds:
        time.sleep(seconds)
    return number
