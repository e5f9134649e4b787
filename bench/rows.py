"""The measurements: each is a function of a peer and of how much effort to spend, and returns one number."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import work
from bench.peers import WORKERS, Peer, Pool, load

MEGABYTE = 1e6


@dataclass(frozen=True)
class Effort:
    """How much is done: what can be done for a while lasts about `seconds`, the rest is counted."""

    seconds: float = 1.0
    pending: int = 10_000
    array: int = 8_000_000  # float64, so 64 MB
    node_array: int = 25_000_000  # 200 MB
    chain: int = 300
    leaves: int = 1_024
    many: int = 100_000  # compared with a tenth of it
    cached: int = 500  # results in a cache, each asked for once
    jobs: int = 100
    live: int = 2_000  # calls inside an allocation
    recorded: int = 10_000  # calls of 10 ms


QUICK = Effort(
    seconds=0.2,
    pending=1_000,
    array=1_000_000,
    node_array=1_000_000,
    chain=50,
    leaves=128,
    many=10_000,
    cached=100,
    jobs=10,
    live=200,
    recorded=200,
)


def warm(pool: Pool) -> None:
    """Workers started, function known, caches filled."""
    together(pool, 50)


def elapsed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def repeated(action: Callable[[], float], seconds: float, at_least: int) -> list[float]:
    """What `action` returns, time after time, until `seconds` have passed."""
    end, values = time.perf_counter() + seconds, [action() for _ in range(at_least)]
    while time.perf_counter() < end:
        values.append(action())
    return values


def noop_rate(peer: Peer, effort: Effort) -> float:
    with peer.open() as pool:
        warm(pool)
        return growing_rate(pool, effort.seconds, first=100)


def fresh_rate(peer: Peer, effort: Effort) -> float:
    assert peer.fresh is not None
    with peer.fresh() as pool:
        together(pool, WORKERS)
        return growing_rate(pool, effort.seconds, first=5)


def together(pool: Pool, count: int) -> None:
    pool.gather([pool.submit(work.noop) for _ in range(count)])


def growing_rate(pool: Pool, seconds: float, first: int) -> float:
    """Calls per second of ever larger lots, as in `timeit`: a slow peer takes no longer than a fast one."""
    count = first
    while True:
        took = elapsed(partial(together, pool, count))
        if took >= seconds:
            return count / took
        count *= 2


def round_trip(peer: Peer, effort: Effort) -> float:
    with peer.open() as pool:
        warm(pool)
        times = repeated(lambda: elapsed(lambda: pool.get(pool.submit(work.noop))), effort.seconds, 20)
        return median(times) * 1e6


def writable(array: Any) -> Any:
    """Who hands out a read-only view leaves the copy to its user."""
    return array if array.flags.writeable else array.copy()


def array_rate(peer: Peer, effort: Effort) -> float:
    """Both ways are counted. The argument differs each time, so that nobody can answer from memory."""
    import numpy as np

    array = np.random.default_rng(0).random(effort.array)

    def there_and_back() -> float:
        array[0] += 1
        start = time.perf_counter()
        result = writable(pool.get(pool.submit(work.negative, pool.put(array))))
        took = time.perf_counter() - start
        assert (result[0], result[-1]) == (-array[0], -array[-1])
        return took

    with peer.open() as pool:
        warm(pool)
        there_and_back()
        took = median(repeated(there_and_back, effort.seconds, 3))
        return 2 * 8 * effort.array / MEGABYTE / took


def chain_rate(peer: Peer, effort: Effort) -> float:
    with peer.open() as pool:
        warm(pool)
        return effort.chain / median(repeated(lambda: elapsed(lambda: chain(pool, effort.chain)), effort.seconds, 1))


def chain(pool: Pool, length: int) -> None:
    future = pool.submit(work.increment, 0)
    for _ in range(length - 1):
        future = pool.submit(work.increment, future)
    assert pool.get(future) == length


def fan(pool: Pool, width: int) -> None:
    root = pool.submit(work.increment, 0)
    assert sum(pool.gather([pool.submit(work.increment, root) for _ in range(width)])) == 2 * width


def reduction_rate(peer: Peer, effort: Effort) -> float:
    with peer.open() as pool:
        warm(pool)
        calls = 2 * effort.leaves - 1
        return calls / median(repeated(lambda: elapsed(lambda: reduction(pool, effort.leaves)), effort.seconds, 1))


def reduction(pool: Pool, leaves: int) -> None:
    """A binary tree of sums; `leaves` is a power of two."""
    level = [pool.submit(work.increment, 0) for _ in range(leaves)]
    while len(level) > 1:
        level = [pool.submit(work.add, *pair) for pair in zip(level[::2], level[1::2], strict=True)]
    assert pool.get(level[0]) == leaves


def construction(peer: Peer, _: Effort) -> float:
    """One time only: the second executor of a process would find things warm. Importing is another row."""
    load(peer.entry)
    start = time.perf_counter()
    with peer.open() as pool:
        together(pool, WORKERS)
        return (time.perf_counter() - start) * 1e3


@contextmanager
def blocked(pool: Pool) -> Iterator[None]:
    """All workers are busy inside, for certain: opening a pipe for writing waits for who reads it."""
    with tempfile.TemporaryDirectory() as directory:
        fifos = [Path(directory, str(number)) for number in range(WORKERS)]
        for fifo in fifos:
            os.mkfifo(fifo)
        holds = [pool.submit(work.hold, str(fifo)) for fifo in fifos]
        gates = [fifo.open("w") for fifo in fifos]
        try:
            yield
        finally:
            for gate in gates:
                gate.close()
            pool.gather(holds)


def submit_many(pool: Pool, effort: Effort) -> list[Any]:
    """As many calls as asked for, fewer if the peer is slow at it: they all have to be run at the end."""
    futures: list[Any] = []
    end = time.perf_counter() + effort.seconds
    while len(futures) < effort.pending and time.perf_counter() < end:
        futures.append(pool.submit(work.noop))
    return futures


def pending_memory(peer: Peer, effort: Effort) -> float:
    """Python's own memory in this process: exact, and the same on every system."""
    with peer.open() as pool:
        warm(pool)
        with blocked(pool):
            tracemalloc.start()
            futures = submit_many(pool, effort)
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        pool.gather(futures)
        return size / len(futures)


def submit_time(peer: Peer, effort: Effort) -> float:
    with peer.open() as pool:
        warm(pool)
        with blocked(pool):
            start = time.perf_counter()
            futures = submit_many(pool, effort)
            took = time.perf_counter() - start
        pool.gather(futures)
        return took / len(futures) * 1e6


def import_time(peer: Peer, effort: Effort) -> float:
    """In a bare interpreter, since this one has loaded half of it already."""
    module, _, name = peer.entry.partition(":")
    script = f"from time import perf_counter as t; s = t(); from {module} import {name}; print(t() - s)"

    def once() -> float:
        return float(subprocess.check_output([sys.executable, "-c", script], stdin=subprocess.DEVNULL))

    once()
    return median(repeated(once, effort.seconds, 3)) * 1e3


def growth(graph: Callable[[Pool, int], None], peer: Peer, effort: Effort) -> float:
    """How much longer a call takes when there are ten times as many: 1 is proportional, 10 quadratic."""
    with peer.open() as pool:
        warm(pool)
        few = elapsed(lambda: graph(pool, effort.many // 10))
        return elapsed(lambda: graph(pool, effort.many)) / few / 10


def chain_growth(peer: Peer, effort: Effort) -> float:
    return growth(chain, peer, effort)


def fan_growth(peer: Peer, effort: Effort) -> float:
    return growth(fan, peer, effort)


def idle_load(peer: Peer, effort: Effort) -> float:
    """All threads of this process together; a moment's grace lets the last call's clean-up end."""
    with peer.open() as pool:
        warm(pool)
        time.sleep(effort.seconds / 2)
        start = time.process_time()
        time.sleep(2 * effort.seconds)
        return (time.process_time() - start) * 1e3 / (2 * effort.seconds)
