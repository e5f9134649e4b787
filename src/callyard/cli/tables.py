"""Tables, values and times for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = ["fitted", "room", "short", "table", "value", "when"]

_LEAST = 12  # characters that a column keeps which is made to fit


def when(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short(key: str) -> str:
    """The beginning of a key that is a digest; one that a user chose is shown as it is."""
    return key[:12] if len(key) == 40 and not set(key) - set("0123456789abcdef") else key


def value(thing: Any, most: int = 2000) -> str:
    """A value as Python would write it, cut where that is long."""
    import reprlib  # here, because it is rarely needed

    form = reprlib.Repr()
    form.maxlevel = 4
    form.maxdict = form.maxlist = form.maxtuple = form.maxset = form.maxfrozenset = form.maxdeque = 20
    form.maxstring = form.maxlong = form.maxother = most
    return form.repr(thing)


def room() -> int | None:
    """Characters in a line of the terminal; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str], elastic: str) -> str:
    """Aligned columns; those named in `right` to the right. `elastic` is cut where the terminal is too narrow."""
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


def _cell(text: str, width: int, right: bool) -> str:
    text = fitted(text, width)
    return text.rjust(width) if right else text.ljust(width)


def fitted(text: str, width: int | None) -> str:
    """One line of at most so many characters."""
    text = " ".join(text.split())
    return text if width is None or len(text) <= width else text[: width - 3] + "..."
