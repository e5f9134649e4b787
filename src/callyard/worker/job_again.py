"""A call of a job that has raised `Again`: the arguments lie in the directory of the batch until the call has ended.

The same job runs the call again, at once, unless the job has been told of its end. Otherwise the next start of the job
goes on with these arguments. The scheduler starts a job again after a preemption or the loss of a node; for a job with
little time left, this module asks for a new start.
"""

from __future__ import annotations

import subprocess

from ..errors import SchedulerError
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
    before = folder.again(number)
    folder.run_again(number, attempt + 1, 0 if before is None else before.restarts, arguments)


def expect_restart(folder: CallFiles, number: int) -> None:
    """Note that the next start of the job is for the sake of this call, and does not count as a loss."""
    kept = folder.again(number)
    if kept is not None:
        folder.run_again(number, kept.attempt, kept.restarts + 1, kept.arguments)


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
