"""One suite for every backend. What a backend lacks is named as a feature, and tests name what they need."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import contract_calls
import pytest
from gate import Gate

import penstock

WORKERS = 2


class Backend(NamedTuple):
    """A backend under test: `pool` is what is wrapped, made once; None for our own workers."""

    features: frozenset[str]
    pool: Callable[[], StandardExecutor] | None = None


def _process_pool() -> StandardExecutor:
    """A pool whose workers are all there: one that starts later would look left behind."""
    context = multiprocessing.get_context("forkserver")
    barrier = context.Barrier(WORKERS)
    pool = ProcessPoolExecutor(WORKERS, context, contract_calls.set_barrier, (barrier,))
    for future in [pool.submit(contract_calls.wait_at_barrier) for _ in range(WORKERS)]:
        future.result()
    return pool


def _thread_pool() -> StandardExecutor:
    pool = ThreadPoolExecutor(WORKERS)
    barrier = threading.Barrier(WORKERS)
    for future in [pool.submit(barrier.wait) for _ in range(WORKERS)]:
        future.result()
    return pool


# processes: a call runs in another process, so what goes in and comes out is pickled
# same objects: a call gets the very objects that were passed, and gives the very one that it returns
# any function: lambdas, closures, functions of `__main__`
# snapshot: arguments are those of the moment of `submit`
# explains: what cannot be pickled is named in the error
# resources, initializer, max_tasks, kill: the executor has and does these itself
BACKENDS = {
    "local": Backend(
        frozenset(
            ["processes", "any function", "snapshot", "explains", "resources", "initializer", "max_tasks", "kill"]
        )
    ),
    "threads": Backend(frozenset({"same objects", "any function"}), _thread_pool),
    "processes": Backend(frozenset({"processes"}), _process_pool),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "feature(*names): only for backends that have these")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        needed = {name for mark in metafunc.definition.iter_markers("feature") for name in mark.args}
        names = [name for name, backend in BACKENDS.items() if needed <= backend.features]
        metafunc.parametrize("backend", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Arguments for `Executor` that choose the backend."""
    pool = BACKENDS[request.param].pool
    if pool is None:
        yield {}
        return
    with pool() as inner:
        yield {"backend": inner}


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.close()


@pytest.fixture
def make(backend: dict[str, Any], gate: Gate) -> Iterator[Callable[..., penstock.Executor]]:
    """Make executors of two workers, which end with the test."""
    with ExitStack() as stack:

        def create(max_workers: int | None = WORKERS, **options: Any) -> penstock.Executor:
            return stack.enter_context(penstock.Executor(max_workers, **backend, **options))

        yield create
        gate.open(1000)  # so that a failed test does not hang


@pytest.fixture
def ex(make: Callable[..., penstock.Executor]) -> penstock.Executor:
    return make()
