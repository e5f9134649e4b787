"""Instances of Flux for the tests that need one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from instance import OF_A_JOB, Instance


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


@pytest.fixture
def own_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Instance]]:
    """Start an instance for this test alone, described as `Instance`, and point this process at it."""

    def start(**described: Any) -> Instance:
        monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
        instance = stack.enter_context(Instance(tmp_path / "i", **described))
        lend(instance, monkeypatch)
        return instance

    with ExitStack() as stack:
        yield start


def lend(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process at an instance."""
    for name in [name for name in os.environ if name.startswith(OF_A_JOB)]:
        monkeypatch.delenv(name)
    for name, value in instance.environment.items():
        monkeypatch.setenv(name, value)
