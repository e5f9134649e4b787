"""Sizes and durations for people."""

from __future__ import annotations

__all__ = ["calls", "duration", "size"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def calls(count: int) -> str:
    return f"{count:,} call" if count == 1 else f"{count:,} calls"


def size(count: int | None) -> str:
    """Bytes, as "7.4 kB"."""
    if count is None:
        return ""
    amount, place = float(count), 0
    while amount >= 999.5 and place < len(_UNITS) - 1:
        amount, place = amount / 1000, place + 1
    return f"{amount:.3g} {_UNITS[place]}"


def duration(seconds: float) -> str:
    """Seconds, as "39 us", "1.25 s" or "2 h 5 min"."""
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 999.5:
            return f"{seconds * scale:.3g} {unit}"
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
