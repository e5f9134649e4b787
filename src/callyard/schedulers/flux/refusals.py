"""Refusals of Flux: the reason why a command did not succeed, from its words."""

from __future__ import annotations

import re

from ..base import Refusal
from ..command import Reply

__all__ = ["why_refused"]

# In lower case. The broker is away, or one of its modules is being loaded.
_SILENT = (
    "unable to connect to flux",
    "flux_open",
    "connection refused",
    "connection reset",
    "broken pipe",
    "no route to host",
    "timed out",
    "no service matching",
    "function not implemented",
    "jobs were taken",  # and the others not: which, is looked up
)
_FULL = ("max active jobs limit", "max running jobs limit", "too many active jobs")
_LIMITS = (*_FULL, "job submission is disabled", re.compile(r"job submission to \S+ is disabled"))
_LARGE = ("exceeds policy limit", "unsatisfiable")
_HINTS = {"urgency": "only the owner of the instance may use a priority above 0; give other calls one below 0 instead"}
_NO_COMMAND = 127  # the code of `Reply` for a missing command
_PREFIX = re.compile(r"^(?:flux-\w+: (?:ERROR: )?|flux: |\[Errno \d+\] )+")


def why_refused(reply: Reply) -> Refusal:
    """Return the reason why a command did not succeed, a missing Flux included."""
    words = "; ".join(_cleaned(reply.err) or _cleaned(reply.out))
    lower = words.lower()
    if reply.code == _NO_COMMAND:
        return Refusal("mistake", words, absent="Flux is not installed here")
    if "names no other instance" in lower:
        return Refusal(
            "mistake", "go to a login node of the cluster, or start an instance (flux start)",
            absent=f"no instance of Flux runs here ({words})",
        )  # fmt: skip
    full = _names(lower, _FULL)
    if reply.code is None:
        return Refusal("silent", f"no answer in time{words and ': ' + words}", full=full)
    if reply.code < 0 or 128 < reply.code <= 128 + 64:
        return Refusal("silent", f"it was killed before it had answered{words and ': ' + words}", full=full)
    if _names(lower, _SILENT):
        return Refusal("silent", words, full=full)
    if _names(lower, _LIMITS):
        return Refusal("limit", words, full=full)
    hints = [hint for text, hint in _HINTS.items() if text in lower]
    words = "; ".join([words or f"exit code {reply.code} without a word", *hints])
    return Refusal("mistake", words, large=_names(lower, _LARGE))


def _names(words: str, texts: tuple[str | re.Pattern[str], ...]) -> bool:
    return any(text in words if isinstance(text, str) else text.search(words) for text in texts)


def _cleaned(text: str) -> list[str]:
    lines = (_PREFIX.sub("", line).strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))
