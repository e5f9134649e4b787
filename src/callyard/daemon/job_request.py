"""The words of a submission: the need of its jobs, and the time of their start."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from ..errors import ResourceError
from ..pool.call_shape import NodeCapacity
from ..schedulers.base import Share
from ..schedulers.local.begin import begin_time
from .job_placement import JobNeed

__all__ = ["begin_of", "need_of"]


def need_of(asked: Mapping[str, Any], capacity: NodeCapacity) -> JobNeed:
    """Return the need of each job; without a share of its own it has all of the machine."""
    said = asked["share"]
    share = Share("", capacity.cores, capacity.gpus, capacity.memory)
    if said is not None:
        share = Share(said["name"], said["cores"], tuple(said["gpus"]), said["memory"])
    cores = share.cores if asked["exclusive"] else asked["cores"]
    return JobNeed(cores, asked["gpus"], asked["memory"], share)


def begin_of(asked: Mapping[str, Any], created: float) -> float:
    """Return the earliest start of the jobs (s since 1970), of which a submission at `created` speaks.

    Raises:
        ResourceError: there is no such time.
    """
    if asked["begin"] is None:
        return 0.0
    begin = begin_time(asked["begin"], dt.datetime.fromtimestamp(created))  # noqa: DTZ006  # of this machine
    try:
        return begin.timestamp()
    except (ValueError, OverflowError):
        raise ResourceError(f"begin={asked['begin']!r} is a time too long ago, or too far away") from None
