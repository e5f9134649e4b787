"""What resources mean on one machine: a plan for the node, or the reason why it cannot be."""

from __future__ import annotations

import os
from typing import Any

from ..errors import ResourceError
from ..node.call import Plan
from ..node.launcher import why_no_mpi
from ..node.shape import Capacity, Shape
from ..resources import Resources

GIB = 1 << 30
_FOR_SCHEDULERS = ("partition", "queue", "account", "qos", "constraint", "gres", "job_name", "slurm_cmd_args")
_FOR_CACHES = ("cache_key", "cache_directory")


def make_plan(resources: Resources, capacity: Capacity) -> Plan:
    """The plan for calls with these resources.

    Raises:
        ResourceError: a key means nothing here, or there is less than is asked for.
    """
    asked = resources.asked()
    _refuse_what_means_nothing(asked)
    _refuse_what_there_is_not(resources, capacity)
    shape = Shape(
        cores=capacity.cores if resources.exclusive else resources.cores,
        gpus=resources.gpus,
        memory=_bytes(resources.memory),
        ranks=resources.ranks,
        cores_per_rank=resources.cores_per_rank,
        environment=tuple(sorted((resources.env or {}).items())),
    )
    return Plan(shape, resources.priority, resources.restart_limit, resources.run_time, _options(resources))


def _refuse_what_means_nothing(asked: dict[str, Any]) -> None:
    for key in _FOR_SCHEDULERS:
        if key in asked:
            raise ResourceError(f"{key} is for a scheduler, and this machine's backend has none; leave it out")
    for key in _FOR_CACHES:
        if key in asked:
            raise ResourceError(f"{key} is for a cache, and this executor has none; leave it out")


def _refuse_what_there_is_not(resources: Resources, capacity: Capacity) -> None:
    if (resources.nodes or 1) > 1:
        raise ResourceError(f"nodes={resources.nodes} was asked for, and this machine is one; use nodes=1")
    if resources.cores > capacity.cores:
        raise ResourceError(
            f"{_each(resources, 'cores_per_rank')} cores were asked for, and there are {capacity.cores}; "
            "ask for fewer, or set Local(cores=...)"
        )
    if resources.gpus > len(capacity.gpus):
        raise ResourceError(
            f"{_each(resources, 'gpus_per_rank')} GPUs were asked for, and there are {len(capacity.gpus)}; "
            "ask for fewer, or set Local(gpus=...)"
        )
    if resources.memory is not None and resources.memory * GIB > capacity.memory:
        raise ResourceError(
            f"memory={resources.memory:g} GiB was asked for, and there are {capacity.memory / GIB:.3g}; "
            "ask for less, or set Local(memory=...)"
        )
    if resources.ranks > 1 and (reason := why_no_mpi()) is not None:
        raise ResourceError(
            f"ranks={resources.ranks} needs MPI, and {reason}; "
            f"if one run with {resources.ranks} cores was meant, ask for cores_per_rank={resources.ranks}"
        )


def _each(resources: Resources, key: str) -> str:
    count = getattr(resources, key)
    return str(count) if resources.ranks == 1 else f"{resources.ranks} x {count}"


def _options(resources: Resources) -> dict[str, Any]:
    """What the worker arranges around the call. Paths are those of this moment and this directory."""
    options: dict[str, Any] = {}
    for key in ("cwd", "error_log_file"):
        path = getattr(resources, key)
        if path is not None:
            options[key] = os.path.abspath(path)
    if resources.memory is not None:
        options["memory"] = _bytes(resources.memory)
    return options


def _bytes(memory: float | None) -> int:
    """GiB in bytes, at least one: none at all means that no memory was asked for."""
    return 0 if memory is None else max(1, int(memory * GIB))
