"""Executors over pretended nodes, and a look at their agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from gate import Gate
from pretended import Nodes

import callyard


@pytest.fixture
def make(gate: Gate) -> Iterator[Callable[..., callyard.Executor]]:
    """Make executors over so many pretended nodes, which end with the test."""
    with ExitStack() as stack:

        def create(max_workers: int | None = None, *, count: int = 2, each: int = 1, **more: Any) -> callyard.Executor:
            described = {name: more.pop(name) for name in ("gpus", "memory") if name in more}
            backend = Nodes(count=count, each=each, **described)
            return stack.enter_context(callyard.Executor(max_workers, backend=backend, **more))

        yield create
        gate.open(1000)  # so that a failed test does not hang


@pytest.fixture
def ex(make: Callable[..., callyard.Executor]) -> callyard.Executor:
    return make()


@pytest.fixture
def runs(slurm: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of live calls on nodes of the cluster."""
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"
