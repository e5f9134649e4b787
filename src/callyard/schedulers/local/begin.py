"""The earliest start of a job, from the words of the resource `begin`."""

from __future__ import annotations

import datetime as dt
import re

from ...errors import ResourceError

__all__ = ["begin_time"]

_UNITS = {"": 1, "second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_NOW = re.compile(r"now(?:\s*\+\s*(\d+)\s*([a-z]*?)s?)?")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")


def begin_time(text: str, now: dt.datetime) -> dt.datetime:
    """Return the time of a text, both in the time zone of this machine.

    Raises:
        ResourceError: the text is one that only Slurm reads.
    """
    words = text.strip().lower()
    after, clock = _NOW.fullmatch(words), _CLOCK.fullmatch(words)
    try:
        if after and (after[2] or "") in _UNITS:
            return now + dt.timedelta(seconds=int(after[1] or 0) * _UNITS[after[2] or ""])
        if clock:
            today = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3] or 0), microsecond=0)
            return today if today >= now else today + dt.timedelta(days=1)
        return dt.datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ResourceError(
            f'begin={text!r} is not read on a machine without a scheduler: say "now+2hours", "16:00", '
            '"2030-01-31T12:00", or pass a datetime'
        ) from None
