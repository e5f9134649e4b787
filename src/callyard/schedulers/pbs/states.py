"""The states of PBS's jobs, its exit statuses, and their meaning for a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...system.exit_status import how_it_ended
from ..base import CANCELLED, Phase, Status

__all__ = ["EXITS", "STATES", "JobExit", "JobState", "translated"]


class JobState(NamedTuple):
    """A letter of `job_state`, with a predicate for people, the job as its subject."""

    letter: str
    phase: Phase
    sentence: str


class JobExit(NamedTuple):
    """An `Exit_status` that PBS itself has given, and the class of `callyard.errors` for the call."""

    code: int
    error: str
    sentence: str


STATES = {
    each.letter: each
    for each in (
        JobState("B", "running", "is an array of which elements run or wait"),
        JobState("E", "running", "has ended and is being cleaned up"),
        JobState("F", "ended", "has ended"),
        JobState("H", "waiting", "waits for the jobs that it depends on, or is held"),
        JobState("M", "running", "was moved to another server"),
        JobState("Q", "waiting", "waits for free nodes, cores, memory or GPUs"),
        JobState("R", "running", "runs"),
        JobState("S", "running", "is suspended"),
        JobState("T", "running", "is being moved"),
        JobState("U", "running", "is suspended, because somebody works at its machine"),
        JobState("W", "waiting", "waits for its earliest start, or for its files"),
        JobState("X", "ended", "has ended, as an element of an array"),
    )
}
_NOT_STARTED = "could not be started on its node"
EXITS = {
    each.code: each
    for each in (
        JobExit(-1, "NodeFailure", f"{_NOT_STARTED}, where its files could not be made"),
        JobExit(-2, "NodeFailure", f"{_NOT_STARTED}, after its files were made"),
        JobExit(-3, "NodeFailure", f"{_NOT_STARTED} and was to be started again"),
        JobExit(-4, "NodeFailure", "was lost when its node started again"),
        JobExit(-5, "NodeFailure", "was lost when its node started again, with a checkpoint"),
        JobExit(-6, "NodeFailure", "was lost when its node started again, with a checkpoint to be moved"),
        JobExit(-7, "NodeFailure", "could not go on from its checkpoint"),
        JobExit(-10, "SchedulerError", f"{_NOT_STARTED}, where its user or group is not known"),
        JobExit(-11, "NodeFailure", "was to be started again"),
        JobExit(-12, "NodeFailure", "was ended with a checkpoint"),
        JobExit(-13, "SchedulerError", f"{_NOT_STARTED}: its password is wrong"),
        JobExit(-14, "NodeFailure", "lost one of its nodes and was to be started again"),
        JobExit(-15, "NodeFailure", "was to be started again from its checkpoint"),
        JobExit(-16, "NodeFailure", f"{_NOT_STARTED}: a hook of the site refused it for now"),
        JobExit(-17, "SchedulerError", f"{_NOT_STARTED}: a hook of the site refused it"),
        JobExit(-18, "NodeFailure", "was to be started again by a hook of the site"),
        JobExit(-19, "JobCancelled", "was deleted by a hook of the site"),
        JobExit(-20, "NodeFailure", "lost its first node"),
        JobExit(-21, "NodeFailure", f"{_NOT_STARTED}, whose directory of PBS is not safe"),
        JobExit(-22, "NodeFailure", f"{_NOT_STARTED}: a hook of the site failed"),
        JobExit(-23, "SchedulerError", f"{_NOT_STARTED} for want of Kerberos credentials"),
        JobExit(-24, "WorkerLost", "used more cores than it had asked for, for a moment"),
        JobExit(-25, "WorkerLost", "used more cores than it had asked for"),
        JobExit(-26, "OutOfMemory", "took more virtual memory than it had asked for"),
        JobExit(-27, "OutOfMemory", "took more memory than it had asked for"),
        JobExit(-28, "TimeLimitExceeded", "reached its limit of CPU time"),
        JobExit(-29, "TimeLimitExceeded", "reached its time limit"),
    )
}
_OF_SIGNALS = (256, 128)  # what is added to the number of a signal, by PBS and by shells
_LAST_SIGNAL = 64
_DELETED = 91  # substate of jobs that somebody has ended


def translated(job: Mapping[str, Any]) -> Status:
    """Return the meaning of a job's attributes. An unknown state counts as running, so that no job is given up."""
    letter = str(job.get("job_state", ""))
    node = str(job.get("exec_host", "")).partition("/")[0]
    comment = str(job.get("comment", ""))
    state = STATES.get(letter, JobState(letter, "running", f"is in the state {letter}, which Callyard does not know"))
    if state.phase != "ended":
        if state.phase == "waiting" and "Can Never Run" in comment:
            return Status("waiting", "asks for what the cluster cannot give", "SchedulerError", comment, node)
        return Status(state.phase, state.sentence, reason=comment if state.phase == "waiting" else "", node=node)
    return _ended(job, comment, node)


def _ended(job: Mapping[str, Any], comment: str, node: str) -> Status:
    text = str(job.get("Exit_status", ""))
    code = int(text) if re.fullmatch(r"-?\d+", text) else None
    if code is not None and code in EXITS:
        error, sentence = EXITS[code].error, EXITS[code].sentence
        alone = node if error == "NodeFailure" and "+" not in str(job.get("exec_host", "")) else ""
        return Status("ended", sentence, error, comment, node, failed_node=alone)
    signal = _signal(code)
    if _is_too_late(job):
        return Status("ended", EXITS[-29].sentence, EXITS[-29].error, comment, node, signal=signal)
    if str(job.get("substate", "")) == str(_DELETED) or code is None:
        return Status("ended", CANCELLED.sentence, CANCELLED.error, comment, node, signal=signal)
    if signal is not None:
        return Status("ended", how_it_ended(-signal), "WorkerLost", comment, node, signal=signal)
    return Status("ended", how_it_ended(code), "WorkerLost" if code else None, comment, node, exit_code=code)


def _signal(code: int | None) -> int | None:
    for base in _OF_SIGNALS:
        if code is not None and base < code <= base + _LAST_SIGNAL:
            return code - base
    return None


def _is_too_late(job: Mapping[str, Any]) -> bool:
    """Return True if a signal has ended a job that had used up its time."""
    asked = _seconds(_inside(job, "Resource_List", "walltime"))
    used = _seconds(_inside(job, "resources_used", "walltime"))
    return bool(asked and used and used >= asked) and str(job.get("Exit_status", "0")) not in ("0", "1")


def _inside(job: Mapping[str, Any], group: str, name: str) -> str:
    found = job.get(group)
    return str(found.get(name, "")) if isinstance(found, Mapping) else ""


def _seconds(text: str) -> int:
    """Return the seconds of "1:02:03"."""
    if not re.fullmatch(r"[\d:]+", text):
        return 0
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part or 0)
    return seconds
