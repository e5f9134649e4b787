"""The environment variables of a worker: how many threads its libraries start, which GPUs it sees."""

from __future__ import annotations

from collections.abc import Mapping

from ..system.machine import GPUS
from ..utils.environment import NESTED, THREADS, at_start, nested
from .worker import Worker


def worker_environment(base: Mapping[str, str], worker: Worker) -> dict[str, str]:
    """The environment of a worker whose driver has `base`; what the user asked for has the last word."""
    environment = dict(base)
    environment.update(dict.fromkeys(THREADS, str(worker.shape.cores_per_rank)))
    environment.update(dict.fromkeys(GPUS, ",".join(worker.gpus)))
    environment.update(worker.shape.environment)
    environment[NESTED] = str(nested(base) + 1)
    return environment


def gpus_of_ranks(worker: Worker) -> tuple[str, str]:
    """What each rank needs to know to see only its own: those of all, and those of each, with `;` between."""
    each = len(worker.gpus) // worker.shape.ranks
    own = [",".join(worker.gpus[i * each : (i + 1) * each]) for i in range(worker.shape.ranks)]
    return ",".join(worker.gpus), ";".join(own)


def needs_fresh_process(environment: Mapping[str, str], started_with: Mapping[str, str]) -> bool:
    """Whether a worker must be started anew, because a process that was started otherwise cannot become it."""
    names = {name for name in (*environment, *started_with) if at_start(name)}
    return any(environment.get(name) != started_with.get(name) for name in names)
