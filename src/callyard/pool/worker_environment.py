"""The environment variables of a worker: the number of threads of libraries, and the GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from ..system.machine import GPUS
from ..utils.environment import NESTED, THREADS, at_start, nested
from .worker import Worker


def worker_environment(base: Mapping[str, str], worker: Worker) -> dict[str, str]:
    """Return the environment of a worker of a driver with `base`; variables given by the user have the last word."""
    environment = dict(base)
    environment.update(dict.fromkeys(THREADS, str(worker.shape.cores_per_rank)))
    # Without GPUs an empty text, so that the call sees none.
    environment.update(dict.fromkeys(GPUS, ",".join(worker.gpus)))
    environment.update(worker.shape.environment)
    # After the user's variables: the depth of nesting is counted in any case.
    environment[NESTED] = str(nested(base) + 1)
    return environment


def gpus_of_ranks(worker: Worker) -> tuple[str, str]:
    """Return the GPUs of all ranks, and those of each rank, separated by `;`."""
    each = len(worker.gpus) // worker.shape.ranks
    own = [",".join(worker.gpus[i * each : (i + 1) * each]) for i in range(worker.shape.ranks)]
    return ",".join(worker.gpus), ";".join(own)


def needs_fresh_process(environment: Mapping[str, str], started_with: Mapping[str, str]) -> bool:
    """Return True if a fork cannot become this worker, because some variables count only at a process's start."""
    names = {name for name in (*environment, *started_with) if at_start(name)}
    return any(environment.get(name) != started_with.get(name) for name in names)
