"""Many processes at one cache, some of which are killed: each call runs once, and what is stored is right.

`--writer-kills 1000 --writer-seed 7` makes the second test longer, and another one.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, Executor
from callyard.cache.entry import Entry

PROCESSES, CALLS = 10, 30

HAMMER = """
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

order = list(range(CALLS))
random.Random(SEED).shuffle(order)
with ThreadPoolExecutor(2) if SEED % 3 == 0 else nullcontext("local") as backend:
    with Executor(None if SEED % 3 == 0 else 2, backend=backend, cache=RESULTS) as ex:
        ex.submit(pow, 2, 2).result()
        calls.hold(PLACE)
        squares = {x: ex.submit(calls.square, JOURNAL, x) for x in order}
        words = {f"word {x}" for x in order}
        count = ex.submit(calls.count, JOURNAL, words, {f"key {x}": x for x in order})
        sums = {x: ex.submit(calls.plus, JOURNAL, squares[x], squares[(x + 1) % CALLS]) for x in order}
        twice = [ex.submit(calls.plus, JOURNAL, squares[x], squares[(x + 1) % CALLS]) for x in order]
        total = ex.submit(calls.plus, JOURNAL, count, *(sums[x] for x in sorted(sums)))
        print("total", total.result(), sum(future.result() for future in twice))
"""


def test_ten_processes_run_each_call_once(script: Callable[..., Any], gate: Any, journal: str, results: Path) -> None:
    runs = [script(HAMMER, hash_seed=seed, SEED=seed, CALLS=CALLS) for seed in range(1, PROCESSES + 1)]
    gate.arrived(PROCESSES)
    gate.open(PROCESSES)
    sums = 2 * sum(x * x for x in range(CALLS))
    total = sums + CALLS + sum(range(CALLS))
    for run in runs:
        run.wait_for(f"total {total} {sums}")
        code, _, errors = run.finish()
        assert (code, errors) == (0, "")
    lines = noted(journal)
    assert sorted(set(lines)) == sorted(lines)
    assert len(lines) == 2 * CALLS + 2
    cache = Cache(results)
    assert len(cache) == len(lines) + 1
    assert cache.check().problems == []


# ------------------------------------------------------------------ writers are killed

WRITER = """
import itertools, random
from concurrent.futures import wait

chance = random.Random(SEED)
with Executor(2, cache=RESULTS, resource_dict={"restart_limit": 1_000_000}) as ex:
    for start in itertools.count(0, 10):
        order = list(range(start, start + 10))
        chance.shuffle(order)
        blobs = [ex.submit(calls.blob, JOURNAL, PULSE, x) for x in order]
        wait([ex.submit(calls.half, JOURNAL, PULSE, blob) for blob in blobs])
"""


class Writers:
    """Processes that fill a cache without end."""

    def __init__(self, script: Callable[..., Any], pulse: str, journal: str, chance: random.Random) -> None:
        self._script, self._pulse, self._journal, self._chance = script, pulse, journal, chance
        self._living: dict[int, Any] = {}
        self._made = 0
        self.killed: set[str] = set()  # numbers of writers
        self.killed_workers: set[str] = set()  # process numbers

    def start(self) -> None:
        self._made += 1
        number = self._made
        os.environ["CALLYARD_TEST_WRITER"] = str(number)
        self._living[number] = self._script(WRITER, hash_seed=number, SEED=number, PULSE=self._pulse)

    def kill_one(self) -> bool:
        """A driver, which is replaced, or a worker that has begun a call lately; whether there was one."""
        if self._chance.random() < 0.2:
            self._kill(self._chance.choice(sorted(self._living)))
            self.start()
            return True
        _, _, pid, writer = self._chance.choice(noted(self._journal)[-4:]).split()
        try:
            worker = psutil.Process(int(pid))
            if worker.environ().get("CALLYARD_TEST_WRITER") != writer:
                return False
            self.killed_workers.add(pid)  # first: it may be gone when the signal has been sent
            worker.kill()
        except psutil.Error:  # it was killed before
            return False
        return True

    def kill_all(self) -> list[int]:
        """Kill the drivers; return the processes that end with them."""
        family = [child.pid for run in self._living.values() for child in _family(run)]
        for number in list(self._living):
            self._kill(number)
        return family

    def _kill(self, number: int) -> None:
        self.killed.add(str(number))
        self._living.pop(number).end()


def _family(run: Any) -> list[psutil.Process]:
    return psutil.Process(run.process.pid).children(recursive=True)


def check_entry(entry: Entry) -> None:
    if entry.function == "blob":
        assert entry.output == calls.blob_of(entry.args[2])
    else:
        whole = entry.args[2]
        assert whole == calls.blob_of(int(whole[:9]))
        assert entry.output == whole[: len(whole) // 2]


@pytest.fixture
def pulse(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A pipe with a byte for each beginning of a call."""
    path = str(tmp_path / "pulse")
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    yield path, descriptor
    os.close(descriptor)


@pytest.mark.timeout(0)
@pytest.mark.needs("linux")
def test_writers_are_killed_at_random(
    request: Any,
    script: Callable[..., Any],
    ended: Callable[[int], None],
    pulse: tuple[str, int],
    journal: str,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CALLYARD_TEST_WRITER", "0")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where a killed process may leave something too
    chance = random.Random(request.config.getoption("writer_seed"))
    writers, cache, kills = Writers(script, pulse[0], journal, chance), Cache(results), 0
    for _ in range(2):
        writers.start()
    while kills < request.config.getoption("writer_kills"):
        for _ in range(1 + chance.randrange(12)):
            os.read(pulse[1], 1)
        for _ in range(chance.randrange(100_000)):  # up to a few ms: calls are short, so they may be storing then
            pass
        kills += writers.kill_one()
        keys = cache.keys()
        for key in chance.sample(keys, min(len(keys), 3)):
            check_entry(cache[key])
    for pid in writers.kill_all():
        ended(pid)
    _check_what_is_left(cache)
    _check_runs(journal, writers)
    _complete(cache, journal, pulse[0])


def _check_what_is_left(cache: Cache) -> None:
    assert {problem.kind for problem in cache.check().problems} <= {"left"}
    cache.check(repair=True)
    assert cache.check().problems == []
    assert not list(Path(cache.path).rglob(".tmp-*"))
    assert not list(cache._claims.running())
    for entry in cache:
        check_entry(entry)


def _check_runs(journal: str, writers: Writers) -> None:
    """A call began again only where the process that ran it before was killed."""
    runs: dict[str, list[list[str]]] = defaultdict(list)
    for _, x, *who in map(str.split, noted(journal)):
        runs[x].append(who)
    for x, begun in runs.items():
        for pid, writer in begun[:-1]:
            assert pid in writers.killed_workers or writer in writers.killed, f"call {x} ran again after {begun}"


def _complete(cache: Cache, journal: str, pulse: str) -> None:
    """All that was begun can be had, and what is stored is not run again."""
    before = noted(journal)
    numbers = sorted({int(line.split()[1]) for line in before})
    with Executor(2, cache=cache) as ex:
        futures = [ex.submit(calls.blob, journal, pulse, x) for x in numbers]
        assert [future.result() for future in futures] == list(map(calls.blob_of, numbers))
        missing = [x for x, future in zip(numbers, futures, strict=True) if not future.cached]
    assert sorted(int(line.split()[1]) for line in noted(journal)[len(before) :]) == missing
    assert cache.check().problems == []
