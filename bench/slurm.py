"""The measurements on a cluster of Slurm: the tests' own, of four nodes on this machine, new for each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any

from bench import work
from bench.peers import WORKERS, Peer, Pool, load
from bench.rows import Effort, elapsed, repeated, together, warm

Run = Callable[[int], object]  # so many calls, to their results
ROOT = Path(__file__).resolve().parent.parent
SLOTS = 16
SCRIPT = "import os, sys; open(sys.argv[1] + '.new', 'w').close(); os.rename(sys.argv[1] + '.new', sys.argv[1])"


@contextmanager
def cluster() -> Iterator[Any]:
    """A cluster, with this process on its login node."""
    sys.path += [str(ROOT / "tests/slurm_cluster")]
    from cluster import OF_A_JOB, Cluster
    from this_machine import ClusterError, why_no_cluster

    if why := why_no_cluster():
        sys.exit(f"no cluster of Slurm can run here: {why}")
    for name in [name for name in os.environ if name.startswith(OF_A_JOB)]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as directory:
        try:
            with Cluster(Path(directory, "c"), nodes=4, cpus=SLOTS // 4, gpus=0) as started:
                os.environ.update(started.environment)
                yield started
        except ClusterError as error:
            sys.exit(f"no cluster of Slurm runs here: {error}")


# ------------------------------------------------------------------ each call a job

_numbers = count()


def calls(pool: Pool, how_many: int) -> list[Any]:
    """No two are equal: some peers run equal calls once."""
    return [pool.submit(work.increment, number) for number in islice(_numbers, how_many)]


def jobs_time(peer: Peer, effort: Effort) -> float:
    """From the first `submit` to the last result."""
    with cluster(), JOBS[peer.name]() as run:
        run(1)  # what is found out once about a cluster is known then
        return elapsed(lambda: run(effort.jobs))


@contextmanager
def _jobs_of(entry: str, **options: Any) -> Iterator[Run]:
    with load(entry)(**options) as executor:
        pool = Pool(executor.submit)
        yield lambda many: pool.gather(calls(pool, many))


@contextmanager
def _by_hand() -> Iterator[Run]:
    """A job array of a script that leaves a file, as one would write it; files are looked for all the time."""
    with tempfile.TemporaryDirectory() as directory:
        yield partial(_submit_by_hand, Path(directory))


def _submit_by_hand(directory: Path, count: int) -> None:
    place = Path(tempfile.mkdtemp(dir=directory))
    script = f'#!/bin/sh\nexec {sys.executable} -c "{SCRIPT}" {place}/$SLURM_ARRAY_TASK_ID\n'
    command = ["sbatch", f"--array=1-{count}", f"--output={directory}/log-%a"]
    subprocess.run(command, input=script, text=True, check=True, stdout=subprocess.DEVNULL)
    left = {str(number) for number in range(1, count + 1)}
    while left := left - {*os.listdir(place)}:
        time.sleep(0.01)


@contextmanager
def _submitit() -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as directory:
        executor = load("submitit:AutoExecutor")(directory, cluster="slurm")
        executor.update_parameters(timeout_min=5, slurm_array_parallelism=1000)
        pool = Pool(executor.submit)

        def array(many: int) -> None:
            with executor.batch():
                jobs = calls(pool, many)
            pool.gather(jobs)

        yield array


JOBS: dict[str, Callable[[], AbstractContextManager[Run]]] = {
    "callyard": partial(_jobs_of, "callyard:Executor", backend="slurm"),
    "sbatch": _by_hand,
    "submitit": _submitit,
    "executorlib": partial(_jobs_of, "executorlib:SlurmClusterExecutor", resource_dict={"partition": "main"}),
}

# ------------------------------------------------------------------ inside an allocation


def live_rate(peer: Peer, effort: Effort) -> float:
    with cluster() as there, there.allocation(WORKERS, "-t10", "--ntasks-per-node=1", "-c1") as variables:
        os.environ.update(variables)
        with LIVE[peer.name]() as executor:
            pool = Pool(executor.submit)
            warm(pool)
            return effort.live / median(repeated(lambda: elapsed(lambda: together(pool, effort.live)), 1.0, 3))


def _executorlib_live(**options: Any) -> Any:
    return load("executorlib:SlurmJobExecutor")(max_workers=WORKERS, block_allocation=True, **options)


LIVE: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "callyard": lambda: load("callyard:Executor")(backend="slurm"),
    "executorlib": _executorlib_live,
    "executorlib-nodeps": partial(_executorlib_live, disable_dependencies=True),
}
