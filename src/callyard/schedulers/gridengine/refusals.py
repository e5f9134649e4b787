"""Refusals of Grid Engine: the reason why a command failed, from its words."""

from __future__ import annotations

import re

from ..command import Reply
from ..refusal_words import RefusalWords

__all__ = ["WORDS", "had_ended"]

WORDS = RefusalWords(
    scheduler="Grid Engine",
    not_configured=("unable to read qmaster name", "sge_root", "cell directory"),
    silent=(
        "unable to send message to qmaster",
        "unable to contact qmaster",
        "commlib error",
        "failed receiving gdi request",
        "got no response",
        "got send error",
        "timed out",
        "timeout",
        "qmaster is not running",
    ),
    full=("jobs are allowed per user", "jobs are allowed per cluster"),
    limits=("job submission is temporarily disabled",),
    large=("no suitable queues", "you tried to submit a job with more than"),
    prefix=re.compile(r"^Exiting\.$|^(?:Unable to run job: |error: |denied: |job rejected: |qsub: |warning: )+"),
    hints={
        "priority requires": "only operators may use a priority above 0; give other calls one below 0 instead",
        "positive submission priority": "give other calls a priority below 0 instead",
        "no suitable queues": "no queue could ever run it; `qconf -spl` and `qconf -sc` list what there is to ask for",
    },
)
_IS_OVER = re.compile(r"does not exist|already in deletion|has deleted|has registered|no such job", re.IGNORECASE)


def had_ended(reply: Reply) -> bool:
    """Return True if all that `qdel` complains about is that jobs are gone or being deleted."""
    lines = [line for line in (*reply.out.splitlines(), *reply.err.splitlines()) if line.strip()]
    return reply.code is not None and bool(lines) and all(_IS_OVER.search(line) for line in lines)
