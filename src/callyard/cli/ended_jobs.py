"""The end of the jobs of a damaged batch, by the scheduler, and by the files that running jobs touch."""

from __future__ import annotations

import os
import time

from ..backends.batch.scheduler_client import SubmissionRefused, client_of
from ..errors import SchedulerError
from ..jobs.spool import BatchDirectory
from ..schedulers.base import JobId
from ..schedulers.registry import scheduler_here

__all__ = ["jobs_are_over"]

_LIVES = 3600.0  # s after a touch by a job in which it counts as running: the clocks of machines may differ


def jobs_are_over(batch: BatchDirectory) -> bool:
    """Return True if no job of a batch waits or runs, as far as the scheduler here and the files know.

    A damaged batch does not say which scheduler has its jobs. Those of another cluster show by their files that they
    run; without the batch they make no call.
    """
    name = scheduler_here(os.environ)
    touched = batch.last_touched()
    if not name or (touched is not None and touched > time.time() - _LIVES):
        return False
    try:
        client = client_of(name)
        jobs = {*batch.noted_jobs(), *client.look_up(batch.token).values()}
        statuses = client.statuses(sorted(jobs))
    except (SubmissionRefused, SchedulerError):  # it does not answer
        return False
    if statuses is None:
        return False
    ours = {JobId.parse(job).job for job in jobs}
    return all(status.phase == "ended" for job, status in statuses.items() if JobId.parse(job).job in ours)
