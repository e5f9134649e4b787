"""The states of the daemon's jobs, and their meaning for a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...system.exit_status import how_it_ended
from ..base import Status

__all__ = ["ENDS", "WAITS", "JobEnd", "translated"]


class JobEnd(NamedTuple):
    """A way in which a job ends, and the class of `callyard.errors` for a call without an outcome."""

    error: str | None
    sentence: str


# By the daemon's words.
WAITS = {
    "jobs": "waits for the jobs that it depends on",
    "begin": "waits for the time at which it may begin",
    "turn": "waits for its turn among the calls of its executor (max_workers)",
    "room": "waits for free cores, GPUs or memory",
    "start": "waits for another attempt to start it",
}
ENDS = {
    "exited": JobEnd(None, "ended with exit code 0"),
    "failed": JobEnd("WorkerLost", "ended with an exit code or a signal"),
    "time": JobEnd("TimeLimitExceeded", "reached its time limit"),
    "cancelled": JobEnd("JobCancelled", "was cancelled"),
    "told": JobEnd("WorkerLost", "was told to end (SIGTERM) by another program"),
    "killed": JobEnd("WorkerLost", "lost the process that keeps it, which was killed"),
    "rebooted": JobEnd("NodeFailure", "was lost when the machine stopped"),
}
_SIGNALLED, _LAST_SIGNAL = 128, 64  # exit codes of a shell above are those of a command that a signal ended


def translated(job: Mapping[str, Any]) -> Status:
    """Return the meaning of what the daemon says of a job. A word newer than these tables counts as running."""
    node, why = str(job.get("node") or ""), str(job.get("why") or "")
    match job.get("state"):
        case "waiting":
            return Status("waiting", WAITS.get(why, "waits"), reason=str(job.get("words") or ""), node=node)
        case "ended":
            end = ENDS.get(why, JobEnd("WorkerLost", "has ended"))
            code, signal = _exit_of(job)
            exitcode = -signal if signal else code
            sentence = end.sentence if why != "failed" or exitcode is None else how_it_ended(exitcode)
            return Status("ended", sentence, end.error, "", node, code, signal)
        case "elsewhere":
            return Status("running", f"is a job of {node}, and only there more is known of it", node=node)
    return Status("running", "runs", node=node)


def _exit_of(job: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the exit code of a job's script, or else the signal that ended it, or the process of the call."""
    code, signal = job.get("code"), job.get("signal")
    if code is not None and _SIGNALLED < code <= _SIGNALLED + _LAST_SIGNAL:
        return None, code - _SIGNALLED
    return code, signal
