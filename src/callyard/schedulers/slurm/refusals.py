"""Refusals of Slurm: the reason why a command failed, from its words."""

from __future__ import annotations

import dataclasses
import re

from ..base import Refusal
from ..command import Reply
from .job_ids import unique
from .states import reason_of

__all__ = ["is_full", "refusal", "why_absent", "why_refused"]

# In lower case. The first are transient by nature: the queue is full, the user has too many jobs, submitting is off.
_FULL = (
    "resource temporarily unavailable",  # how sbatch puts MaxJobCount after two minutes of trying
    "slurm temporarily unable to accept job",
    "job queue full",
    "unable to create job record, try again",
    "submitjob",  # QOSMaxSubmitJobPerUserLimit, AssocGrpSubmitJobsLimit, ...
    "job violates accounting/qos policy",
)
_LIMITS = (
    *_FULL,
    "job creation temporarily disabled",
    "system submissions disabled",
    "submissions disabled",
    "rate limit exceeded",
)
_SILENT = (
    "unable to contact slurm controller",
    "timed out",
    "connection refused",
    "connection reset",
    "communication connection failure",
    "communication shutdown failure",
    "message send failure",
    "message receive failure",
    "zero bytes were transmitted or received",
    "transport endpoint is not connected",
    "header lengths are longer than data received",
    "standby mode",
    "munge",  # restarted together with the controller's machine
    "no route to host",
    "network is unreachable",
)
# The words of a client without a configuration. It looks for a file, then asks the DNS.
_NOT_CONFIGURED = (
    "could not establish a configuration source",
    "unable to process configuration file",
    "no slurmctldhost defined",
    "cannot stat file",  # after trying for a minute
    "unable to status file",  # the same until 20.02
)
_DNS_IS_SILENT = "host name lookup failure"
_LARGE = (
    "requested node configuration is not available",
    "memory specification can not be satisfied",
    "node count specification invalid",
    "more processors requested than permitted",
    "requested time limit is invalid",
)
_HINTS = {
    "invalid --nice value": "only Slurm's operators may use a priority above 0; give other calls one below 0 instead",
}
_NO_COMMAND = 127  # the code of `Reply` for a missing command
_PREFIX = re.compile(r"^\w+: (?:error|fatal|warning|info): ")


def why_refused(reply: Reply) -> Refusal:
    """Return the reason why a command did not succeed, missing Slurm included."""
    absent = why_absent(reply)
    if absent is not None:
        return Refusal("mistake", absent[1], absent=absent[0])
    found = refusal(reply)
    large = found.kind == "mistake" and any(text in found.words.lower() for text in _LARGE)
    return dataclasses.replace(found, full=is_full(found), large=large)


def refusal(reply: Reply) -> Refusal:
    """Return the reason why `sbatch` (or another of Slurm's commands) failed, where Slurm is present."""
    words = "; ".join(unique(_cleaned(reply.err) or _cleaned(reply.out)))
    lower = words.lower()
    if reply.code is None:
        return Refusal("silent", f"no answer in time{words and ': ' + words}")
    if _was_killed(reply.code):
        return Refusal("silent", f"it was killed before it had answered{words and ': ' + words}")
    if any(text in lower for text in _SILENT):
        return Refusal("silent", words)
    if any(text in lower for text in _LIMITS) and not _never(words):
        return Refusal("limit", words)
    hints = [hint for text, hint in _HINTS.items() if text in lower]
    return Refusal("mistake", "; ".join([words or f"exit code {reply.code} without a word", *hints]))


def why_absent(reply: Reply) -> tuple[str, str] | None:
    """Return a sentence on missing Slurm, and advice; None if Slurm is present, even if it is silent."""
    lines = [line.strip() for line in reply.err.splitlines() if line.strip()]
    lower = reply.err.lower()
    if reply.code == _NO_COMMAND:
        return "Slurm is not installed here", "; ".join(lines)
    if reply.code == 0 or any(text in lower for text in (*_SILENT, _DNS_IS_SILENT)):
        return None
    if any(text in lower for text in _NOT_CONFIGURED):
        why = lines[-1].replace(": fatal: ", ": ").replace(": error: ", ": ")
        return f"no Slurm cluster is configured here ({why})", "set SLURM_CONF, or go to a login node of the cluster"
    return None


def is_full(refusal: Refusal) -> bool:
    """Return True for a limit on the number of jobs, also if the command tried until its time was up."""
    return refusal.kind != "mistake" and any(text in refusal.words.lower() for text in _FULL)


def _was_killed(code: int) -> bool:
    """Return True if a signal ended the command, or a wrapper around it, by the exit code of a shell."""
    return code < 0 or 128 < code <= 128 + 64


def _cleaned(text: str) -> list[str]:
    lines = (_PREFIX.sub("", line).removeprefix("Batch job submission failed: ").strip() for line in text.splitlines())
    return [line for line in lines if line]


def _never(words: str) -> bool:
    """Return True for a limit that the job alone exceeds: to wait for other jobs does not help."""
    return any(reason_of(word).hopeless for word in re.findall(r"\w+", words))
