"""Amounts and moments as people write them: "4GB", "90min", "1-12:00:00"."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime

__all__ = [
    "FILE_SIZES", "MEMORY", "SECONDS", "calls", "counted", "duration", "measured", "memory_size", "moment", "seconds",
    "size",
]  # fmt: skip


_DAY = 86400
_NAMES = {
    1: "s sec secs second seconds",
    60: "m min mins minute minutes",
    3600: "h hr hrs hour hours",
    _DAY: "d day days",
    7 * _DAY: "w week weeks",
    365 * _DAY: "y year years",
}
SECONDS = {name: size for size, names in _NAMES.items() for name in names.split()}


def _bytes(decimal: int) -> dict[str, int]:
    """Return the units of bytes; units without "i" count in powers of `decimal`."""
    return {"b": 1} | {
        f"{prefix}{unit}": (1024 if unit == "ib" else decimal) ** power
        for power, prefix in enumerate("kmgtp", 1)
        for unit in ("", "b", "ib")
    }


FILE_SIZES = _bytes(1000)  # as `ls` and the makers of disks count
MEMORY = _bytes(1024)  # as Slurm counts, where 4G and 4GB are 4 GiB, and as the makers of memory do

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*"
_PART = rf"{_NUMBER}([a-z]+)\s*"
# Compiled at first use, because every program imports this module.
_CLOCK = r"(?:([0-9]+)-)?([0-9]+):([0-5]?[0-9]):([0-5]?[0-9])"
_DAYS = r"([0-9]+)-([0-9]+)(?::([0-5]?[0-9]))?"


def measured(text: str, units: Mapping[str, int], unit: str = "") -> float:
    """Return the sum of the parts of a text such as "1h 30min", in the smallest unit; NaN for any other text.

    A number without a unit counts in `unit`; if there is no such unit, the result is NaN.
    """
    text = text.strip().lower()
    if re.fullmatch(_NUMBER, text):
        return float(text) * units.get(unit, math.nan)
    parts = re.findall(_PART, text) if re.fullmatch(f"(?:{_PART})+", text) else [("", "")]
    return sum(float(number) * units[name] if name in units else math.nan for number, name in parts)


def seconds(text: str) -> float:
    """Return the seconds of a text with units, or of a clock as Slurm reads it; NaN for any other text.

    "90:00" is refused: Slurm reads minutes and seconds, many people hours and minutes.
    """
    clock = re.fullmatch(_CLOCK, text.strip()) or re.fullmatch(_DAYS, text.strip())
    if clock is None:
        return measured(text, SECONDS)
    return sum(float(number) * size for number, size in zip(clock.groups("0"), (_DAY, 3600, 60, 1)))  # noqa: B905


_UNITS = ("B", "kB", "MB", "GB", "TB")


def counted(count: int, noun: str) -> str:
    """Return a number of things, as "1 core" or "2 cores"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def calls(count: int) -> str:
    return counted(count, "call")


def size(count: int | None) -> str:
    """Bytes, as "7.4 kB"."""
    if count is None:
        return ""
    amount, place = float(count), 0
    while amount >= 999.5 and place < len(_UNITS) - 1:
        amount, place = amount / 1000, place + 1
    return f"{amount:.3g} {_UNITS[place]}"


def memory_size(count: float) -> str:
    """Bytes of memory, as "2.1 GiB"."""
    amount, place = float(count), 0
    while amount >= 1000 and place < len(_UNITS) - 1:
        amount, place = amount / 1024, place + 1
    return f"{amount:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[place]}"


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


def moment(time: datetime) -> str:
    """Return a moment of the local time zone: its time, and the day unless that is today."""
    local = time.astimezone()
    same_day = local.date() == datetime.now(local.tzinfo).date()
    return local.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S")
