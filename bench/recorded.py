"""What it costs to record a run: events in a file, what each call uses, and the progress line."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench import work
from bench.peers import WORKERS, Peer, Pool, load
from bench.rows import Effort, elapsed, growing_rate, warm

_ROUNDS = 3
_SECONDS = 0.01  # s of processor time of a call


@contextmanager
def _pool(peer: Peer, **options: Any) -> Iterator[Pool]:
    with load(peer.entry)(max_workers=WORKERS, **options) as executor:
        yield Pool(executor.submit)


@contextmanager
def _recorded(peer: Peer, **options: Any) -> Iterator[Pool]:
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stderr(io.StringIO()):
        with _pool(peer, events=f"{directory}/run.jsonl", **options) as pool:
            yield pool


def noop_rate_with_events(peer: Peer, effort: Effort) -> float:
    with _recorded(peer) as pool:
        warm(pool)
        return growing_rate(pool, effort.seconds, first=100)


def overhead(peer: Peer, effort: Effort) -> float:
    """How much longer calls of 10 ms take with everything on (%), the best of some rounds compared."""

    def run(pool: Pool) -> None:
        pool.gather([pool.submit(work.compute, _SECONDS) for _ in range(effort.recorded)])

    took: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_ROUNDS):
        for recorded, times in took.items():
            with _recorded(peer, progress=True) if recorded else _pool(peer) as pool:
                warm(pool)
                times.append(elapsed(partial(run, pool)))
    return 100 * (min(took[True]) / min(took[False]) - 1)
