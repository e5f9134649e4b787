"""The submission of jobs to the daemon: a request as JSON."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from ...errors import ResourceError, SchedulerError
from ...resources import Resources
from ..base import JobId, JobRequest
from .begin import begin_time

__all__ = ["asked_for", "check", "submitted"]

_MEANT = frozenset(
    [
        *("ranks", "cores_per_rank", "gpus_per_rank", "memory", "run_time", "nodes", "ranks_per_node", "exclusive"),
        *("priority", "cwd", "env", "error_log_file", "grace", "warn_before", "warn_signal", "restart_limit", "begin"),
        *("job_name", "cache_key", "cache_directory"),
    ]
)
_GIB = 1 << 30
_ANY_DAY = dt.datetime(2000, 1, 1)  # noqa: DTZ001  # a time of this machine, as `begin` has


def check(resources: Resources) -> None:
    """Raise ResourceError for resources that mean nothing on a machine without a scheduler."""
    for name in resources.asked():
        if name not in _MEANT:
            raise ResourceError(f"{name} is for a scheduler, and Local(detached=True) runs without one; leave it out")
    if (resources.nodes or 1) > 1:
        raise ResourceError(f"nodes={resources.nodes} was asked for, and this machine is one; use nodes=1")
    if resources.begin is not None:
        begin_time(str(resources.begin), _ANY_DAY)


def asked_for(request: JobRequest) -> dict[str, object]:
    """Return the request as the daemon takes it: what the jobs have in common, and for each job what is its own."""
    asked, share = request.resources, request.share
    return {
        "script": request.script,
        "time": request.time,
        "requeue": request.requeue,
        "begin": None if asked.begin is None else str(asked.begin),
        "priority": asked.priority,
        "grace": asked.grace,
        "cores": asked.cores,
        "gpus": asked.gpus,
        "memory": int((asked.memory or 0) * _GIB),
        "exclusive": asked.exclusive,
        "share": None if share is None else share._asdict(),
        "jobs": list(_jobs(request)),
    }


def submitted(out: str, request: JobRequest) -> JobId | list[JobId]:
    """Return the IDs in the daemon's answer."""
    jobs = [JobId(line) for line in out.split()]
    if len(jobs) != len(request.tokens()) or not all(re.fullmatch(r"[\w.-]+-[0-9a-f]+-\d+", job.job) for job in jobs):
        raise SchedulerError(f"the daemon answered {out.strip()[:200]!r}, which are not the IDs of these jobs")
    return jobs[0] if request.elements is None else jobs


def _jobs(request: JobRequest) -> Iterator[dict[str, object]]:
    numbers = range(request.elements) if isinstance(request.elements, int) else request.elements or (None,)
    for place, (number, token) in enumerate(zip(numbers, request.tokens(), strict=True)):
        after = request.after_each[place] if request.after_each else ()
        yield {
            "token": token,
            "element": number,
            "log": request.log.replace("{element}", str(number or 0)),
            "lane": request.lanes[place] if request.lanes else None,
            "after": [str(job) for job in (*(each.job for each in request.after), *after)],
        }
