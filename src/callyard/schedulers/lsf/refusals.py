"""Refusals of LSF: the reason why a command failed, from its words."""

from __future__ import annotations

import re

from ..command import Reply
from ..refusal_words import RefusalWords

__all__ = ["WORDS", "had_ended"]

WORDS = RefusalWords(
    scheduler="LSF",
    not_configured=("cannot open lsf.conf", "lsf.conf file", "lsf_envdir"),
    silent=(
        "lsf is down",
        "lsf is processing your request",
        "batch system is down",
        "cannot connect to lsf",
        "failed in an lsf library call",
        "lim is down",
        "communication time out",
        "connection refused",
        "timed out",
        "mbatchd",
        "slave lim configuration is not ready",
    ),
    full=(
        "job limit",
        "pending job threshold",
        "pending slot threshold",
        "maximum number of pending jobs",
        "user has reached the pending",
    ),
    limits=("queue has been closed", "queue is closed", "queue is not accepting jobs"),
    large=(
        "cannot exceed queue's hard limit",
        "too many processors requested",
        "resource requirement cannot be satisfied",
        "exceeds the limit",
        "job array index too large",
        "no user host",
    ),
    prefix=re.compile(r"Job not submitted\.?|Request aborted by esub\.?"),
    hints={"bad resource requirement": "look at constraint=, which is the text of select[]"},
)
_IS_OVER = re.compile(r"already finished|no matching job found|is not found|is being terminated", re.IGNORECASE)


def had_ended(reply: Reply) -> bool:
    """Return True if all that `bkill` complains about is that jobs have ended or are unknown."""
    lines = [line for line in (*reply.err.splitlines(), *reply.out.splitlines()) if line.strip()]
    return reply.code is not None and bool(lines) and all(_IS_OVER.search(line) for line in lines)
