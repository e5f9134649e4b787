"""The words of the progress of calls: how many are in each state, and about how long the rest takes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..display.call_states import STATES, count_words
from ..events.call_record import CallState
from ..utils.quantities import calls, duration

__all__ = ["Estimate", "final_text", "final_title", "left_in_words", "progress_text", "unfinished"]

_BAR = 20  # characters
_OVER: tuple[CallState, ...] = ("finished", "failed")  # calls that have taken time


def unfinished(counts: Mapping[CallState, int]) -> int:
    """Return the number of calls that have not ended."""
    return counts.get("waiting", 0) + counts.get("running", 0)


class Estimate:
    """The time that is left, from the time that calls have taken so far; results from the cache took none.

    Only time with unfinished calls counts: an executor in a notebook may be idle for hours.
    """

    def __init__(self) -> None:
        self._busy = 0.0  # s
        self._before: tuple[float, bool] | None = None  # the last look, and whether calls were unfinished then

    def update(self, now: float, counts: Mapping[CallState, int]) -> float | None:
        """Take in the counts at a time (s); return the time that is left (s), None if nothing tells of it."""
        left = unfinished(counts)
        if self._before is not None and self._before[1]:
            self._busy += now - self._before[0]
        self._before = now, left > 0
        done = sum(counts.get(state, 0) for state in _OVER)
        return self._busy / done * left if done and left else None

    @property
    def busy(self) -> float:
        """The time with unfinished calls so far (s)."""
        return self._busy


def progress_text(counts: Mapping[CallState, int], left: float | None, width: int, bar: str = "#.") -> str:
    """Return a line of at most `width` characters, the most important first.

    Args:
        bar: the two characters of the bar.
    """
    total = sum(counts.values())
    done = total - unfinished(counts) - counts.get("cancelled", 0)
    cells = math.floor(_BAR * done / total) if total else 0
    shown = f"{bar[0] * cells}{bar[1] * (_BAR - cells)} " if width >= 100 else ""
    line = f"callyard {shown}{done:,} of {calls(total)} done"
    parts = [left_in_words(left)] if left is not None else []
    parts += [
        f"{counts[state]:,} {look.word}" for state, look in STATES.items() if state != "finished" and counts.get(state)
    ]
    for part in parts:
        if len(line) + len(part) + 2 > width:
            break
        line += f", {part}"
    return line[:width]


def left_in_words(seconds: float) -> str:
    """Return a time to wait, no more exact than it is known: "about 40 s left"."""
    if seconds < 10:
        rounded = math.ceil(seconds)
    elif seconds < 100:
        rounded = 10 * math.ceil(seconds / 10)
    else:
        rounded = 60 * math.ceil(seconds / 60)
    words = duration(max(1, rounded)).removesuffix(" 0 s").removesuffix(" 0 min").removesuffix(" 0 h")
    return f"about {words} left"


def final_title(counts: Mapping[CallState, int], seconds: float) -> str:
    """Return how many calls there were, and how long they took: "12 calls in 3 s"."""
    return f"{calls(sum(counts.values()))} in {duration(seconds)}"


def final_text(counts: Mapping[CallState, int], seconds: float) -> str:
    """Return the last line: what became of the calls."""
    return f"callyard: {final_title(counts, seconds)}: {count_words(counts)}"
