"""One small adapter per peer: how its own documentation says it is driven fast on one machine."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

WORKERS = 2


def _same(value: Any) -> Any:
    return value


def _result(future: Any) -> Any:
    return future.result()


def _results(futures: list[Any]) -> list[Any]:
    return [future.result() for future in futures]


@dataclass(frozen=True)
class Pool:
    """The verbs that a measurement uses, bound straight to the peer's own: nothing of ours is timed."""

    submit: Callable[..., Any]
    get: Callable[[Any], Any] = _result
    gather: Callable[[list[Any]], list[Any]] = _results
    put: Callable[[Any], Any] = _same  # how the peer wants a large argument


Opener = Callable[[], AbstractContextManager[Pool]]


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    entry: str  # "module:name", what its users import
    open: Opener
    fresh: Opener | None = None  # a new process for each call
    dependencies: bool = False  # futures may be arguments

    @property
    def package(self) -> str:
        return self.entry.partition(":")[0].partition(".")[0]

    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


def load(entry: str) -> Any:
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


@contextmanager
def _executor(entry: str, **options: Any) -> Iterator[Pool]:
    """Whatever follows `concurrent.futures` needs nothing but its name and options."""
    with load(entry)(max_workers=WORKERS, **options) as executor:
        yield Pool(executor.submit)


@contextmanager
def _loky() -> Iterator[Pool]:
    executor = load("loky:get_reusable_executor")(max_workers=WORKERS)
    try:
        yield Pool(executor.submit)
    finally:
        executor.shutdown(wait=True)


@contextmanager
def _dask() -> Iterator[Pool]:
    cluster = load("distributed:LocalCluster")(
        n_workers=WORKERS,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.ERROR,
    )
    with cluster, load("distributed:Client")(cluster) as client:
        # Without pure=False equal calls would be run once.
        submit = partial(client.submit, pure=False)
        yield Pool(submit, gather=client.gather, put=partial(client.scatter, hash=False))


@contextmanager
def _ray(**options: Any) -> Iterator[Pool]:
    ray = importlib.import_module("ray")
    remotes: dict[Any, Any] = {}

    def submit(function: Any, *args: Any) -> Any:
        if function not in remotes:
            remotes[function] = (ray.remote(**options) if options else ray.remote)(function)
        return remotes[function].remote(*args)

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield Pool(submit, get=ray.get, gather=ray.get, put=ray.put)
    finally:
        ray.shutdown()


@contextmanager
def _parsl() -> Iterator[Pool]:
    htex = load("parsl:HighThroughputExecutor")(
        max_workers_per_node=WORKERS,
        encrypted=False,
        address="127.0.0.1",
        prefetch_capacity=WORKERS,
        provider=load("parsl.providers:LocalProvider")(init_blocks=1, max_blocks=1),
    )
    config = load("parsl:Config")(executors=[htex], strategy="none", initialize_logging=False)
    with load("parsl.concurrent:ParslPoolExecutor")(config) as executor:
        yield Pool(executor.submit)


def _once(entry: str, **options: Any) -> Opener:
    return partial(_executor, entry, max_tasks_per_child=1, **options)


_PENSTOCK = "penstock:Executor"
_STANDARD = "concurrent.futures:ProcessPoolExecutor"
_EXECUTORLIB = "executorlib:SingleNodeExecutor"
_local = partial(_executor, _EXECUTORLIB, hostname_localhost=True)

PEERS = (
    Peer("penstock", "Penstock", _PENSTOCK, partial(_executor, _PENSTOCK), _once(_PENSTOCK), True),
    # ProcessPoolExecutor learned max_tasks_per_child in Python 3.11.
    Peer(
        "ppe",
        "PPE",
        _STANDARD,
        partial(_executor, _STANDARD),
        _once(_STANDARD) if sys.version_info >= (3, 11) else None,
    ),
    Peer("loky", "loky", "loky:get_reusable_executor", _loky),
    Peer("executorlib", "executorlib", _EXECUTORLIB, partial(_local, block_allocation=True), _local, True),
    Peer(
        "executorlib-nodeps",
        "executorlib, no deps",
        _EXECUTORLIB,
        partial(_local, block_allocation=True, disable_dependencies=True),
        partial(_local, disable_dependencies=True),
    ),
    Peer("dask", "Dask", "distributed:LocalCluster", _dask, dependencies=True),
    Peer("ray", "Ray", "ray:init", _ray, partial(_ray, max_calls=1), True),
    Peer("parsl", "Parsl HTEX", "parsl.concurrent:ParslPoolExecutor", _parsl, dependencies=True),
)

BY_NAME = {peer.name: peer for peer in PEERS}
