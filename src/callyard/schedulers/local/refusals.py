"""Refusals of the daemon: the reason why it did not carry out a command."""

from __future__ import annotations

from ..base import Refusal
from ..command import Reply

__all__ = ["NOT_NOW", "why_refused"]

NOT_NOW = 75  # exit status of a command worth trying again later, as in sysexits.h
_NO_COMMAND = (126, 127)  # codes of `Reply` where no daemon can be started


def why_refused(reply: Reply) -> Refusal:
    """Return the reason why a command did not succeed."""
    words = reply.err.strip() or "without a word"
    if reply.code in _NO_COMMAND:
        return Refusal("mistake", words, absent="this machine has no daemon for detached calls")
    if reply.code is None or reply.code < 0:
        return Refusal("silent", words)
    return Refusal("limit" if reply.code == NOT_NOW else "mistake", words)
