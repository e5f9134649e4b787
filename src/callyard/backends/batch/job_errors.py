"""The errors of calls whose jobs ended without an outcome, made from the words of the scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable

from ... import errors
from ...errors import CacheError, CallyardError, JobCancelled, JobLost, SchedulerError, UnsafeCache, WorkerLost
from ...jobs.batch import CallFile
from ...jobs.call_files import follow_moves
from ...jobs.log_excerpt import what_it_printed
from ...jobs.spool import BatchDirectory, CallOutcome
from ...resources import LIMITS, Resources, amounts
from ...schedulers.base import Status
from ...worker.job_outcome import UNWRITTEN, inherited
from .call import JobCall

__all__ = [
    "awaits",
    "dependency_failed",
    "gone",
    "hopeless",
    "is_loss",
    "not_submitted",
    "unreadable",
    "unseen",
    "vanished",
    "why",
]

_WHAT_TO_DO = {
    "TimeLimitExceeded": "; give it more with run_time=, or submit it to another partition",
    "OutOfMemory": "; give it more with memory=",
    "NodeFailure": "; restart_limit=1 would run such a call again",
    "JobCancelled": "; submit the call again to run it",
    "JobLost": "; submit the call again to run it",
}
_ENDS_THAT_STAY = (UNWRITTEN, 126, 127)  # the exit codes of a full disk, and of a shell that cannot run the command


def _who(call: JobCall, node: str = "") -> str:
    job = f"job {call.job}" if call.job else "its job"
    return f"{call.name!r}: {job}{f' on {node}' if node else ''}"


def _log(call: JobCall) -> str:
    return "" if call.directory is None else what_it_printed(call.directory.log(call.number))


def gone(call: JobCall, what: str) -> JobCancelled:
    return JobCancelled(f"{_who(call)} {what}")


def vanished(call: JobCall) -> JobLost:
    """Return the error of a call after the removal of its directory."""
    place = "its directory" if call.directory is None else call.directory.path
    return JobLost(f"{call.name!r}: {place} was removed while it was waited for{_WHAT_TO_DO['JobLost']}")


def not_submitted(call: JobCall, error: Exception, where: str) -> CallyardError:
    """Return the error of a call in a batch that cannot be submitted; its files are now at `where`."""
    if isinstance(error, FileNotFoundError) and call.directory is not None and not os.path.exists(where):
        return vanished(call)
    later = "; `callyard resume` submits it once that is mended" if isinstance(error, UnsafeCache) else ""
    failure = SchedulerError(
        f"{call.name!r} cannot be submitted: {type(error).__name__}: {error}; its files are in {where}{later}"
    )
    failure.__cause__ = error
    return failure


def unreadable(call: JobCall, error: Exception) -> SchedulerError:
    """Return the error of a call after an unreadable file from its job."""
    where = "its directory" if call.directory is None else call.directory.path
    failure = SchedulerError(f"{call.name!r}: what its job wrote in {where} cannot be read: {error}")
    failure.__cause__ = error
    return failure


def unseen(call: JobCall) -> JobLost:
    """Return the error of a call with a result stored by the job, but never visible here."""
    where = call.owner.home.path if call.order is None else call.order.directory
    return JobLost(
        f"{_who(call)} has stored its result in {where}, where it cannot be seen from this machine; submit the call "
        f"again when it can{_log(call)}"
    )


def why(call: JobCall, status: Status | None) -> CallyardError:
    """Return the error of a call whose job has ended and left neither a result nor an error."""
    if status is None:
        return JobLost(
            f"{_who(call)} is not known to the scheduler any more, and has left no result"
            f"{_WHAT_TO_DO['JobLost']}{_log(call)}"
        )
    if status.exit_code == UNWRITTEN:
        return CacheError(
            f"{_who(call, status.node)} could not write down in {call.owner.home.path} how the call ended: make room "
            f"there if the disk or a quota is used up, and submit the call again{_log(call)}"
        )
    kind, sentence = status.error or "JobLost", status.sentence
    if status.error is None:
        sentence += ", without a result"
    what_to_do = "" if kind == "NodeFailure" and call.resources.restart_limit else _WHAT_TO_DO.get(kind, "")
    tried = call.directory.batch.tried if kind in LIMITS and call.directory is not None else ""
    error = _made(kind, f"{_who(call, status.node)} {sentence}{what_to_do}{tried}{_log(call)}")
    if isinstance(error, WorkerLost):
        error.exitcode = -status.signal if status.signal else status.exit_code
    return error


def is_loss(verdict: Status, has_begun: bool) -> bool:
    """Return whether another job may help a call after this "WorkerLost": its process was lost, and certainly ended.

    A script that has ended by itself before the call (no interpreter, no package) would do so again.
    """
    if not verdict.certain or verdict.exit_code in _ENDS_THAT_STAY:
        return False
    return has_begun or not verdict.exit_code


def _made(kind: str, message: str) -> CallyardError:
    error: CallyardError = getattr(errors, kind)(message)
    return error


def hopeless(call: JobCall, status: Status, largest: str = "") -> CallyardError | None:
    """Return the error of a call without any hope for its job, or None; `largest` names the largest nodes."""
    if not status.hopeless or status.error is None:
        return None
    is_too_much = status.error in ("SchedulerError", "ResourceError")
    hint = "ask for something else" if is_too_much else "submit the call again to run it"
    reason = f"{status.sentence} ({status.reason})"
    numbers = f"; it asks for {amounts(_asked(call))}{largest}" if is_too_much else ""
    return _made(status.error, f"{_who(call)} can never run and was cancelled: it {reason}{numbers}; {hint}")


def _asked(call: JobCall) -> Resources:
    """Return the resources of a call's present attempt."""
    if call.directory is None or not call.directory.batch.limit:
        return call.resources
    return Resources().updated(call.directory.batch.request["resources"])


def awaits(directory: BatchDirectory, number: int, is_awaited: Callable[[str, int], bool]) -> bool:
    """Return True if a call has an input (by token and number) whose outcome is still to come."""
    call_file = _call_file(directory, number)
    return call_file is not None and any(
        given.token and is_awaited(given.token, given.number) for given in call_file.inputs
    )


def _call_file(directory: BatchDirectory, number: int) -> CallFile | None:
    try:
        return CallFile.load(directory.call(number))
    except OSError:
        return None


def dependency_failed(directory: BatchDirectory, number: int) -> CallOutcome | None:
    """Return the failure inherited from a failed input, as the reason for the cancellation of the call's job."""
    call_file = _call_file(directory, number)
    if call_file is None:
        return None
    for given in call_file.inputs:
        end = follow_moves(directory.home, given.token, given.number)[2] if given.token else None
        if end is not None and end.state != "finished":
            return CallOutcome("failed", failure=inherited(end, call_file.order.name, given.name), inherited=True)
    return None
