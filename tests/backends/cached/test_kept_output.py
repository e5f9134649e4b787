"""What a call prints: kept with its result or failure, and seen where it was seen before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gate import Gate, until

from callyard import Again, Cache, Executor, current

pytestmark = pytest.mark.needs("linux")  # elsewhere workers have no guards, which copy the output


def speak(x: int) -> int:
    print("one", x)
    subprocess.run(["sh", "-c", "echo two; echo three >&2"], check=True)
    print("four", file=sys.stderr)
    os.write(1, b"five\n")
    return x


def be_silent(x: int) -> int:
    return x


def chatter(lines: int) -> int:
    for number in range(lines):
        print(f"line {number:08}")
    return lines


def leave_a_voice(x: int) -> int:
    subprocess.Popen(["sh", "-c", "sleep 30; echo late"])
    print("early")
    return x


def go_on(total: int) -> int:
    run = current()
    assert run is not None
    print("run", run.attempt)
    if run.attempt < total:
        raise Again(total)
    return run.attempt


def wait_at(place: str) -> str:
    print("waiting")
    sys.stdout.flush()
    with open(f"{place}/arrivals", "r+b", buffering=0) as arrivals:
        arrivals.write(b".")
    with open(f"{place}/passes", "r+b", buffering=0) as passes:
        passes.read(1)
    return place


def log_of(results: Path, key: str | None) -> Any:
    return Cache(results)[key or ""].log


def outputs(results: Path) -> list[str]:
    return [path.name for path in results.glob("output/*")]


def test_output_of_all_kinds(ex: Executor, results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    future = ex.submit(speak, 1)
    assert future.result() == 1
    assert sorted(log_of(results, future.key).splitlines()) == ["five", "four", "one 1", "three", "two"]
    seen = capfd.readouterr()
    assert sorted(seen.out.splitlines()) == ["five", "one 1", "two"]
    assert sorted(seen.err.splitlines()) == ["four", "three"]
    assert outputs(results) == []


def test_each_call_has_its_own(ex: Executor, results: Path) -> None:
    futures = [ex.submit(function, number) for number in range(3) for function in (speak, be_silent)]
    assert [future.result() for future in futures] == [0, 0, 1, 1, 2, 2]
    for future, number in zip(futures[::2], range(3), strict=True):
        assert f"one {number}" in log_of(results, future.key).splitlines()
        assert len(log_of(results, future.key).splitlines()) == 5
    assert [log_of(results, future.key) for future in futures[1::2]] == [None] * 3


def test_much_output_is_cut_in_the_middle(ex: Executor, results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    future = ex.submit(chatter, 200_000)
    future.result()
    kept = log_of(results, future.key)
    assert len(kept) <= 1 << 18
    assert kept.startswith("line 00000000\n")
    assert kept.endswith("line 00199999\n")
    assert "bytes were left out here" in kept
    assert len(capfd.readouterr().out.splitlines()) == 200_000


def test_a_process_that_outlives_its_call(ex: Executor, results: Path) -> None:
    future = ex.submit(leave_a_voice, 1)
    assert future.result() == 1  # does not wait for the other
    assert log_of(results, future.key) == "early\n"


def test_runs_of_one_call(ex: Executor, results: Path) -> None:
    future = ex.submit(go_on, 3)
    assert future.result() == 3
    assert log_of(results, future.key) == "run 1\nrun 2\nrun 3\n"
    assert outputs(results) == []


def test_a_fresh_interpreter(ex: Executor, results: Path) -> None:
    future = ex.submit(speak, 1, resource_dict={"env": {"PYTHONHASHSEED": "1"}})
    assert future.result() == 1
    assert len(log_of(results, future.key).splitlines()) == 5


def test_while_a_call_runs(ex: Executor, results: Path, gate: Gate, place: str) -> None:
    future = ex.submit(wait_at, place)
    gate.arrived()
    log = Path(Cache(results)._directory.log(str(future.key)))
    until(lambda: log.exists() and log.read_text() == "waiting\n")
    gate.open()
    future.result()
    assert not log.exists()


def test_stdout_that_nobody_reads(script: Any, results: Path) -> None:
    """A reader that has gone is no matter of the calls."""
    run = script(
        """
        import os
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(writing)
        os.close(reading)
        def speak():
            print("into nothing")
            return 1
        with Executor(1, cache=RESULTS) as ex:
            assert ex.submit(speak).result() == 1
        (entry,) = Cache(RESULTS)
        assert entry.log == "into nothing\\n", entry.log
        """
    )
    assert run.finish()[0] == 0


def test_without_a_cache_nothing_is_a_pipe(make: Callable[..., Executor]) -> None:
    with Executor(1) as ex:
        assert ex.submit(os.fstat, 1).result()[:3] == os.fstat(1)[:3]
