"""Workers killed at random under load: nothing is lost, nothing runs twice that may not.

`--kills 1000 --seed 7` makes it longer, and another one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any, NamedTuple

import acts
import pytest

from callyard import Executor, Local, WorkerLost

BATCH = 40  # calls for each kill


class Made(NamedTuple):
    """A call, what it depends on, and how often it may run again."""

    future: Any
    sources: tuple[int, ...]
    restarts: int


class Load:
    """Calls of all kinds, and what became of them."""

    def __init__(self, executor: Executor, journal: str, chance: random.Random) -> None:
        self.executor, self.journal, self.chance = executor, journal, chance
        self.calls: list[Made] = []

    def add(self, count: int) -> None:
        for _ in range(count):
            self._submit()

    def _submit(self) -> None:
        number, chance = len(self.calls), self.chance
        seconds = chance.choice([0, 0, 0, 0, 0, 0, 0.0005, 0.005])
        recent = range(max(0, number - BATCH), number)
        sources = tuple(chance.sample(recent, min(len(recent), chance.choice([0, 0, 0, 1, 2]))))
        restarts = chance.choice([0, 0, 3])
        future = self.executor.submit(
            acts.note_and_work if seconds else note_only,
            self.journal,
            number,
            seconds,
            *(self.calls[source].future for source in sources),
            resource_dict={"restart_limit": restarts},
        )
        self.calls.append(Made(future, sources, restarts))

    def wait_for_some(self) -> None:
        """Until one of those that run now is done: the next kill hits others."""
        open_ones = [made.future for made in self.calls[-3 * BATCH :] if not made.future.done()]
        if len(open_ones) > BATCH:
            wait(self.chance.sample(open_ones, BATCH // 2), return_when=FIRST_COMPLETED)

    def runs(self) -> dict[int, list[int]]:
        """The processes in which each call has begun, in order."""
        found: dict[int, list[int]] = defaultdict(list)
        for line in acts.noted(self.journal):
            number, pid = map(int, line.split())
            found[number].append(pid)
        return found


def note_only(path: str, number: int, seconds: float, *others: int) -> int:
    """A function of its own, known to be short, so its calls are sent ahead."""
    return acts.note_and_work(path, number, seconds)


@pytest.mark.timeout(0)
def test_random_kills(request: Any, inside: Any, journal: str) -> None:
    chance = random.Random(request.config.getoption("seed"))
    killed: list[int] = []
    with Executor(backend=Local(cores=4)) as executor:
        load = Load(executor, journal, chance)
        while len(killed) < request.config.getoption("kills"):
            load.add(BATCH)
            load.wait_for_some()
            pids = inside(executor).workers
            with contextlib.suppress(ProcessLookupError, IndexError):
                victim = chance.choice(pids)
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
        wait([made.future for made in load.calls])
    _check(load, killed)


def _check(load: Load, killed: list[int]) -> None:
    runs, lost = load.runs(), 0
    for number, made in enumerate(load.calls):
        begun, error = runs[number], made.future.exception()
        again = begun if error is not None else begun[:-1]  # runs that came to nothing
        assert len(begun) <= 1 + made.restarts, f"call {number} ran {len(begun)} times"
        assert set(again) <= set(killed), f"call {number} ran again although nobody killed its worker"
        if any(load.calls[source].future.exception() is not None for source in made.sources):
            assert isinstance(error, WorkerLost)
            assert not begun, f"call {number} ran although what it depends on has failed"
        elif error is None:
            assert made.future.result() == number
            assert begun, f"call {number} has a result and did not run"
            lost += len(again)
        else:
            assert isinstance(error, WorkerLost)
            lost += len(begun)
    # A worker runs one call at a time: those sent ahead are not lost with it.
    assert lost <= len(killed), f"{lost} runs were lost with {len(killed)} workers"
