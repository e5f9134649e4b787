"""The measurements of result caches. Every cache is a new directory, and goes away with its measurement."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from bench import work
from bench.peers import Peer, Pool
from bench.rows import MEGABYTE, Effort, elapsed, repeated

FACTOR = 2.5
CACHES = 3
LOT = 25


@contextmanager
def remembering(peer: Peer) -> Iterator[Pool]:
    assert peer.memory is not None
    with tempfile.TemporaryDirectory() as directory, peer.memory(directory) as pool:
        yield pool


def ask(pool: Pool, value: int) -> float:
    return pool.get(pool.submit(work.scaled, value, factor=FACTOR))  # type: ignore[no-any-return]


def ask_each(pool: Pool, values: Iterable[int]) -> float:
    """The median time of one call in s."""

    def once(value: int) -> float:
        took = elapsed(lambda: answers.append(ask(pool, value)))
        assert answers.pop() == value * FACTOR
        return took

    answers: list[float] = []
    return median(map(once, values))


def store(pool: Pool, values: Iterable[int]) -> None:
    pool.gather([pool.submit(work.scaled, value, factor=FACTOR) for value in values])


def hit_time(peer: Peer, effort: Effort) -> float:
    """This process stored the results, but not one is asked for twice."""
    with remembering(peer) as pool:
        store(pool, range(effort.cached))
        return ask_each(pool, range(effort.cached)) * 1e6


def crowded_hit_time(peer: Peer, effort: Effort) -> float:
    """Those asked for lie spread over all that there are."""
    assert peer.memory is not None
    with tempfile.TemporaryDirectory() as directory:
        fill(directory, effort.many)
        with peer.memory(directory) as pool:
            assert pool.submit(work.scaled, 0, factor=FACTOR).cached
            return ask_each(pool, range(1, effort.many, effort.many // effort.cached)) * 1e6


def fill(directory: str, count: int) -> None:
    """As workers store results, but here and with nothing around it: that many calls would take a minute."""
    from callyard.cache.directory import CacheDirectory
    from callyard.cache.format.record_writer import FINISHED, Record, write
    from callyard.hashing.call_key import call_key

    home = CacheDirectory.open(directory)
    for value in range(count):
        args, kwargs = (value,), {"factor": FACTOR}
        key = call_key(work.scaled, args, kwargs).hex
        record = Record(key, work.scaled.__name__, FINISHED, "", work.scaled(*args, **kwargs), args, kwargs)
        home.publish(key, lambda descriptor, record=record: write(descriptor, record))


def first_hit_time(peer: Peer, effort: Effort) -> float:
    return median(first_hits(peer, effort, "imported"))


def first_hit_and_import_time(peer: Peer, effort: Effort) -> float:
    return median(first_hits(peer, effort, "begun"))


def first_hits(peer: Peer, effort: Effort, since: str) -> list[float]:
    """Of the first call of processes, each new, in ms."""
    assert peer.memory is not None
    script = f"""
from time import perf_counter
begun = perf_counter()
from bench import peers, work
peer = peers.BY_NAME[{peer.name!r}]
peers.load(peer.entry)
imported = perf_counter()
with peer.memory({{directory!r}}) as pool:
    pool.get(pool.submit(work.scaled, 1, factor={FACTOR}))
    print((perf_counter() - {since}) * 1e3)
"""
    with tempfile.TemporaryDirectory() as directory:
        with peer.memory(directory) as pool:
            store(pool, range(effort.cached))
        command = [sys.executable, "-c", script.format(directory=directory)]

        def once() -> float:
            return float(subprocess.check_output(command, stdin=subprocess.DEVNULL).split()[-1])

        once()
        return repeated(once, 2 * effort.seconds, 5)


def miss_cost(peer: Peer, effort: Effort) -> float:
    """Several caches, because a new file costs more in one place of a disk than in another."""
    return median(cost for _ in range(CACHES) for cost in miss_costs(peer, effort.cached)) * 1e6


def miss_costs(peer: Peer, count: int) -> list[float]:
    """Of small lots of calls, one at a time and all different, with and without a memory in turn."""
    lots = [range(first, first + LOT) for first in range(0, count // CACHES, LOT)]
    with peer.open() as plain, remembering(peer) as pool:
        store(pool, range(-count, 0))  # a cache in use has most of its directories
        ask_each(plain, lots[0])
        return [ask_each(pool, lot) - ask_each(plain, lot) for lot in lots]


def digest_rate(peer: Peer, effort: Effort) -> float:
    """The array differs each time, so that nobody can recognize it by its address."""
    import numpy as np

    digest: Any = peer.digest
    array = np.random.default_rng(0).random(effort.array)

    def once() -> float:
        array[0] += 1
        return elapsed(lambda: digest(array))

    once()
    return array.nbytes / MEGABYTE / median(repeated(once, effort.seconds, 3))
