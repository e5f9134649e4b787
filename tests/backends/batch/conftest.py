"""What tests of jobs share: a cache, a journal in which calls leave a line, executors, other processes that submit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from drivers import Driver, executor
from gate import Gate

from callyard import Executor, Slurm


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    place = tmp_path / "gate"
    place.mkdir()
    gate = Gate(place)
    yield gate
    gate.close()


@pytest.fixture
def make(slurm: Cluster, results: Path, gate: Gate) -> Iterator[Callable[..., Executor]]:
    """Make executors whose calls are jobs and are remembered in `results`; they end with the test."""
    made: list[Executor] = []

    def create(**options: Any) -> Executor:
        made.append(executor(**{"results": results, **options}))
        return made[-1]

    yield create
    for each in made:
        each.kill_workers()  # a failed test must not hang
        each.shutdown()


@pytest.fixture
def driver(slurm: Cluster, results: Path, journal: str, gate: Gate, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Start processes that submit; they know `results`, `journal` and `gate`, and work in a directory of their own."""
    made: list[Driver] = []
    cwd = tmp_path / "cwd"
    cwd.mkdir()

    def start(text: str, environment: dict[str, str] | None = None, **names: Any) -> Driver:
        known = {"results": str(results), "journal": journal, "gate": gate}
        made.append(Driver(text, {**known, **names}, cwd, **(environment or {})))
        return made[-1]

    yield start
    for each in made:
        each.end()


@pytest.fixture
def detached(tmp_path: Path) -> Iterator[Callable[..., Executor]]:
    """Makes executors on the cluster whose fixture was asked for before; their jobs end with the test."""
    made = list[Executor]()

    def create(cache: Path = tmp_path / "cache", at_once: int | None = None, **options: Any) -> Executor:
        backend = Slurm(**{"poll": (0.2, 1), "result_grace": 1, **options})
        made.append(Executor(at_once, backend=backend, cache=cache))
        return made[-1]

    yield create
    for each in made:
        each.kill_workers()
        each.shutdown()


@pytest.fixture
def ex(slurm: Cluster, detached: Callable[..., Executor]) -> Executor:
    return detached()
