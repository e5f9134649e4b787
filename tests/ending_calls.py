"""Calls that are told of their end, and calls that ask to be run again."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import callyard

STAY = 600.0  # s; nothing waits for it


def count_down(steps: int, total: int = 0) -> tuple[int, int]:
    """Add one step at a time; return the sum, and which run of the call this is."""
    call = callyard.current()
    if steps:
        raise callyard.Again(steps - 1, total=total + steps)
    return total, 1 if call is None else call.attempt


def go_on_unpicklable() -> None:
    raise callyard.Again(i for i in range(3))


def swallow(done: bool = False) -> Any:
    """An `except Exception` around everything does not catch it."""
    try:
        if not done:
            raise callyard.Again(done=True)
    except Exception:
        return "caught"
    return "run again"


def clean_up(path: Path) -> None:
    """Stay until told to end, and leave word of that."""
    try:
        path.write_text("begun")
        time.sleep(STAY)
    finally:
        path.write_text(f"ending {callyard.ending()}")


def save_and_return(path: Path) -> str:
    try:
        path.write_text("begun")
        time.sleep(STAY)
    except SystemExit:
        return "saved"
    return "stayed"


def raise_another() -> None:
    try:
        time.sleep(STAY)
    finally:
        raise ValueError("of the cleaning up")


def ignore_the_end(path: Path | None = None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if path is not None:
        path.write_text("begun")
    time.sleep(STAY)


def handle_the_end() -> str:
    """A handler of the call's own takes the place of ours."""
    got: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: got.append(signum))
    while not got:
        time.sleep(0.01)
    return f"handled {callyard.ending()}"


def exit_in_a_handler() -> None:
    signal.signal(signal.SIGTERM, lambda signum, frame: _leave())
    time.sleep(STAY)


def _leave() -> None:
    raise RuntimeError("of its own handler")


def until_warned(_: object = None) -> tuple[bool, float | None]:
    """Return whether SIGTERM has not come yet, and how much time is left."""
    call = callyard.current()
    assert call is not None
    before = callyard.ending()
    while not callyard.ending():
        time.sleep(0.01)
    return not before, call.time_left()


def warned_by(name: str) -> str:
    got: list[int] = []
    signal.signal(signal.Signals[name], lambda signum, frame: got.append(signum))
    while not got:
        time.sleep(0.01)
    return signal.Signals(got[0]).name


def stop_when_warned(path: Path, begun: int = 0) -> int:
    """Work until warned, then ask to go on from there; the second run ends."""
    if begun:
        return begun
    path.write_text("begun")
    while not callyard.ending():
        time.sleep(0.01)
    raise callyard.Again(path, begun=begun + 1)


def ask_when_told(path: Path, attempt: int = 1) -> int:
    """Stay until told to end, then ask to go on; the second attempt ends."""
    if attempt > 1:
        return attempt
    try:
        path.write_text("begun")
        time.sleep(STAY)
    except SystemExit:
        raise callyard.Again(path, attempt + 1) from None
    return attempt


def ask_when_told_there(path: Path, attempt: int = 1) -> tuple[int, str]:
    """The same on nodes: with the name of the node."""
    here = os.environ.get("SLURMD_NODENAME") or os.environ["CALLYARD_NODE"]
    if attempt > 1:
        return attempt, here
    try:
        path.write_text(here)
        time.sleep(STAY)
    except SystemExit:
        raise callyard.Again(path, attempt + 1) from None
    return attempt, here


def end_at_second_sight(path: Path) -> int:
    """Stay until told to end, and return at once in the second attempt."""
    call = callyard.current()
    assert call is not None
    if call.attempt == 1:
        path.write_text("begun")
        time.sleep(STAY)
    return call.attempt


def end_itself() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STAY)


def time_left_on_ranks() -> float | None:
    from mpi4py import MPI

    MPI.COMM_WORLD.barrier()
    call = callyard.current()
    assert call is not None
    return call.time_left()


def count_down_on_ranks(steps: int, total: int = 0) -> tuple[int, int, int]:
    """The same on several ranks, each with arguments of its own; the rank, the sum, and which run it is."""
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.rank
    call = callyard.current()
    assert call is not None
    if steps:
        raise callyard.Again(steps - 1, total=total + rank + 1)
    return rank, total, call.attempt


def ask_on_all_ranks_when_told(path: Path, attempt: int = 1) -> int:
    from mpi4py import MPI

    if attempt > 1:
        return attempt
    try:
        MPI.COMM_WORLD.barrier()
        path.write_text("begun")
        time.sleep(STAY)
    except SystemExit:
        raise callyard.Again(path, attempt + 1) from None
    return attempt


def save_on_all_ranks(paths: list[Path], seconds: float = 0.0) -> str:
    """Stay until told to end; the last rank takes so long to return that its launcher would have killed it."""
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.rank
    try:
        MPI.COMM_WORLD.barrier()
        paths[rank].write_text("begun")
        time.sleep(STAY)
    except SystemExit:
        time.sleep(seconds * rank)
        return "saved"
    return "stayed"


def warned_on_all_ranks(paths: list[Path]) -> tuple[bool, str]:
    """Return whether SIGTERM has not come yet, and the warning signal, as each rank gets it."""
    from mpi4py import MPI

    got: list[int] = []
    signal.signal(signal.SIGUSR2, lambda signum, frame: got.append(signum))
    MPI.COMM_WORLD.barrier()
    paths[MPI.COMM_WORLD.rank].write_text("begun")
    try:
        while not got:
            time.sleep(0.01)
    except SystemExit:
        return False, ""
    return callyard.ending(), signal.Signals(got[0]).name


def ask_on_one_rank() -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        raise callyard.Again


def grow(data: bytes, steps: int) -> int:
    if steps:
        raise callyard.Again(data + data, steps - 1)
    return len(data)


def about(_: object = None) -> Any:
    return callyard.current()


def about_an_executor() -> str:
    with callyard.Executor() as ex:
        return repr(ex)


def child_of_a_call() -> int:
    """What a child that the call has forked does with SIGTERM."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def clean_up_beside_a_thread(path: Path) -> None:
    """As `clean_up`; SIGTERM goes to another thread, so that it does not end the sleep of this one."""
    threading.Thread(target=time.sleep, args=(STAY,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    clean_up(path)


class EndsOthers:
    """An object whose reading ends any process but the one that made it."""

    def __reduce__(self) -> tuple[object, ...]:
        return end_others, (os.getpid(),)


def end_others(pid: int) -> None:
    if os.getpid() != pid:
        os._exit(3)


def take(value: object) -> object:
    return value
