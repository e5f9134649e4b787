"""The backend of `Local(detached=True)`: calls as jobs of this machine, which its daemon runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..hosts.open_host import open_host
from ..pool.call_shape import NodeCapacity
from ..resources import Resources
from ..schedulers.base import Share
from ..schedulers.local.scheduler import LocalScheduler
from ..system.python_command import python_command
from .base import Settings
from .batch.backend import BatchBackend
from .batch.job_check import JobCheck
from .batch.scheduler_client import SchedulerClient
from .batch.writer import JobSettings
from .resource_mapping import check_capacity, described
from .run_directories import private_home
from .scheduler_settings import check_jobs_possible

if TYPE_CHECKING:
    from ..result_cache import Cache

__all__ = ["job_check", "open_local_jobs"]

_POLL = (0.5, 15.0)  # s; the daemon answers within a millisecond
_RESULT_GRACE = 5.0  # s; jobs and submitter see one file system
_DEFAULTS = {"grace": 2.0}  # s, as for live calls of this machine


def job_check(settings: Settings, check: Callable[[Resources], None]) -> Callable[[Resources], object]:
    """Return the check of a call's resources by texts alone; `check` knows what there is.

    Raises:
        CallyardError: the settings do not go together.
    """
    check_jobs_possible(settings, None)
    scheduler = LocalScheduler(check)
    return JobCheck(scheduler, JobSettings(scheduler.name, (), _DEFAULTS)).check_call


def open_local_jobs(capacity: NodeCapacity, settings: Settings, cache: Cache | None) -> BatchBackend:
    """Return the backend of an executor whose calls have this part of the machine.

    Raises:
        CallyardError: the settings do not go together.
    """
    check_jobs_possible(settings, cache)
    scheduler = LocalScheduler(partial(check_capacity, capacity=capacity))
    site = scheduler.site()
    jobs = JobSettings(
        scheduler.name,
        tuple(python_command("callyard.worker.job", "main")),
        _DEFAULTS,
        environment=site.job_variables.environment(),
        separate=site.separate,
        poll=_POLL,
        result_grace=_RESULT_GRACE,
        share=Share(os.urandom(8).hex(), *capacity),
        place=f"{socket.gethostname()} with {described(capacity)}",
    )
    directory = private_home() if cache is None else cache._directory
    return BatchBackend(
        SchedulerClient(scheduler, open_host(site), _POLL[0]), directory, jobs, settings, private=cache is None
    )
