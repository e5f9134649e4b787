"""Refusals of PBS: the reason why a command failed, from its words."""

from __future__ import annotations

import re

from ..command import Reply
from ..refusal_words import RefusalWords

__all__ = ["WORDS", "had_ended"]

WORDS = RefusalWords(
    scheduler="PBS",
    not_configured=("no server specified", "no default server", "cannot open configuration file", "pbs.conf"),
    silent=(
        "cannot connect to server",
        "could not connect to",
        "connection refused",
        "connection reset",
        "communication failure",
        "no free connections",
        "server connection table full",
        "server shutting down",
        "batch protocol error",
        "end of file",
        "pbs_iff",
        "timed out",
        "timeout",
    ),
    full=(
        "maximum number of jobs",
        "per-user limit",
        "per-group limit",
        "per-project limit",
        "would exceed limit on resource",
    ),
    limits=("queue is not enabled", "resource temporarily unavailable", "'s limit on resource"),
    large=(
        "job violates queue and/or server resource limits",
        "job exceeds queue and/or server resource limits",
        "resource limit exceeds allowable",
        "array job exceeds server or queue size limit",
    ),
    prefix=re.compile(r"^(?:qsub|qstat|qdel|qmgr): (?:Error: )?"),
)
_IS_OVER = re.compile(
    r"unknown job id|job has finished|finished array subjob|delete already in progress", re.IGNORECASE
)


def had_ended(reply: Reply) -> bool:
    """Return True if all that `qdel` complains about is that jobs have ended or are unknown."""
    lines = [line for line in reply.err.splitlines() if line.strip()]
    return reply.code is not None and bool(lines) and all(_IS_OVER.search(line) for line in lines)
