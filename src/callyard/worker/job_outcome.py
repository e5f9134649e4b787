"""The outcome of a call in a job: its form in files, and error messages with job and node."""

from __future__ import annotations

import os
import sys

from ..errors import CacheError, CallyardError, JobLost, OutOfMemory, TimeLimitExceeded
from ..events.usage import Usage
from ..jobs.batch import CallFile, CallOutcome
from ..jobs.call_files import CallFiles
from ..schedulers.job_environment import current_job
from ..utils.error_words import error_words
from ..utils.lite_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from ..errors import WorkerLost

__all__ = [
    "UNWRITTEN",
    "InputFailed",
    "InputMoved",
    "RankLost",
    "error_of_loss",
    "failed",
    "inherited",
    "job_id",
    "moves_on",
    "node_name",
    "printed",
    "who",
    "write_down",
]

UNWRITTEN = os.EX_IOERR  # exit status of a job that could not write down the end of a call


class InputFailed(Exception):  # not an error of its own, but the carrier of another one
    """The failure that a call inherits from one of the inputs."""

    def __init__(self, failure: bytes) -> None:
        self.failure = failure


class RankLost(Exception):  # likewise
    """The loss of a rank before it had a result; the call may run again."""

    def __init__(self, error: WorkerLost) -> None:
        self.error = error


class InputMoved(Exception):  # not an error, but a reason to begin later
    """An input goes on in a job for which this one has not waited: the batch, and the number of the call there."""

    def __init__(self, token: str, number: int) -> None:
        self.token, self.number = token, number


def job_id() -> str:
    """Return the scheduler's ID of this job, or the process's own without a scheduler."""
    return current_job().job_id or str(os.getpid())


def node_name() -> str:
    return current_job().node or os.uname().nodename


def who(name: str) -> str:
    """Return the beginning of a message about a call in this job."""
    return f"{name!r}, job {job_id()} on {node_name()},"


def printed(folder: CallFiles, number: int) -> str:
    """Return the end of a message, with the place of the output, and the last lines there."""
    from ..jobs.log_excerpt import what_it_printed  # here, because most calls do not fail
    from .job_log import settle

    settle()
    return what_it_printed(folder.log(number))


def failed(error: BaseException, text: str = "", key: str = "", usage: Usage | None = None) -> CallOutcome:
    """Return the outcome of a call that failed with this error."""
    from .exceptions import dump_error  # here, because most calls do not fail

    words = text or f"{error_words(error)}\n"
    return CallOutcome("failed", key, failure=dump_error(error, words), usage=usage)


def error_of_loss(
    folder: CallFiles, number: int, call_file: CallFile, reason: str | None, code: int, attempt: int
) -> CallyardError:
    """Return the error of a call whose process has ended without an outcome, in this attempt.

    `reason`: "run_time" or "memory" if a limit was the cause.
    """
    from ..system.exit_status import how_it_ended, too_long, too_much_memory  # here, because most calls end well

    name, log, tried = who(folder.batch.calls[number].name), printed(folder, number), folder.batch.tried
    if reason == "run_time":
        return TimeLimitExceeded(too_long(name, call_file.run_time or 0) + tried + log)
    if reason == "memory":
        return OutOfMemory(too_much_memory(name, call_file.memory) + tried + log)
    if code == UNWRITTEN:
        return CacheError(f"{name} could not write down how it ended{log}")
    from ..errors import WorkerLost  # here, because this loads much, and most calls end well

    limit = folder.batch.restart_limit
    runs, advice = (f" (run {attempt})", "") if limit else ("", "; restart_limit=1 would run such a call again")
    error = WorkerLost(f"{name} lost its process{runs}, which {how_it_ended(code)}{advice}{log}")
    error.exitcode = code
    return error


def moves_on(folder: CallFiles, number: int, error: BaseException) -> bool:
    """Move a call that has gone beyond a limit to a job with the next one; return False if there is none to try."""
    if not folder.batch.has_next_limits:
        return False
    from ..jobs.spool import BatchDirectory  # here, because most calls end well
    from ..jobs.successor import move_to_successor

    try:
        return move_to_successor(BatchDirectory(folder.home, folder.token), number, type(error).__name__)
    except (OSError, CallyardError) as problem:  # a full disk, most likely: the call fails, which needs no room there
        sys.stderr.write(f"callyard: its next attempt cannot be written: {problem}\n")
        return False


def write_down(folder: CallFiles, number: int, end: CallOutcome) -> bool:
    """Write down the end of a call, in few words where the disk is full; return False if it takes none at all."""
    try:
        folder.end(number, end)
    except OSError as error:
        from .full_disk import write_shortly  # here, because it is needed seldom

        return write_shortly(folder, number, end, error)
    return True


def inherited(end: CallOutcome, name: str, source: str) -> bytes:
    """Return the failure of a call with a failed input: the same error, and a note with the path."""
    if end.state != "failed":
        return failed(JobLost(f"{source!r}, whose result {name!r} takes, was cancelled")).failure
    from ..dependencies.failure_path import add_path  # here, because most calls do not fail

    error, text = end.error()
    add_path(error, [name, source])
    return failed(error, text).failure
