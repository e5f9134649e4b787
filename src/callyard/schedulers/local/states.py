"""The states of the daemon's jobs, and their meaning for a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

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


def translated(job: Mapping[str, Any]) -> Status:
    """Return the meaning of what the daemon says of a job. A word newer than these tables counts as running."""
    node, why = str(job.get("node") or ""), str(job.get("why") or "")
    match job.get("state"):
        case "waiting":
            return Status("waiting", WAITS.get(why, "waits"), reason=str(job.get("words") or ""), node=node)
        case "ended":
            end = ENDS.get(why, JobEnd("WorkerLost", "has ended"))
            return Status("ended", end.sentence, end.error, "", node, job.get("code"), job.get("signal"))
        case "elsewhere":
            return Status("running", f"is a job of {node}, and only there more is known of it", node=node)
    return Status("running", "runs", node=node)
