"""What detached executors refuse when they are made; no cluster is needed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from callyard import Cache, CallyardError, Executor, Slurm


def test_a_cache_that_is_only_read(tmp_path: Path) -> None:
    Cache(tmp_path / "results")
    cache = Cache(tmp_path / "results", mode="read-only")
    with pytest.raises(CallyardError, match="mode='read-only' forbids"):
        Executor(backend=Slurm(detached=True), cache=cache)


def test_fresh_workers(tmp_path: Path) -> None:
    with pytest.raises(CallyardError, match="max_tasks_per_child is for workers"):
        Executor(backend=Slurm(detached=True), max_tasks_per_child=1)
