"""The states of Flux's jobs, their results and exceptions, and their meaning for a call.

`translated` makes a `Status` of what Flux says of a job; it looks things up in `STATES`, `RESULTS` and `EXCEPTIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...system.exit_status import how_it_ended
from ..base import Phase, Status

__all__ = ["EXCEPTIONS", "RESULTS", "STATES", "JobException", "JobResult", "JobState", "translated"]


class JobState(NamedTuple):
    """A state of jobs that have not ended; `sentence` is a predicate for people, with the job as its subject."""

    name: str
    phase: Phase
    sentence: str


class JobResult(NamedTuple):
    """A result of jobs that have ended, and the class of `callyard.errors` for a call that left nothing."""

    name: str
    error: str | None
    sentence: str


class JobException(NamedTuple):
    """An exception that has ended a job: its type, a pattern in its note, and its meaning as in `JobResult`.

    `certain` is False for a job whose processes Flux has not seen end.
    """

    type: str
    note: str
    error: str
    sentence: str
    certain: bool = True


# By the numbers that Flux gives them.
STATES = {
    1: JobState("NEW", "waiting", "has only just been submitted"),
    2: JobState("DEPEND", "waiting", "waits for the jobs that it depends on, or for its `begin`"),
    4: JobState("PRIORITY", "waiting", "waits for its priority"),
    8: JobState("SCHED", "waiting", "waits for free nodes, cores or GPUs, or is held"),
    16: JobState("RUN", "running", "runs"),
    32: JobState("CLEANUP", "running", "has ended and is being cleaned up"),
}
_INACTIVE = 64
RESULTS = {
    1: JobResult("COMPLETED", None, "ended with exit code 0"),
    2: JobResult("FAILED", "WorkerLost", "ended with an exit code or a signal"),
    4: JobResult("CANCELED", "JobCancelled", "was cancelled"),
    8: JobResult("TIMEOUT", "TimeLimitExceeded", "reached its time limit"),
}
# The first that fits counts. A fatal exception says more than the result, which is FAILED for all but the first two.
EXCEPTIONS = (
    JobException("cancel", "", "JobCancelled", "was cancelled"),
    JobException("timeout", "", "TimeLimitExceeded", "reached its time limit"),
    JobException("dependency", "", "JobCancelled", "was ended, because a job that it depends on did not end well"),
    JobException("alloc-check", "", "JobLost", "was given resources that another job has", certain=False),
    JobException("alloc", "", "ResourceError", "asks for what the instance does not have"),
    JobException("scheduler-restart", "", "NodeFailure", "was lost when the scheduler was restarted", certain=False),
    JobException("prolog", "", "NodeFailure", "could not be started on its node, whose prolog failed"),
    JobException("epilog", "", "WorkerLost", "ended, and the epilog of its node failed"),
    JobException("exec", r"^node failure", "NodeFailure", "lost one of its nodes", certain=False),
    JobException("exec", r"unkillable|still active", "WorkerLost", "could not be ended altogether", certain=False),
    JobException("exec", r"start failed", "SchedulerError", "could not be started: its command cannot be run there"),
    JobException(
        "exec",
        r"^shell_init|job shell exec error|before first barrier|start barrier timeout|is not loaded on",
        "NodeFailure",
        "could not be started on its node",
    ),
    JobException("exec", "", "WorkerLost", "lost its processes"),
)
_NOTHING = JobException("", "", "WorkerLost", "was ended by an exception of Flux")
_FATAL = 0
_SIGNALLED = 128  # exit codes above are those of tasks that a signal ended
_LAST_SIGNAL = 64


def translated(job: Mapping[str, Any]) -> Status:
    """Return what the attributes of a job mean. A state newer than these tables counts as running."""
    node = str(job.get("nodelist") or "")
    if job.get("state") != _INACTIVE:
        state = STATES.get(job.get("state", 0), JobState("", "running", "is in a state that is new"))
        return Status(state.phase, state.sentence, node=node)
    result = RESULTS.get(job.get("result", 0), RESULTS[2])
    exception = _exception(job)
    if result.error is None or exception is None:
        code, signal = _ended(job)
        exitcode = -signal if signal else code
        sentence = result.sentence if result.name != "FAILED" or exitcode is None else how_it_ended(exitcode)
        return Status("ended", sentence, result.error, node=node, exit_code=code, signal=signal)
    note = str(job.get("exception_note") or "")
    if exception.error == "ResourceError":
        # It has ended without having begun. As a job that waits for ever nobody waits for its files.
        return Status("waiting", exception.sentence, exception.error, note)
    words = f"{exception.sentence} ({note})" if note else exception.sentence
    return Status("ended", words, exception.error, note, node, *_ended(job), certain=exception.certain)


def _exception(job: Mapping[str, Any]) -> JobException | None:
    """Return the exception that has ended a job, if one has."""
    kind, note = job.get("exception_type"), str(job.get("exception_note") or "")
    if not kind or job.get("exception_severity") != _FATAL:
        return None
    found = (each for each in EXCEPTIONS if each.type == kind and re.search(each.note, note))
    return next(found, _NOTHING)


def _ended(job: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return exit code and signal of a job that has run, from the number of wait(2)."""
    status = job.get("waitstatus")
    if not isinstance(status, int) or not job.get("t_run"):
        return None, None
    code, signal = status >> 8, status & 0x7F
    if not signal and _SIGNALLED < code <= _SIGNALLED + _LAST_SIGNAL:
        signal = code - _SIGNALLED
    return (None, signal) if signal else (code, None)
