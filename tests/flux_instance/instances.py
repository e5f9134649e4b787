"""Instances of Flux for the tests that need one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from instance import OF_A_JOB, Instance

from callyard import Executor, Flux

FluxJobs = Callable[..., Executor]


def flux_executor(cache: Path | None, max_workers: int | None = None, **options: Any) -> Executor:
    return Executor(
        max_workers, backend=Flux(**{"detached": True, "poll": (0.2, 1), "result_grace": 1, **options}), cache=cache
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    if {"instance", "flux", "own_instance"} & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.needs("flux"))
        item.add_marker(pytest.mark.once)


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance of four nodes with four cores each."""
    with Instance(tmp_path_factory.getbasetemp() / "f") as instance:  # a short name: see there
        yield instance


@pytest.fixture
def flux(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    """The instance, as if this process were on its login node; a test that leaves jobs there fails."""
    lend(instance, monkeypatch)
    yield instance
    left = instance.restore()
    if left:
        pytest.fail(f"this test left jobs behind: {left}", pytrace=False)


def lend(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process at an instance."""
    for name in [name for name in os.environ if name.startswith(OF_A_JOB)]:
        monkeypatch.delenv(name)
    for name, value in instance.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def own_instance(
    short_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Instance]]:
    """Start an instance that may be damaged, as if this process were on its login node."""
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))

    def start(nodes: int = 2, settings: str = "", **described: Any) -> Instance:
        instance = stack.enter_context(Instance(short_path / "own", nodes=nodes, settings=settings, **described))
        lend(instance, monkeypatch)
        return instance

    with ExitStack() as stack:
        yield start


@pytest.fixture
def flux_jobs(results: Path) -> Iterator[FluxJobs]:
    """Make executors of the instance that this process is pointed at; their jobs end with the test."""
    made: list[Executor] = []

    def create(max_workers: int | None = None, **options: Any) -> Executor:
        made.append(flux_executor(results, max_workers, **options))
        return made[-1]

    yield create
    for each in made:
        each.kill_workers()
        each.shutdown()
