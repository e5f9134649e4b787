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
Memory = Callable[[str], AbstractContextManager[Pool]]  # of a directory


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    entry: str  # "module:name", what its users import
    open: Opener
    fresh: Opener | None = None  # a new process for each call
    dependencies: bool = False  # futures may be arguments
    memory: Memory | None = None  # a cache of results in a directory
    digest: Callable[[Any], object] | None = None  # what it tells arguments apart by
    workers: bool = True  # it runs calls elsewhere than in this process

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


@contextmanager
def _here() -> Iterator[Pool]:
    """Plain calls: what a memory without workers is compared with."""
    yield Pool(lambda function, *args, **kwargs: function(*args, **kwargs), get=_same, gather=_same)


@contextmanager
def _joblib(directory: str) -> Iterator[Pool]:
    memory = load("joblib:Memory")(directory, verbose=0)
    decorated: dict[Any, Any] = {}  # once, as `@memory.cache` does it

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        if function not in decorated:
            decorated[function] = memory.cache(function)
        return decorated[function](*args, **kwargs)

    yield Pool(call, get=_same, gather=_same)


def _joblib_digest(value: Any) -> object:
    return load("joblib:hash")(value)


def _callyard_digest(value: Any) -> object:
    return load("callyard.hashing.call_key:call_key")(_same, (value,), {}).hex


def _option(opener: Callable[..., AbstractContextManager[Pool]], name: str) -> Memory:
    return lambda directory: opener(**{name: directory})


def _once(entry: str, **options: Any) -> Opener:
    return partial(_executor, entry, max_tasks_per_child=1, **options)


_CALLYARD = "callyard:Executor"
_STANDARD = "concurrent.futures:ProcessPoolExecutor"
_EXECUTORLIB = "executorlib:SingleNodeExecutor"
_local = partial(_executor, _EXECUTORLIB, hostname_localhost=True)
_blocks = partial(_local, block_allocation=True)
_blocks_nodeps = partial(_blocks, disable_dependencies=True)

PEERS = (
    Peer(
        "callyard",
        "Callyard",
        _CALLYARD,
        partial(_executor, _CALLYARD),
        _once(_CALLYARD),
        True,
        _option(partial(_executor, _CALLYARD), "cache"),
        _callyard_digest,
    ),
    # ProcessPoolExecutor learned max_tasks_per_child in Python 3.11.
    Peer(
        "ppe",
        "PPE",
        _STANDARD,
        partial(_executor, _STANDARD),
        _once(_STANDARD) if sys.version_info >= (3, 11) else None,
    ),
    Peer("loky", "loky", "loky:get_reusable_executor", _loky),
    Peer("joblib", "joblib.Memory", "joblib:Memory", _here, memory=_joblib, digest=_joblib_digest, workers=False),
    Peer("executorlib", "executorlib", _EXECUTORLIB, _blocks, _local, True),
    Peer(
        "executorlib-nodeps",
        "executorlib, no deps",
        _EXECUTORLIB,
        _blocks_nodeps,
        partial(_local, disable_dependencies=True),
        memory=_option(_blocks_nodeps, "cache_directory"),  # with dependencies, polling hides what it costs
    ),
    # Of Slurm's and Flux's rows alone: see slurm.py, flux.py and node_data.py.
    Peer("sbatch", "sbatch by hand", "subprocess:run", _here, workers=False),
    Peer("flux", "flux by hand", "subprocess:run", _here, workers=False),
    Peer("tls", "bare TLS", "ssl:SSLContext", _here, workers=False),
    Peer("submitit", "submitit", "submitit:AutoExecutor", _here, workers=False),
    Peer("dask", "Dask", "distributed:LocalCluster", _dask, dependencies=True),
    Peer("ray", "Ray", "ray:init", _ray, partial(_ray, max_calls=1), True),
    Peer("parsl", "Parsl HTEX", "parsl.concurrent:ParslPoolExecutor", _parsl, dependencies=True),
)

BY_NAME = {peer.name: peer for peer in PEERS}
