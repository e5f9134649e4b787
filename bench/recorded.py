"""What it costs to record a run: events in a file, what each call uses, and the progress line."""

from __future__ import annotations

import contextlib
import os
import pty
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench import work
from bench.peers import WORKERS, Peer, Pool, load
from bench.rows import Effort, elapsed, growing_rate, warm

_SECONDS = 0.01  # s of processor time of a call
_BLOCK = 200  # calls


@contextmanager
def _pool(peer: Peer, **options: Any) -> Iterator[Pool]:
    with load(peer.entry)(max_workers=WORKERS, **options) as executor:
        yield Pool(executor.submit)


@contextmanager
def _recorded(peer: Peer, **options: Any) -> Iterator[Pool]:
    with tempfile.TemporaryDirectory() as directory, _pool(peer, events=f"{directory}/run.jsonl", **options) as pool:
        yield pool


@contextmanager
def _terminal() -> Iterator[None]:
    """Let stderr be a terminal, as progress is drawn nowhere else; what is drawn is read and forgotten."""
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=_read_all, args=(ours,))
    reader.start()
    try:
        with os.fdopen(theirs, "w") as file, contextlib.redirect_stderr(file):
            yield
    finally:
        reader.join()
        os.close(ours)


def _read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        while os.read(terminal, 1 << 16):
            pass


def noop_rate_with_events(peer: Peer, effort: Effort) -> float:
    with _recorded(peer) as pool:
        warm(pool)
        return growing_rate(pool, effort.seconds, first=100)


def overhead(peer: Peer, effort: Effort) -> float:
    """How much longer calls of 10 ms take with everything on (%).

    Two executors take turns, block by block: what a machine can do changes within minutes by more than the difference.
    """

    def run(pool: Pool) -> None:
        pool.gather([pool.submit(work.compute, _SECONDS) for _ in range(_BLOCK)])

    took = {False: 0.0, True: 0.0}
    with _terminal(), _recorded(peer, progress=True) as recorded, _pool(peer) as plain:
        for pool in (recorded, plain):
            warm(pool)
        for number in range(max(1, effort.recorded // _BLOCK)):
            for is_recorded in (number % 2 == 0, number % 2 == 1):
                took[is_recorded] += elapsed(partial(run, recorded if is_recorded else plain))
    return 100 * (took[True] / took[False] - 1)
