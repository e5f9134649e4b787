"""`callyard resume`: what was written down and not submitted reaches the scheduler, once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import noted_calls as calls
import pytest
from cluster import Cluster
from drivers import Driver
from failing_calls import put_before
from this_machine import until

from callyard import Executor
from callyard.cache.directory import CacheDirectory
from callyard.jobs.find_batches import folders_by_age

pytestmark = pytest.mark.once

Make = Callable[..., Executor]
Drive = Callable[..., Driver]

WRITES = """
    ex = executor(results)
    first = [ex.submit(calls.noted, journal, f"first{number}") for number in range(5)]
    wait([ex.submit(calls.noted, journal, "last", *first)])
"""


def resume(results: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "callyard", "resume", "--json", str(results)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def submitted(resuming: subprocess.Popen[str]) -> list[int]:
    """How many calls are in what it has submitted."""
    out, errors = resuming.communicate()
    print(errors)  # seen if the test fails
    return [each["calls"] for each in json.loads(out)["submitted"]]


def write_down(driver: Drive, directory: Path, monkeypatch: pytest.MonkeyPatch, script: str = WRITES) -> None:
    """Let a process write calls down that is killed before the scheduler has heard of them."""
    with monkeypatch.context() as patch:
        put_before(directory, patch, "sbatch", "kill -9 $PPID")
        driver(script).finish()


def results_of(ex: Executor, journal: str) -> str:
    first = [ex.submit(calls.noted, journal, f"first{number}") for number in range(5)]
    return ex.submit(calls.noted, journal, "last", *first).result()


def test_two_at_once_submit_once(
    driver: Drive,
    make: Make,
    slurm: Cluster,
    results: Path,
    journal: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_down(driver, tmp_path / "killing", monkeypatch)
    waiting = 'touch asked; while [ ! -e go ]; do sleep 0.02; done; exec "$real" "$@"'
    with monkeypatch.context() as patch:
        place = put_before(tmp_path / "waiting", patch, "sbatch", waiting)
        first = resume(results)
        until((place / "asked").exists)
        second = resume(results)
        assert submitted(second) == []
        (place / "go").touch()
        assert submitted(first) == [5, 1]
    assert slurm.commands()["sbatch"] == 2
    assert results_of(make(), journal) == "last+first0+first1+first2+first3+first4"
    assert set(calls.runs(journal).values()) == {1}


def test_what_a_scheduler_does_not_take(
    driver: Drive,
    make: Make,
    slurm: Cluster,
    results: Path,
    journal: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What fits goes out; the rest, and what depends on it, can be resumed again."""
    write_down(driver, tmp_path / "killing", monkeypatch)
    refusing = """
        case "$*" in *--array=0-1*) exec "$real" "$@";; esac
        echo "sbatch: error: AssocMaxSubmitJobLimit" >&2; exit 1
    """
    with monkeypatch.context() as patch:
        put_before(tmp_path / "refusing", patch, "sbatch", refusing)
        first = resume(results)
        out, errors = first.communicate()
    assert [each["calls"] for each in json.loads(out)["submitted"]] == [2]
    assert first.returncode != 0
    assert "AssocMaxSubmitJobLimit" in errors
    array, _ = folders_by_age(CacheDirectory.open(results))
    assert array.unsent is not None
    assert (array.unsent.first, array.unsent.end) == (2, 5)
    assert submitted(resume(results)) == [2, 1, 1]
    assert results_of(make(), journal) == "last+first0+first1+first2+first3+first4"
    assert set(calls.runs(journal).values()) == {1}


def test_a_mistake_does_not_hold_back_the_rest(
    driver: Drive,
    make: Make,
    slurm: Cluster,
    results: Path,
    journal: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = """
        ex = executor(results)
        bad = ex.submit(calls.noted, journal, "bad", resource_dict={"partition": "nowhere"})
        wait([bad, ex.submit(calls.noted, journal, "good")])
    """
    write_down(driver, tmp_path / "killing", monkeypatch, script)
    resuming = resume(results)
    out, errors = resuming.communicate()
    assert [each["calls"] for each in json.loads(out)["submitted"]] == [1]
    assert resuming.returncode == 1
    assert "the scheduler did not take 'noted': " in errors
    assert "partition" in errors
    assert make().submit(calls.noted, journal, "good").result() == "good"
    assert calls.runs(journal) == {"good": 1}
