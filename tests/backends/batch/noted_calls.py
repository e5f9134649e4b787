"""Calls for jobs, which leave a line in a journal each time that they run."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn

from gate import Gate
from this_machine import until

import callyard


def note(journal: str, word: object) -> None:
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{word}\n".encode())
    os.close(descriptor)


def runs(journal: str | Path) -> Counter[str]:
    """How often each call has run."""
    try:
        return Counter(Path(journal).read_text().split())
    except FileNotFoundError:
        return Counter()


def has_begun(future: Future[Any]) -> None:
    until(future.running)


def noted(journal: str, word: str, *inputs: Any) -> str:
    note(journal, word)
    return "+".join([word, *inputs])


def held(journal: str, gate: Gate, word: str, *inputs: Any) -> str:
    note(journal, word)
    gate.hold()
    return "+".join([word, *inputs])


def failing(journal: str, word: str) -> NoReturn:
    note(journal, word)
    print("about to fail", flush=True)
    raise ValueError(word)


def failing_without(journal: str, path: str, word: str) -> str:
    note(journal, word)
    if not os.path.exists(path):
        raise ValueError(word)
    return word


def failing_late(journal: str, gate: Gate, word: str) -> NoReturn:
    note(journal, word)
    gate.hold()
    raise ValueError(word)


def processes(journal: str, gate: Gate, word: str) -> str:
    """Leaves the numbers of the process that runs it, and of the one that keeps it."""
    note(journal, f"{os.getpid()},{os.getppid()}")
    gate.hold()
    return word


def killed(journal: str, word: str) -> NoReturn:
    note(journal, word)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def dying(journal: str, times: int, rank: int | None = None) -> int:
    """Lose the process in the first attempts, of all ranks or of this one; return the number of the attempt."""
    if rank is not None:
        from mpi4py import MPI

        if MPI.COMM_WORLD.Get_rank() != rank:
            return MPI.COMM_WORLD.bcast(0, rank)
    call = callyard.current()
    assert call is not None
    note(journal, call.attempt)
    if call.attempt <= times:
        os._exit(7)
    return call.attempt if rank is None else MPI.COMM_WORLD.bcast(call.attempt, rank)


def killing_its_job(journal: str, times: int) -> int:
    """Kill the process of the job in the first attempts; return the number of the attempt."""
    call = callyard.current()
    assert call is not None
    note(journal, call.attempt)
    if call.attempt <= times:
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()  # this process ends with its parent
    return call.attempt


def overlapping(journal: str, value: int) -> int:
    """Leaves a mark when it begins and when it ends."""
    note(journal, "+")
    time.sleep(0.1)  # so that others could begin; nothing is waited for
    note(journal, "-")
    return value


def most_at_once(journal: str) -> int:
    """How many of those have run at the same time."""
    marks = Path(journal).read_text().split()
    return max(marks[:end].count("+") - marks[:end].count("-") for end in range(len(marks) + 1))
