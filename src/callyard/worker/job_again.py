"""A call of a job that runs again: the next attempt lies in the directory of the batch until the call has ended.

A call runs again with other arguments after it has raised `Again`, and with the same after the loss of its process, as
its `restart_limit` says. The same job does this, at once, unless the job has been told of its end, or has too little
time left. Otherwise the next start of the job makes the attempt. The scheduler starts a job again after a preemption or
the loss of a node; for a job with little time left, this module asks for a new start.
"""

from __future__ import annotations

import subprocess

from ..errors import SchedulerError
from ..jobs.batch import CallAgain
from ..jobs.call_files import CallFiles
from ..schedulers.job_environment import current_job
from ..serialize.function_registry import dumps
from .current_call import Again
from .exceptions import unpicklable_again
from .job_outcome import job_id

_PATIENCE = 60.0  # s for a command of the scheduler


def keep_arguments(folder: CallFiles, number: int, again: Again, attempt: int) -> None:
    """Write the arguments of the next attempt.

    Raises:
        UnpicklableCall: the arguments cannot be pickled.
    """
    try:
        arguments = dumps((again.args, again.kwargs))
    except Exception as error:
        raise unpicklable_again(again, error) from error
    folder.run_again(number, _kept(folder, number, attempt).replace(attempt=attempt + 1, arguments=arguments))


def keep_loss(folder: CallFiles, number: int, attempt: int) -> bool:
    """Write down the next attempt of a call that has lost its process; return False if its losses reach the limit."""
    kept = _kept(folder, number, attempt)
    if losses(kept) >= folder.batch.restart_limit:
        return False
    folder.run_again(number, kept.replace(attempt=attempt + 1, losses=kept.losses + 1))
    return True


def keep_restarts(folder: CallFiles, number: int, attempt: int) -> None:
    """Note the scheduler's restarts of this job as losses: who moves the call to another job sees no other count."""
    kept = _kept(folder, number, attempt)
    folder.run_again(number, kept.replace(restarts=current_job().restarts or 0, losses=losses(kept)))


def losses(kept: CallAgain | None) -> int:
    """Return how often a call was lost so far: with its process, or with its job, as far as the scheduler tells."""
    restarts = current_job().restarts or 0
    return restarts if kept is None else restarts - kept.restarts + kept.losses


def _kept(folder: CallFiles, number: int, attempt: int) -> CallAgain:
    return folder.again(number) or CallAgain(attempt, 0, b"")


def expect_restart(folder: CallFiles, number: int) -> None:
    """Note that the next start of the job is for the sake of this call, and does not count as a loss."""
    kept = folder.again(number)
    if kept is not None:
        folder.run_again(number, kept.replace(restarts=kept.restarts + 1))


def requeue() -> None:
    """Ask the scheduler to start this job again.

    Raises:
        SchedulerError: the scheduler refuses, or cannot start a job again.
    """
    from ..schedulers.base import JobId
    from ..schedulers.registry import open_scheduler

    name = current_job().scheduler
    commands = open_scheduler(name).site().requeue if name else None
    if commands is None:
        raise SchedulerError("its scheduler starts no job again when that asks for it; give it more time")
    for argv in commands(JobId.parse(job_id())):
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SchedulerError(f"{argv[0]} has not requeued it within {_PATIENCE:g} s") from error
        if done.returncode:
            raise SchedulerError(f"{argv[0]} has not requeued it: {done.stderr.strip() or done.returncode}")
