"""Futures: the results of calls that may not have ended yet, and futures of parts and tuples of such results."""

from __future__ import annotations

from .derived import batched, item, part_of, unzip, whole_of
from .future import Future
from .lazy import Lazy
from .waiting import before_sleep, ends_futures, when_ended

__all__ = [
    "Future",
    "Lazy",
    "batched",
    "before_sleep",
    "ends_futures",
    "item",
    "part_of",
    "unzip",
    "when_ended",
    "whole_of",
]
