"""The outcome of a call in a job: its form in files, and error messages with job and node."""

from __future__ import annotations

import os

from ..errors import JobLost
from ..jobs.batch import CallOutcome
from ..jobs.call_files import CallFiles
from ..schedulers.job_environment import current_job

__all__ = ["InputFailed", "failed", "inherited", "job_id", "node_name", "printed", "who"]


class InputFailed(Exception):  # not an error of its own, but the carrier of another one
    """The failure that a call inherits from one of the inputs."""

    def __init__(self, failure: bytes) -> None:
        self.failure = failure


def job_id() -> str:
    """Return the scheduler's ID of this job, or the process's own without a scheduler."""
    return current_job().job_id or str(os.getpid())


def node_name() -> str:
    return current_job().node or os.uname().nodename


def who(name: str) -> str:
    """Return the beginning of a message about a call in this job."""
    return f"{name!r}, job {job_id()} on {node_name()},"


def printed(folder: CallFiles, number: int) -> str:
    """Return the end of a message, with the place of the output."""
    return f"; what it printed is in {folder.log(number)}"


def failed(error: BaseException, text: str = "", key: str = "") -> CallOutcome:
    """Return the outcome of a call that failed with this error."""
    from .exceptions import dump_error  # here, because most calls do not fail

    return CallOutcome("failed", key, failure=dump_error(error, text or f"{type(error).__name__}: {error}\n"))


def inherited(end: CallOutcome, name: str, source: str) -> bytes:
    """Return the failure of a call with a failed input: the same error, and a note with the path."""
    if not end.failure:
        return failed(JobLost(f"{source!r}, whose result {name!r} takes, was cancelled")).failure
    error, text = end.error()
    notes = list(getattr(error, "__notes__", ()))
    path = [note for note in notes if str(note).startswith("callyard: ")]
    way = path[0][len("callyard: ") :] if path else source
    others = [note for note in notes if note not in path]
    BaseException.__setattr__(error, "__notes__", [*others, f"callyard: {name} <- {way}"])
    return failed(error, text).failure
