"""The driver's work alone: real calls of a real executor on nodes that are pretended (see `crowd.py`).

`python -m bench --scale` makes the table; `python -m bench.scale NODES CORES MICROSECONDS CALLS FILE` measures once.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench import work
from bench.crowd import GO_ON, HOLD
from bench.machine import describe
from bench.report import number
from bench.run import ROOT, Failed, child
from callyard import Cache, Executor, Local
from callyard.backends.base import Settings
from callyard.backends.cluster import ClusterBackend, LocalLaunch
from callyard.cluster.base import AgentProcess, StartedAgents
from callyard.pool.call_shape import NodeOffer

PATIENCE = 100.0  # s in which all nodes must be there
TIME_LIMIT = 900  # s; a million calls take minutes on a busy machine
MEASURED = 300_000  # calls in all
SHORT, LONG = 10, 1_000_000  # us that calls are said to take: many are sent ahead, or none


class Scale(NamedTuple):
    """So many nodes, each with so many cores, whose calls are said to take so long."""

    nodes: int
    cores: int
    microseconds: int
    calls: int


class Work(NamedTuple):
    """What it costs the driver."""

    rate: float  # calls/s
    cpu: float  # us of all threads of the process, for each call
    pending: float  # bytes for each call that has not ended
    ended: float  # bytes for each call that has ended, and whose future is held
    most: float  # MiB of the process in all, at most


# ------------------------------------------------------------------ one measurement


class CrowdLaunch(LocalLaunch):
    """Nodes that are all one process of this machine."""

    pid = 0

    def __init__(self, scale: Scale, directory: str) -> None:
        super().__init__({f"n{number}": NodeOffer(scale.cores) for number in range(scale.nodes)}, directory)
        self._words = [str(scale.cores), str(scale.microseconds)]

    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[StartedAgents]:
        command = [sys.executable, "-m", "bench.crowd", contact, *self._words, *nodes]
        started = AgentProcess(nodes, command, {**os.environ, "PYTHONPATH": str(ROOT)})
        self.pid = started.pid
        return [started]


@dataclass(frozen=True)
class Crowd(Local):
    """A backend for `Executor`."""

    launch: Any = None

    def open(self, settings: Settings, cache: Cache | None = None) -> ClusterBackend:  # type: ignore[override]
        return ClusterBackend(self.launch, settings)


@contextmanager
def driver(scale: Scale) -> Iterator[tuple[Executor, int]]:
    """An executor whose nodes are all there, and the number of the process that pretends them."""
    with tempfile.TemporaryDirectory() as directory:
        launch = CrowdLaunch(scale, directory)
        with Executor(backend=Crowd(launch=launch)) as executor:
            gather(submit(executor, 1000))  # the function is known
            driver: Any = executor._running.backend._runner  # type: ignore[attr-defined]
            until = time.monotonic() + PATIENCE
            while len(driver._placement.nodes) < scale.nodes:
                assert time.monotonic() < until, f"only {len(driver._placement.nodes)} nodes are there"
                time.sleep(0.01)
            yield executor, launch.pid


def measure(scale: Scale) -> Work:
    with driver(scale) as (executor, crowd):
        lots = [cost_of(executor, scale.calls) for _ in range(min(9, max(1, MEASURED // scale.calls)))]
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pending, ended = memory_of(executor, crowd, scale.calls)
    walls, cpus = zip(*lots, strict=True)
    return Work(scale.calls / median(walls), median(cpus) / scale.calls * 1e6, pending, ended, most)


def cost_of(executor: Executor, calls: int) -> tuple[float, float]:
    """Time and processor time in s."""
    wall, cpu = time.perf_counter(), time.process_time()
    gather(submit(executor, calls))
    return time.perf_counter() - wall, time.process_time() - cpu


def memory_of(executor: Executor, crowd: int, calls: int) -> tuple[float, float]:
    """Python's own memory in this process, in bytes for each call that waits or is at its node, and that has ended."""
    tracemalloc.start()
    os.kill(crowd, HOLD)
    try:
        futures = submit(executor, calls)
        pending, _ = tracemalloc.get_traced_memory()
    finally:
        os.kill(crowd, GO_ON)
    gather(futures)
    ended, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return pending / calls, ended / calls


def submit(executor: Executor, count: int) -> list[Any]:
    return [executor.submit(work.increment, value) for value in range(count)]


def gather(futures: list[Any]) -> None:
    for future in futures:
        assert future.result() is None  # nobody has computed it


# ------------------------------------------------------------------ the table

SIZES = [(nodes, cores, 100_000) for nodes in (10, 100, 1_000) for cores in (4, 128)] + [(1_000, 128, 1_000_000)]
HEADER = (
    "nodes",
    "cores of each",
    "calls",
    "calls/s",
    "CPU (us/call)",
    "the same, long calls",
    "B pending",
    "B ended",
    "MiB in all",
)


def table(quick: bool, tell: Callable[[str], None]) -> list[list[str]]:
    sizes = [(nodes, cores, calls // 100) for nodes, cores, calls in SIZES if nodes < 1_000] if quick else SIZES
    return [line(*size, tell) for size in sizes]


def line(nodes: int, cores: int, calls: int, tell: Callable[[str], None]) -> list[str]:
    what = [f"{nodes:,}", f"{cores:,}", f"{calls:,}"]
    try:
        short, long = (measured(Scale(nodes, cores, each, calls)) for each in (SHORT, LONG))
    except Failed as failure:
        tell(f"{what}: {failure}")
        return [*what, *"-" * (len(HEADER) - len(what))]
    tell(f"{what}: {short}, {long}")
    return [*what, *map(number, (short.rate, short.cpu, long.cpu, short.pending, short.ended, short.most))]


def measured(scale: Scale) -> Work:
    return Work(*child("bench.scale", *map(str, scale), limit=TIME_LIMIT))


def markdown(lines: Sequence[Sequence[str]]) -> str:
    rows = [HEADER, ["---:"] * len(HEADER), *lines]
    about = [f"- {each}" for each in describe([])[:2]]
    return "\n".join(["# A thousand nodes", "", *(f"| {' | '.join(row)} |" for row in rows), "", *about]) + "\n"


def main(nodes: str, cores: str, microseconds: str, calls: str, file: str) -> None:
    done = measure(Scale(int(nodes), int(cores), int(microseconds), int(calls)))
    Path(file).write_text(json.dumps({"value": done}))


if __name__ == "__main__":
    main(*sys.argv[1:])
