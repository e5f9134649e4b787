"""The limits of a call's next attempt as a job: in the call's file, in the request to the scheduler, in the script.

Pure functions. `successor` writes what they return.
"""

from __future__ import annotations

from typing import Any

from ..resource_values import memory_bytes
from ..resources import LIMITS, Resources, amounts
from .batch import Batch, CallFile
from .submission import job_time

__all__ = ["limits_of", "next_resources", "with_limits", "with_limits_of"]


def limits_of(resources: Resources) -> str:
    """Return the name of the limits of an attempt among those of the same call."""
    return f"{resources.memory} {resources.run_time}"


def next_resources(batch: Batch, error: str) -> Resources | None:
    """Return the resources after an error of this name, without the user's own keys; None if there are none."""
    if error not in LIMITS or not batch.has_next_limits:
        return None
    return Resources().updated(batch.request["resources"]).after(error)


def with_limits(call_file: CallFile, resources: Resources) -> CallFile:
    """Return a call's file with the limits of other resources."""
    memory = memory_bytes(resources.memory) or None
    options = {**call_file.options, **({} if memory is None else {"memory": memory})}
    return call_file.replace(memory=memory, run_time=resources.run_time, options=options)


def with_limits_of(batch: Batch, resources: Resources) -> Batch:
    """Return a batch of a single call with the limits of the next attempt, and a note of both in words."""
    before = Resources().updated(batch.request["resources"])
    asked = {name: value for name, value in resources.asked().items() if name in batch.request["resources"]}
    time = batch.request["time"]
    if resources.run_time is not None:
        time = job_time(resources.run_time, resources.grace or 0.0, 1)
    request: dict[str, Any] = {
        **batch.request, "resources": asked, "time": time,
        "tried": [*batch.request.get("tried", ()), _difference(before, resources)],
        "limit": _difference(resources, before),
    }  # fmt: skip
    shown = {name: asked[name] for name in LIMITS.values() if name in asked}
    return batch.replace(resources={**batch.resources, **shown}, request=request)


def _difference(resources: Resources, others: Resources) -> str:
    """Return the limit of some resources that others lack, as "memory=4 GiB"."""
    name = "memory" if resources.next_memory != others.next_memory else "run_time"
    return amounts(resources, [name])
