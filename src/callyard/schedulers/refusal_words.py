"""Tables of the words with which a scheduler refuses a command, and the reading of a failed reply by such a table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from .base import Refusal
from .command import Reply

__all__ = ["RefusalWords"]

_NO_COMMAND = 127  # the code of `Reply` for a missing command
_LAST_SIGNAL = 64


@dataclasses.dataclass(frozen=True)
class RefusalWords:
    """The words of one scheduler, in lower case; the first kind with a word in the reply counts.

    Attributes:
        scheduler: the scheduler's name, for people.
        not_configured: words of commands on a machine that belongs to no cluster.
        silent: words of commands without an answer from the scheduler.
        full: words about a limit on the number of jobs.
        limits: words about another condition that passes.
        large: words about a request beyond all nodes or queues.
        hints: advice by words.
        prefix: the beginning of lines, and whole lines, that say nothing.
    """

    scheduler: str
    not_configured: tuple[str, ...]
    silent: tuple[str, ...]
    full: tuple[str, ...]
    limits: tuple[str, ...]
    large: tuple[str, ...]
    prefix: re.Pattern[str]
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def why_refused(self, reply: Reply) -> Refusal:
        """Return the reason for a failed command, a missing scheduler included."""
        words = "; ".join(self._lines(reply.err) or self._lines(reply.out))
        lower = words.lower()
        if reply.code == _NO_COMMAND:
            return Refusal("mistake", words, absent=f"{self.scheduler} is not installed here")
        if _any(self.not_configured, lower):
            absent = f"no {self.scheduler} cluster is configured here ({words})"
            return Refusal("mistake", "go to a login node of the cluster", absent=absent)
        full = _any(self.full, lower)
        if reply.code is None:
            return Refusal("silent", f"no answer in time{words and ': ' + words}", full=full)
        if reply.code < 0 or (128 < reply.code <= 128 + _LAST_SIGNAL and not words):
            return Refusal("silent", f"it was killed before it had answered{words and ': ' + words}", full=full)
        if _any(self.silent, lower):
            return Refusal("silent", words, full=full)
        if full or _any(self.limits, lower):
            return Refusal("limit", words, full=full)
        hints = [hint for text, hint in self.hints.items() if text in lower]
        said = words or f"exit code {reply.code} without a word"
        return Refusal("mistake", "; ".join([said, *hints]), large=_any(self.large, lower))

    def _lines(self, text: str) -> list[str]:
        lines = (self.prefix.sub("", line).strip() for line in text.splitlines())
        return list(dict.fromkeys(line for line in lines if line))


def _any(texts: tuple[str, ...], words: str) -> bool:
    return any(text in words for text in texts)
