"""Jobs whose cache lies on a disk that fills up: each future ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import Cluster
from failing_calls import Detached, add, failure, until_submitted

from callyard import CacheError, Executor

pytestmark = pytest.mark.once


def fill(disk: str) -> None:
    with open(f"{disk}/filler", "ab", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Let a disk be full for a while."""
    with pytest.raises(OSError, match="No space left"):
        fill(str(disk))
    yield
    (disk / "filler").unlink()


def fill_and_fail(disk: str) -> None:
    try:
        fill(disk)
    except OSError:
        raise ValueError("the last word") from None


def fill_and_die(disk: str) -> None:
    try:
        fill(disk)
    except OSError:
        os._exit(3)


@pytest.fixture
def ex(slurm: Cluster, detached: Detached, small_disk: Path) -> Executor:
    return detached(cache=small_disk / "cache")


def test_the_call_fills_it_and_raises(ex: Executor, small_disk: Path) -> None:
    future = ex.submit(fill_and_fail, str(small_disk))
    assert repr(future.exception(60)) == "ValueError('the last word')"
    (small_disk / "filler").unlink()
    assert ex.submit(add, 1, 2).result() == 3


def test_the_call_fills_it_and_dies(ex: Executor, small_disk: Path) -> None:
    future = ex.submit(fill_and_die, str(small_disk))
    assert "exit code 3" in str(future.exception(60))


def test_full_before_the_call_begins(ex: Executor, slurm: Cluster, small_disk: Path) -> None:
    future = ex.submit(add, 1, 2, resource_dict={"slurm_cmd_args": ["--hold"]})
    job = until_submitted(slurm, future)
    with full(small_disk):
        slurm.run("scontrol", "release", job)
        error = future.exception(60)
    assert type(error) is CacheError
    assert "'add' failed, and its error could not be stored" in str(error)
    assert ex.submit(add, 1, 2).result() == 3


def test_full_when_the_scheduler_tells_the_end(ex: Executor, slurm: Cluster, small_disk: Path) -> None:
    future = ex.submit(add, 1, 2, resource_dict={"slurm_cmd_args": ["--hold"]})
    job = until_submitted(slurm, future)
    with full(small_disk):
        slurm.run("scancel", job)
        assert "cancelled" in str(future.exception(60))
    assert ex.submit(add, 1, 2).result() == 3


def hide_and_fail(disk: str) -> None:
    """Let nobody write into the directory of this batch."""
    (place,) = Path(disk, "cache", "jobs").iterdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "callyard-tests", str(place)], check=True)
    raise ValueError("the last word")


def test_nothing_at_all_can_be_written(ex: Executor, small_disk: Path) -> None:
    future = ex.submit(hide_and_fail, str(small_disk))
    failure(future, CacheError, "could not write down", str(small_disk))
    subprocess.run(["umount", *(small_disk / "cache" / "jobs").iterdir()], check=True)
    assert ex.submit(add, 1, 2).result() == 3
