"""Runs that nobody has made: events of many calls on some nodes, the same each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heapreplace

from callyard.events.call_record import RunRecord
from callyard.events.event import Ended, Event, Failure, RunBegan, RunEnded, Started, Submitted, Usage, Waiting

BEGAN = 1_780_000_000.0  # 2026-05-28 20:26:40 UTC
GIB = 2**30

TRACEBACK = """\
Traceback (most recent call last):
  File "study.py", line 31, in phonons
    modes = solve(matrix)
  File "study.py", line 12, in solve
    raise ValueError("the matrix is not positive definite")
ValueError: the matrix is not positive definite
"""
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp;"

# function, seconds, cores, GiB asked, share of the cores used, GiB used
KINDS = {
    "relax": (40.0, 4, 16.0, 0.93, 2.1),
    "energy": (9.0, 1, 2.0, 0.99, 0.4),
    "phonons": (120.0, 8, 32.0, 0.55, 24.0),
    "fit": (0.4, 1, None, 0.9, 0.1),
}


@dataclass
class Simulation:
    """A run of `calls` calls: for each structure relax -> energy, phonons -> fit, on workers that take turns."""

    calls: int
    nodes: int = 4
    workers_of_a_node: int = 8
    hostile: bool = False
    draw: random.Random = field(default_factory=lambda: random.Random(7))

    def events(self) -> Iterator[Event]:
        cores = self.nodes * self.workers_of_a_node * 4
        yield RunBegan(
            BEGAN, "5f1c", "login1", 4711, "study.py", "<callyard.Executor Slurm, 4 nodes>", {"cores": cores}
        )
        free = [(BEGAN + 1.0, node, worker) for node in range(self.nodes) for worker in range(self.workers_of_a_node)]
        heapify(free)
        for number in range(self.calls):
            yield self._submitted(number)
        ended: dict[int, float | None] = {}
        for number in range(self.calls):
            inputs = self._inputs(number)
            if any(ended[each] is None for each in inputs):
                ended[number] = None
                yield Ended(BEGAN + number, number, "cancelled")
            elif self.draw.random() < 0.1:
                ended[number] = BEGAN + 0.01
                yield Ended(BEGAN + 0.01, number, "cached", key=f"{number:040x}")
            elif number >= self.calls - 2 and self.calls > 20:
                ended[number] = None
                yield Waiting(BEGAN + 2, number, "for 8 cores")
            else:
                begin, node, worker = free[0]
                begin = max([begin, *(ended[each] or 0.0 for each in inputs)])
                end = begin + self._seconds(number)
                heapreplace(free, (end + 0.01, node, worker))
                yield Started(begin, number, f"c{node + 1}", f"worker {1000 + 10 * node + worker}")
                last = self._ended(number, begin, end)
                ended[number] = None if last.outcome != "finished" else end
                yield last
        yield RunEnded(max(time for time, _, _ in free))

    def record(self) -> RunRecord:
        return RunRecord.of(self.events())

    def _name(self, number: int) -> str:
        return HOSTILE if self.hostile and number % 4 == 1 else list(KINDS)[number % 4]

    def _inputs(self, number: int) -> tuple[int, ...]:
        first = number - number % 4
        return {0: (), 1: (first,), 2: (first,), 3: (first + 1, first + 2)}[number % 4]

    def _submitted(self, number: int) -> Submitted:
        _, cores, memory, _, _ = list(KINDS.values())[number % 4]
        asked: dict[str, object] = {"cores_per_rank": cores} if cores > 1 else {}
        if memory:
            asked |= {"memory": memory, "run_time": 3600.0}
        time = BEGAN + 0.0001 * number
        return Submitted(time, number, self._name(number), f"study.py:{20 + number % 4}", asked, self._inputs(number))

    def _seconds(self, number: int) -> float:
        return list(KINDS.values())[number % 4][0] * self.draw.lognormvariate(0, 0.4)

    def _ended(self, number: int, begin: float, end: float) -> Ended:
        _, cores, _, share, memory = list(KINDS.values())[number % 4]
        peak = int(memory * GIB * self.draw.uniform(0.3, 1.0))
        usage = Usage(end - begin, (end - begin) * cores * share * self.draw.uniform(0.9, 1.0), peak, 1200, 88_000)
        chance = self.draw.random()
        if number % 4 == 2 and chance < 0.02:
            message = HOSTILE if self.hostile else "the matrix is not positive definite"
            failure = Failure("ValueError", message, TRACEBACK + (HOSTILE if self.hostile else ""))
            return Ended(end, number, "failed", f"{number:040x}", failure, usage)
        if chance > 0.998:
            failure = Failure("OutOfMemory", f"call {number} took more than its memory", "", None, "SIGKILL")
            return Ended(end, number, "failed", f"{number:040x}", failure, usage)
        return Ended(end, number, "finished", f"{number:040x}", None, usage)
