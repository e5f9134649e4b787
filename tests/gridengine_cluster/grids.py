"""Clusters of Grid Engine for the tests that need one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from grid import OF_A_JOB, Grid


def pytest_itemcollected(item: pytest.Item) -> None:
    if {"grid", "gridengine"} & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.needs("gridengine"))
        item.add_marker(pytest.mark.once)


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """A cluster of one node."""
    with Grid(tmp_path_factory.getbasetemp() / "g") as grid:
        yield grid


@pytest.fixture
def gridengine(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> Iterator[Grid]:
    """The cluster, as if this process were on its login node; a test that leaves jobs there fails."""
    for name in [name for name in os.environ if name.startswith(OF_A_JOB)]:
        monkeypatch.delenv(name)
    for name, value in grid.environment.items():
        monkeypatch.setenv(name, value)
    yield grid
    left = grid.restore()
    if left:
        pytest.fail(f"this test left jobs behind: {left}", pytrace=False)
