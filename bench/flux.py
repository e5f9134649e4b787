"""The measurements in an instance of Flux: the tests' own, of four nodes on this machine, new for each."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import work
from bench.peers import WORKERS, Peer, Pool, load
from bench.rows import Effort, elapsed, repeated, together, warm
from bench.slurm import SLOTS, Run, calls

ROOT = Path(__file__).resolve().parent.parent
LAYERS = 10


def present() -> bool:
    return sys.platform == "linux" and shutil.which("flux") is not None


@contextmanager
def instance() -> Iterator[None]:
    """An instance, in which this process is."""
    sys.path += [str(ROOT / "tests/slurm_cluster"), str(ROOT / "tests/flux_instance")]
    from instance import OF_A_JOB, Instance

    if not present():
        sys.exit("no instance of Flux can run here: there is no flux")
    for name in [name for name in os.environ if name.startswith(OF_A_JOB)]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as directory:
        # The pretended cores do not exist, so no task can be bound to them.
        with Instance(Path(directory, "f"), nodes=4, cores=SLOTS // 4) as started:
            os.environ.update(started.environment)
            yield


# ------------------------------------------------------------------ each call a job


def jobs_time(peer: Peer, effort: Effort) -> float:
    """From the first `submit` to the last result."""
    with instance(), JOBS[peer.name]() as run:
        run(1)  # what is found out once about an instance is known then
        return elapsed(lambda: run(effort.jobs))


def _detached() -> Any:
    return load("callyard:Executor")(backend=load("callyard:Flux")(detached=True))


def _executorlib() -> Any:
    return load("executorlib:FluxClusterExecutor")()


@contextmanager
def _jobs_of(make: Callable[[], Any]) -> Iterator[Run]:
    with make() as executor:
        pool = Pool(executor.submit)
        yield lambda many: pool.gather(calls(pool, many))


@contextmanager
def _by_hand() -> Iterator[Run]:
    yield _submit_by_hand


def _submit_by_hand(count: int) -> None:
    numbers = f"0-{count - 1}" if count > 1 else "0"  # Flux takes no "0-0"
    subprocess.run(
        ["flux", "submit", "--wait", "--quiet", f"--cc={numbers}", "--", sys.executable, "-c", "pass"],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


JOBS: dict[str, Callable[[], AbstractContextManager[Run]]] = {
    "callyard": partial(_jobs_of, _detached),
    "flux": _by_hand,
    "executorlib": partial(_jobs_of, _executorlib),
}

# ------------------------------------------------------------------ a graph of jobs

Graph = list[list[tuple[int, ...]]]  # layers of jobs, each with the numbers of two jobs of the layer before


def graph_time(peer: Peer, effort: Effort) -> float:
    """Until Flux has all the jobs. They wait, as the queue is stopped."""
    with instance():
        subprocess.run(["flux", "queue", "stop", "--quiet"], check=True)
        return GRAPHS[peer.name](graph(effort.jobs))


def graph(width: int) -> Graph:
    """A random graph, the same for each peer."""
    chosen = random.Random(0)
    first: Graph = [[() for _ in range(width)]]
    return first + [[tuple(chosen.sample(range(width), 2)) for _ in range(width)] for _ in range(LAYERS - 1)]


def _graph_of_callyard(layers: Graph) -> float:
    executor = _detached()
    try:
        start = time.perf_counter()
        made, futures = list[Any](), list[Any]()
        for layer in layers:
            made = [executor.submit(work.add, *([made[one] for one in names] or (1, 1))) for names in layer]
            futures += made
        while any(future.job_id is None for future in futures):
            time.sleep(0.01)
        return time.perf_counter() - start
    finally:
        executor.kill_workers()


PROGRAM = """
import json, sys
import flux, flux.job

handle = flux.Flux()
before = []
for layer in json.load(sys.stdin):
    pending = []
    for names in layer:
        spec = flux.job.JobspecV1.from_command(["true"])
        spec.environment = {}
        dependencies = [{"scheme": "afterany", "value": before[name]} for name in names]
        spec.setattr("system.dependencies", dependencies)
        pending.append(flux.job.submit_async(handle, spec))
    before = [flux.job.submit_get_id(pending.pop(0)).f58plain for _ in layer]
"""


def _graph_by_hand(layers: Graph) -> float:
    command = ["flux", "python", "-c", PROGRAM]
    return elapsed(lambda: subprocess.run(command, input=json.dumps(layers), text=True, check=True))


GRAPHS: dict[str, Callable[[Graph], float]] = {"callyard": _graph_of_callyard, "flux": _graph_by_hand}

# ------------------------------------------------------------------ live calls


def live_rate(peer: Peer, effort: Effort) -> float:
    with instance(), LIVE[peer.name]() as executor:
        pool = Pool(executor.submit)
        warm(pool)
        return effort.live / median(repeated(lambda: elapsed(lambda: together(pool, effort.live)), 1.0, 3))


def _executorlib_live(**options: Any) -> Any:
    """Its workers need Flux's own Python modules beside those of this interpreter."""
    return load("executorlib:FluxJobExecutor")(max_workers=WORKERS, block_allocation=True, **options)


LIVE: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "callyard": lambda: load("callyard:Executor")(backend="flux"),
    "executorlib": _executorlib_live,
    "executorlib-nodeps": partial(_executorlib_live, disable_dependencies=True),
}
