"""Lists of hosts and of numbers as schedulers write them: "c[1-2,05-06],login" and "0-3,7"."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

__all__ = ["expand", "numbers"]


def expand(hostlist: str) -> list[str]:
    """Return the names in "c[1-2,05-06],login,r[1-2]n[0-1]"."""
    return [name for part in _split(hostlist) for name in _names(part)]


def numbers(ranges: str) -> list[int]:
    """Return the numbers in "0-3,7"."""
    return [int(number) for number in _numbers(ranges)]


def _split(hostlist: str) -> list[str]:
    """Split at commas outside of brackets."""
    return [part for part in re.split(r",(?![^\[]*\])", hostlist) if part]


def _names(part: str) -> Iterator[str]:
    pieces = [
        list(_numbers(piece[1:-1])) if piece[0] == "[" else [piece] for piece in re.findall(r"\[[^\]]*\]|[^\[]+", part)
    ]
    return map("".join, itertools.product(*pieces))


def _numbers(ranges: str) -> Iterator[str]:
    for each in filter(None, ranges.split(",")):
        low, _, high = each.partition("-")
        yield from (str(number).zfill(len(low)) for number in range(int(low), int(high or low) + 1))
