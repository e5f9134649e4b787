"""The environment variables of a worker: how many threads its libraries start, which GPUs it sees."""

from __future__ import annotations

from collections.abc import Mapping

from ..system.machine import GPUS
from .pool import Worker

# Read by a library when it is loaded; so they are set before the user's first import.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "JULIA_NUM_THREADS",
)
# Read by the loader or the interpreter when a process starts: a fork of the zygote is too late for them.
_AT_START = ("LD_", "DYLD_", "PYTHON", "MALLOC_", "GLIBC_")


def worker_environment(base: Mapping[str, str], worker: Worker) -> dict[str, str]:
    """The environment of a worker whose driver has `base`; what the user asked for has the last word."""
    environment = dict(base)
    environment.update(dict.fromkeys(THREADS, str(worker.shape.cores_per_rank)))
    environment.update(dict.fromkeys(GPUS, ",".join(worker.gpus)))
    environment.update(worker.shape.environment)
    return environment


def gpus_of_ranks(worker: Worker) -> tuple[str, str]:
    """What each rank needs to know to see only its own: those of all, and those of each, with `;` between."""
    each = len(worker.gpus) // worker.shape.ranks
    own = [",".join(worker.gpus[i * each : (i + 1) * each]) for i in range(worker.shape.ranks)]
    return ",".join(worker.gpus), ";".join(own)


def needs_fresh_process(environment: Mapping[str, str], started_with: Mapping[str, str]) -> bool:
    """Whether a worker must be started anew, because a process that was started otherwise cannot become it."""
    names = {name for name in (*environment, *started_with) if name.startswith(_AT_START)}
    return any(environment.get(name) != started_with.get(name) for name in names)
