"""One suite for every backend. What a backend lacks is named as a feature, and tests name what they need."""

from __future__ import annotations

import itertools
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
from grid_files import ONE_SLOT

import callyard
from callyard import Flux, GridEngine, Local, Slurm
from callyard.hashing.encoder import _registered as registered

WORKERS = 2
# For jobs `max_workers` is a limit within an array; where a test needs one for all calls, each takes the only node.
ONE_AT_A_TIME = {"slurm": {"partition": "short", "exclusive": True}, "gridengine": {"queue": ONE_SLOT}}


class Backend(NamedTuple):
    """A backend under test: `pool` is what is wrapped, made once; None for our own workers, or jobs if `detached`.

    `nodes`: the workers are on nodes of a cluster, of an allocation that there is or that is asked for. `cluster`: the
    fixture of that cluster, and the capability that it needs.
    """

    features: frozenset[str]
    pool: Callable[[], StandardExecutor] | None = None
    remembers: bool = False
    detached: bool = False
    nodes: str = ""
    only: frozenset[str] = frozenset()  # tests with one of these marks: it is slow, and differs little from another one
    cluster: str = "slurm"
    ssh: bool = False  # in front of it is a gateway, which a real SSH server starts

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        if self.ssh:
            return [pytest.mark.needs("ssh"), pytest.mark.once]
        if self.detached or self.nodes:
            return [pytest.mark.needs(self.cluster), pytest.mark.once]
        return [pytest.mark.wide] if self.remembers else []


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
# workers: a process makes one call after another, so calls cost little: thousands take seconds. Jobs lack it: the
#     scheduler starts some of them in a second, and each begins with an interpreter. They lack `kill`, too: what was
#     ended is not a worker
# one node: there is one worker for calls of one shape that follow each other
# again: a call may raise `Again`
# grace: a call hears of its end before it comes, and knows what it was given
# cancels: a call that was cancelled never begins; `cancel` does not wait for another computer to say so
# runs again: a call that is made twice runs twice, and its arguments need no meaning that can be hashed
_LOCAL = frozenset(
    [
        *("processes", "any function", "snapshot", "explains", "resources", "initializer", "max_tasks", "kill"),
        *("workers", "again", "grace", "cancels"),
    ]
)
_ONE_NODE = _LOCAL | {"one node"}
_THREADS = frozenset(["same objects", "any function", "workers", "again", "cancels"])
_JOBS = frozenset(["processes", "any function", "snapshot", "explains", "resources", "initializer", "cancels"])
_FAR = frozenset({"workers", "cancels"})  # lacking on another computer
_SMOKE = frozenset({"smoke"})
_CORE = _SMOKE | {"core"}
BACKENDS = {
    "local": Backend(_ONE_NODE | {"runs again"}),
    "local with a cache": Backend(_ONE_NODE, remembers=True),
    "local by SSH": Backend((_ONE_NODE | {"runs again"}) - _FAR, ssh=True, only=_CORE),
    "local by SSH with a cache": Backend(_ONE_NODE - _FAR, remembers=True, ssh=True, only=_SMOKE),
    "threads": Backend(_THREADS | {"runs again"}, _thread_pool),
    "threads with a cache": Backend(_THREADS, _thread_pool, remembers=True),
    "processes": Backend(frozenset({"processes", "runs again", "workers", "again", "cancels"}), _process_pool),
    "slurm detached": Backend(_JOBS | {"runs again"}, detached=True, only=_CORE),
    "slurm detached with a cache": Backend(_JOBS, remembers=True, detached=True),
    "local detached": Backend(_JOBS | {"runs again"}, detached=True, only=_SMOKE, cluster="daemon"),
    "local detached with a cache": Backend(_JOBS, remembers=True, detached=True, only=_CORE, cluster="daemon"),
    "flux detached": Backend(_JOBS | {"runs again"}, detached=True, only=_SMOKE, cluster="flux"),
    "flux detached with a cache": Backend(_JOBS, remembers=True, detached=True, only=_CORE, cluster="flux"),
    "gridengine detached": Backend(_JOBS | {"runs again"}, detached=True, only=_SMOKE, cluster="gridengine"),
    "slurm live": Backend(_LOCAL | {"runs again"}, nodes="allocated"),
    "slurm live with a cache": Backend(_LOCAL, remembers=True, nodes="allocated", only=_CORE),
    "flux live": Backend(_LOCAL | {"runs again"}, nodes="allocated", only=_CORE, cluster="flux"),
    "slurm asked for nodes": Backend(_LOCAL | {"runs again"}, nodes="asked for", only=_CORE),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "feature(*names): only for backends that have these")
    config.addinivalue_line("markers", "core: the heart of the contract, for slow backends that differ little")
    config.addinivalue_line("markers", "smoke: of the core the few that show whether a backend does its own part")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        needed = {name for mark in metafunc.definition.iter_markers("feature") for name in mark.args}
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        names = [
            pytest.param(name, marks=backend.marks)
            for name, backend in BACKENDS.items()
            if needed <= backend.features and (not backend.only or backend.only & marks)
        ]
        metafunc.parametrize("backend", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Arguments for `Executor` that choose the backend."""
    chosen = BACKENDS[request.param]
    if chosen.cluster == "flux":
        request.getfixturevalue("instance")  # here, so that it is there before the test
        own = {"detached": True} if chosen.detached else {"nodes": 2}  # two of its four
        yield {"backend": Flux(poll=(0.2, 1), result_grace=2, **own)}  # type: ignore[arg-type]
        return
    if chosen.cluster == "daemon":
        request.getfixturevalue("running_daemon")
        yield {"backend": Local(cores=2, detached=True)}
        return
    if chosen.ssh:
        yield {"backend": callyard.Local(detached=False, host=request.getfixturevalue("sshd").host("plain"))}
        return
    if chosen.cluster == "gridengine":
        request.getfixturevalue("grid")
        yield {"backend": GridEngine(poll=(0.2, 1), result_grace=2, parallel_environment="smp")}
        return
    if chosen.detached or chosen.nodes:
        request.getfixturevalue("cluster")  # here, so that it is there before the test
        nodes = {"allocated": None, "asked for": (0, 2)}.get(chosen.nodes)
        yield {"backend": Slurm(poll=(0.2, 1), result_grace=2, nodes=nodes)}
        return
    pool = chosen.pool
    if pool is None:
        yield {}
        return
    with pool() as inner:
        yield {"backend": inner}


@pytest.fixture
def chosen(
    request: pytest.FixtureRequest, backend: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """All that `Executor` is given: the backend, and if it remembers, a directory for this test alone."""
    description = BACKENDS[request.node.callspec.params["backend"]]
    with ExitStack() as stack:
        if description.detached or description.nodes:
            cluster = request.getfixturevalue(description.cluster)
            monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
            if description.nodes == "allocated" and description.cluster == "slurm":
                for name, value in stack.enter_context(cluster.allocation(2, "-c1", "-t", "10")).items():
                    monkeypatch.setenv(name, value)
        if not description.remembers:
            yield backend
            return
        # Each call that is held by a gate is one of its own: tests count them.
        numbers = itertools.count()
        monkeypatch.setitem(registered, Gate, lambda _: next(numbers))
        if description.ssh:  # the other computer has a cache, too
            host = request.getfixturevalue("sshd").host("plain", directory=tmp_path / "there")
            backend = {"backend": callyard.Local(detached=False, host=host)}
        yield {**backend, "cache": tmp_path / "results"}


@pytest.fixture
def make(
    request: pytest.FixtureRequest, chosen: dict[str, Any], gate: Gate
) -> Iterator[Callable[..., callyard.Executor]]:
    """Make executors of two workers, which end with the test."""
    chosen_backend = BACKENDS[request.node.callspec.params["backend"]]
    detached, has_lanes = chosen_backend.detached, chosen_backend.cluster in ("flux", "daemon")
    with ExitStack() as stack:

        def create(max_workers: int | None = WORKERS, **more: Any) -> callyard.Executor:
            if detached and max_workers == 1 and not has_lanes:
                more = {"resource_dict": ONE_AT_A_TIME[chosen_backend.cluster], **more}
            elif detached and max_workers == WORKERS:
                max_workers = None  # the cluster has room for more, and a job takes a second
            return stack.enter_context(callyard.Executor(max_workers, **chosen, **more))

        yield create
        gate.open(1000)  # so that a failed test does not hang


@pytest.fixture
def ex(make: Callable[..., callyard.Executor]) -> callyard.Executor:
    return make()


@pytest.fixture
def some(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """So many calls, or a few where each takes the time that a job takes."""
    few = "workers" not in BACKENDS[request.node.callspec.params["backend"]].features
    return lambda number: min(number, 3) if few else number
