"""Tables, values and times for people."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..status.executor_status import short_key as short
from ..utils import quantities
from ..utils.shown_text import one_line

__all__ = ["by_function", "fitted", "room", "short", "table", "total", "value", "when"]

_LEAST = 12  # the least characters of a shortened column


def when(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def value(thing: Any, most: int = 2000) -> str:
    """Return the `repr` of a value, shortened if it is long."""
    import reprlib  # here, because few commands need it

    form = reprlib.Repr()
    form.maxlevel = 4
    form.maxdict = form.maxlist = form.maxtuple = form.maxset = form.maxfrozenset = form.maxdeque = 20
    form.maxstring = form.maxlong = form.maxother = most
    return form.repr(thing)


def room() -> int | None:
    """Return the characters in a line of the terminal; None if the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str], elastic: str) -> str:
    """Return aligned columns, those in `right` to the right; on a narrow terminal the column `elastic` is cut."""
    rows = [[one_line(text) for text in row] for row in rows]
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    place, most = head.index(elastic), room()
    if most is not None:
        others = sum(widths) - widths[place] + 2 * (len(widths) - 1)
        widths[place] = min(widths[place], max(most - others, _LEAST))
    lines = []
    for row in (head, *rows):
        cells = [_cell(text, width, name in right) for text, width, name in zip(row, widths, head, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def by_function(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the calls of each function: how many, their size together, the first and last begin."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["function"], []).append(row)
    lines = [(name, f"{len(calls):,}", _size(calls), *_span(calls)) for name, calls in sorted(groups.items())]
    return table(("FUNCTION", "CALLS", "SIZE", "FIRST", "LAST"), lines, frozenset(("CALLS", "SIZE")), "FUNCTION")


def _size(rows: Sequence[Mapping[str, Any]]) -> str:
    return quantities.size(sum(row["size"] or 0 for row in rows))


def _span(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the first and the last begin of calls; two empty texts if none has begun."""
    begun = sorted(datetime.fromisoformat(row["created"]) for row in rows if row["created"])
    return (when(begun[0]), when(begun[-1])) if begun else ("", "")


def total(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the number of calls in each state and their size, as "3 calls: 2 finished, 1 running; 14.8 kB"."""
    states = Counter(row["state"] for row in rows)
    parts = ", ".join(f"{count:,} {state}" for state, count in states.items())
    stored = any(row["size"] is not None for row in rows)
    return f"{quantities.calls(len(rows))}: {parts}" + (f"; {_size(rows)}" if stored else "")


def _cell(text: str, width: int, right: bool) -> str:
    text = fitted(text, width)
    return text.rjust(width) if right else text.ljust(width)


def fitted(text: str, width: int | None) -> str:
    """Return a text as one line of at most `width` characters."""
    return one_line(text, width)
