"""The states of Grid Engine's jobs, the failures in its accounting, and their meaning for a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ...system.exit_status import how_it_ended
from ..base import CANCELLED, Phase, Status

__all__ = ["FAILURES", "STATES", "JobFailure", "JobState", "history_of", "state_of"]


class JobState(NamedTuple):
    """A letter of a job's state in `qstat`, with a predicate for people, the job as its subject.

    `error` is the class of `callyard.errors` for a job that waits and can never run.
    """

    letter: str
    phase: Phase
    sentence: str
    error: str | None = None


class JobFailure(NamedTuple):
    """A number of `failed` in `qacct`; without an error the exit status decides."""

    code: int
    error: str | None
    sentence: str


# The first letter that is part of the state counts: "Eqw", "dr", "hqw", "Rr".
STATES = (
    JobState("E", "waiting", "failed to start and is held; `qstat -explain E -j` tells why", "SchedulerError"),
    JobState("d", "running", "is being deleted"),
    JobState("s", "running", "is suspended by its user"),
    JobState("S", "running", "is suspended with its queue"),
    JobState("T", "running", "is suspended, because its queue is overloaded"),
    JobState("N", "running", "is suspended, because it was preempted"),
    JobState("r", "running", "runs"),
    JobState("t", "running", "is being sent to its node"),
    JobState("h", "waiting", "waits for the jobs that it depends on, or is held"),
    JobState("R", "waiting", "waits to be started again"),
    JobState("w", "waiting", "waits for free slots"),
    JobState("q", "waiting", "waits for free slots"),
)
_NOT_STARTED = "could not be started on its node"
FAILURES = {
    each.code: each
    for each in (
        JobFailure(0, None, "ended by itself"),
        JobFailure(1, "NodeFailure", _NOT_STARTED),
        JobFailure(3, "NodeFailure", f"{_NOT_STARTED}, where its files could not be made"),
        JobFailure(4, "NodeFailure", f"{_NOT_STARTED}, where its process ID could not be written"),
        JobFailure(6, "NodeFailure", f"{_NOT_STARTED}, whose processors could not be set"),
        JobFailure(7, "NodeFailure", f"{_NOT_STARTED}, before the prolog"),
        JobFailure(8, "NodeFailure", f"{_NOT_STARTED}, whose prolog failed"),
        JobFailure(9, "NodeFailure", f"{_NOT_STARTED}, before its parallel environment"),
        JobFailure(10, "NodeFailure", f"{_NOT_STARTED}, whose parallel environment failed"),
        JobFailure(11, "NodeFailure", f"{_NOT_STARTED}, just before its script"),
        JobFailure(12, None, "ended, and its parallel environment could not be stopped"),
        JobFailure(13, None, "ended, and its parallel environment failed to stop"),
        JobFailure(14, None, "ended, before its epilog could run"),
        JobFailure(15, None, "ended, and its epilog failed"),
        JobFailure(16, None, "ended, and its processors could not be given back"),
        JobFailure(17, None, "was ended by a signal"),
        JobFailure(18, "NodeFailure", "was lost with the process that looks after it"),
        JobFailure(19, "NodeFailure", "was lost with its node, or with the process that looks after it"),
        JobFailure(20, None, "ended with trouble in the process that looks after it"),
        JobFailure(21, "NodeFailure", "was not known to its node any more"),
        JobFailure(24, "NodeFailure", "was to be moved to another node"),
        JobFailure(25, "NodeFailure", "was to be started again"),
        JobFailure(26, "SchedulerError", f"{_NOT_STARTED}, where its log could not be opened"),
        JobFailure(27, "SchedulerError", f"{_NOT_STARTED}, where there is no /bin/bash"),
        JobFailure(28, "SchedulerError", f"{_NOT_STARTED}, where its working directory is missing"),
        JobFailure(29, "NodeFailure", f"{_NOT_STARTED}, for want of access to AFS"),
        JobFailure(30, None, "ended with the exit code 100"),
        JobFailure(36, "NodeFailure", f"{_NOT_STARTED}, whose daemons are not set up"),
        JobFailure(37, "TimeLimitExceeded", "reached its time limit"),
        JobFailure(38, "NodeFailure", f"{_NOT_STARTED}, where its group could not be set"),
        JobFailure(100, None, "was killed, or lost with the process that looks after it"),
    )
}
_SIGNALLED, _LAST_SIGNAL = 128, 64
_NOTIFIED = (12, 15)  # SIGUSR2, by which `qdel` tells of the end, and SIGTERM, by which Callyard's job then ends
_UNITS = {"": 1, "k": 1000, "K": 1 << 10, "m": 10**6, "M": 1 << 20, "g": 10**9, "G": 1 << 30, "t": 10**12, "T": 1 << 40}


def state_of(letters: str, node: str) -> Status:
    """Return the meaning of a state; an unknown one counts as running, so that no job is given up too early."""
    state = next((each for each in STATES if each.letter in letters), None)
    if state is None:
        return Status("running", f"is in the state {letters}, which Callyard does not know", node=node)
    return Status(state.phase, state.sentence, state.error, letters if state.phase == "waiting" else "", node)


def history_of(record: Mapping[str, str]) -> Status:
    """Return the meaning of a record of `qacct`."""
    node, words = record.get("hostname", ""), record.get("failed", "0")
    code = int(re.match(r"\d*", words)[0] or 0)  # type: ignore[index]  # it matches anything
    failure = FAILURES.get(code, JobFailure(code, None, "failed"))
    status = int(re.match(r"\d*", record.get("exit_status", "0"))[0] or 0)  # type: ignore[index]
    signal = status - _SIGNALLED if _SIGNALLED < status <= _SIGNALLED + _LAST_SIGNAL else None
    reason = words.partition(":")[2].strip()
    if failure.error == "TimeLimitExceeded" or signal is not None:
        limit = _limit(record)
        if limit is not None or failure.error is not None:
            error, sentence = limit or (failure.error, failure.sentence)
            return Status("ended", sentence, error, reason, node, signal=signal)
    if failure.error is not None:
        lost = node if failure.error == "NodeFailure" else ""
        return Status("ended", f"{failure.sentence} ({reason})", failure.error, reason, node, failed_node=lost)
    if signal in _NOTIFIED:
        return Status("ended", CANCELLED.sentence, CANCELLED.error, reason, node, signal=signal)
    if signal is not None:
        return Status("ended", how_it_ended(-signal), "WorkerLost", reason, node, signal=signal)
    return Status("ended", how_it_ended(status), "WorkerLost" if status else None, reason, node, exit_code=status)


def _limit(record: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the error and sentence for a limit that the job had asked for and reached."""
    asked = dict(re.findall(r"\b(h_rt|h_vmem|h_rss)=([\w.]+)", record.get("category", "")))
    if "h_rt" in asked and _number(record.get("ru_wallclock", "")) >= _number(asked["h_rt"]):
        return "TimeLimitExceeded", "reached its time limit"
    memory = asked.get("h_vmem") or asked.get("h_rss")
    slots = _number(record.get("slots", "1")) or 1
    if memory and _number(record.get("maxvmem", "")) >= 0.9 * slots * _number(memory):  # it is looked at now and then
        return "OutOfMemory", "took more memory than it had asked for"
    return None


def _number(text: str) -> float:
    """Return an amount as Grid Engine writes it: "4s", "1.5G", "5.043MB"; 0 for no amount."""
    found = re.match(r"([\d.]+)([kKmMgGtT]?)", text)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0
