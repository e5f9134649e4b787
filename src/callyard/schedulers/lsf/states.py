"""The states of LSF's jobs, the reasons for their ends, and their meaning for a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ...system.exit_status import how_it_ended
from ..base import Phase, Status

__all__ = ["REASONS", "STATES", "ExitReason", "JobState", "translated"]


class JobState(NamedTuple):
    """A state of `bjobs`, with a predicate for people, the job as its subject."""

    name: str
    phase: Phase
    sentence: str


class ExitReason(NamedTuple):
    """A reason for the end of a job, and the class of `callyard.errors` for its call."""

    name: str
    error: str
    sentence: str


STATES = {
    each.name: each
    for each in (
        JobState("DONE", "ended", "ended with exit code 0"),
        JobState("EXIT", "ended", "ended with an exit code or a signal"),
        JobState("FWD_PEND", "waiting", "waits in another cluster"),
        JobState("PEND", "waiting", "waits"),
        JobState("PROV", "waiting", "has its nodes, which are being made ready"),
        JobState("PSUSP", "waiting", "is held while it waits"),
        JobState("RUN", "running", "runs"),
        JobState("SSUSP", "running", "is suspended by LSF"),
        JobState("UNKWN", "running", "is on a node that does not answer"),
        JobState("USUSP", "running", "is suspended by its user"),
        JobState("WAIT", "waiting", "waits for the other members of its chunk"),
        JobState("ZOMBI", "running", "is on a node that does not answer, and is to be ended"),
    )
}
_ENDED_BY = "was ended by"
REASONS = {
    each.name: each
    for each in (
        ExitReason("TERM_ADMIN", "JobCancelled", f"{_ENDED_BY} an administrator"),
        ExitReason("TERM_BUCKET_KILL", "JobCancelled", "was cancelled"),
        ExitReason("TERM_CHKPNT", "NodeFailure", "was ended with a checkpoint"),
        ExitReason("TERM_CPULIMIT", "TimeLimitExceeded", "reached its limit of CPU time"),
        ExitReason("TERM_CSM_ALLOC", "NodeFailure", "could not be given its nodes"),
        ExitReason("TERM_CTRL_PID", "NodeFailure", "lost the process that looks after it"),
        ExitReason("TERM_CWD_NOTEXIST", "SchedulerError", "could not be started: its working directory is missing"),
        ExitReason("TERM_DATA", "SchedulerError", "was ended, because its data could not be had"),
        ExitReason("TERM_DEADLINE", "TimeLimitExceeded", "could not end before its deadline"),
        ExitReason("TERM_EXTERNAL_SIGNAL", "WorkerLost", "was ended by a signal that is not LSF's"),
        ExitReason("TERM_FORCE_ADMIN", "JobCancelled", f"{_ENDED_BY} an administrator, at once"),
        ExitReason("TERM_FORCE_OWNER", "JobCancelled", "was cancelled, at once"),
        ExitReason("TERM_KUBE", "WorkerLost", f"{_ENDED_BY} Kubernetes"),
        ExitReason("TERM_LOAD", "NodeFailure", "was ended, because its node has too much to do"),
        ExitReason("TERM_MC_RECALL", "NodeFailure", "was called back from another cluster"),
        ExitReason("TERM_MEMLIMIT", "OutOfMemory", "took more memory than it had asked for"),
        ExitReason(
            "TERM_ORPHAN_SYSTEM", "JobCancelled", "was ended, because a job that it depends on did not end well"
        ),
        ExitReason("TERM_OTHER", "WorkerLost", f"{_ENDED_BY} a member of its chunk"),
        ExitReason("TERM_OWNER", "JobCancelled", "was cancelled"),
        ExitReason("TERM_PREEMPT", "NodeFailure", "had to give its nodes to a job of higher priority"),
        ExitReason("TERM_PRE_EXEC_FAIL", "NodeFailure", "could not be started on its node, whose prolog failed"),
        ExitReason("TERM_PROCESSLIMIT", "WorkerLost", "reached its limit of processes"),
        ExitReason("TERM_RC", "NodeFailure", "lost its node, which was given back to a cloud"),
        ExitReason("TERM_RC_RECLAIM", "NodeFailure", "lost its node, which was given back to a cloud"),
        ExitReason("TERM_REMOVE_HUNG_JOB", "NodeFailure", "was removed, because its node does not answer"),
        ExitReason("TERM_REQUEUE_ADMIN", "NodeFailure", "was put back into the queue by an administrator"),
        ExitReason("TERM_REQUEUE_OWNER", "NodeFailure", "was put back into the queue"),
        ExitReason("TERM_RMS", "NodeFailure", "was ended by trouble in its node's system"),
        ExitReason("TERM_RUNLIMIT", "TimeLimitExceeded", "reached its time limit"),
        ExitReason("TERM_SLURM", "NodeFailure", "was ended by trouble in Slurm below LSF"),
        ExitReason("TERM_SWAP", "OutOfMemory", "took more swap space than it may"),
        ExitReason("TERM_THREADLIMIT", "WorkerLost", "reached its limit of threads"),
        ExitReason("TERM_WINDOW", "TimeLimitExceeded", "was ended with the time window of its queue"),
        ExitReason("TERM_ZOMBIE", "NodeFailure", "ended while LSF was not there"),
    )
}
_SIGNALLED, _LAST_SIGNAL = 128, 64
# Reasons for waiting that do not pass by themselves.
_NEVER = re.compile(
    r"job's requirements? .*not satisfied by any|dependency condition invalid|never satisfied|"
    r"user account is not (?:found|valid)|specified queue.* does not exist",
    re.IGNORECASE,
)


def translated(job: Mapping[str, str]) -> Status:
    """Return the meaning of a line of `bjobs`. An unknown state counts as running, so that no job is given up."""
    name, node = job.get("STAT", ""), _first(job.get("EXEC_HOST", ""))
    state = STATES.get(name, JobState(name, "running", f"is in the state {name}, which Callyard does not know"))
    if state.phase == "waiting":
        words = job.get("PEND_REASON", "").strip()
        error = "SchedulerError" if _NEVER.search(words) else None
        return Status("waiting", f"{state.sentence}: {words}" if words else state.sentence, error, words, node)
    if state.phase == "running" or name == "DONE":
        return Status(state.phase, state.sentence, node=node, exit_code=0 if name == "DONE" else None)
    return _exited(job, node)


def _exited(job: Mapping[str, str], node: str) -> Status:
    words, text = job.get("EXIT_REASON", ""), job.get("EXIT_CODE", "").strip()
    code = int(text) if text.isdecimal() else None
    signal = code - _SIGNALLED if code is not None and _SIGNALLED < code <= _SIGNALLED + _LAST_SIGNAL else None
    named = re.search(r"TERM_\w+", words)
    reason = REASONS.get(named[0]) if named else None
    if reason is not None:
        lost = node if reason.error == "NodeFailure" and ":" not in job.get("EXEC_HOST", "") else ""
        return Status("ended", reason.sentence, reason.error, words, node, signal=signal, failed_node=lost)
    if signal is not None:
        return Status("ended", how_it_ended(-signal), "WorkerLost", words, node, signal=signal)
    if code is None:  # it was cancelled before it began
        return Status("ended", REASONS["TERM_OWNER"].sentence, REASONS["TERM_OWNER"].error, words, node)
    return Status("ended", how_it_ended(code), "WorkerLost", words, node, exit_code=code)


def _first(hosts: str) -> str:
    """Return the first host of "4*hostA:4*hostB"."""
    host = hosts.partition(":")[0]
    return "" if host == "-" else host.rpartition("*")[2]
