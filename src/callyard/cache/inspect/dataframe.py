"""The entries of a cache as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...errors import CacheError
from ..entry import Entry

__all__ = ["arguments", "dataframe"]

_COLUMNS = ("key", "function", "state", "created", "seconds", "size", "host", "arguments")
_VALUES = ("args", "kwargs", "output", "error")


def dataframe(entries: Iterable[Entry], values: bool) -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise CacheError("to_dataframe needs pandas: pip install pandas") from None
    names = [*_COLUMNS, *(_VALUES if values else ())]
    rows = [[_cell(entry, name) for name in names] for entry in entries]
    table = pd.DataFrame(rows, columns=names)
    table["created"] = pd.to_datetime(table["created"], unit="s", utc=True)
    return table


def _cell(entry: Entry, name: str) -> Any:
    if name == "created":
        return entry.created.timestamp()
    if name == "arguments":
        return arguments(entry)
    return getattr(entry, name)


def arguments(entry: Entry) -> str:
    """Return a text of the arguments, by the names of the parameters; no values are loaded."""
    prefix = "argument "
    looks = ((label[len(prefix) :], look) for label, look in entry.ingredients.items() if label.startswith(prefix))
    return ", ".join(f"{name}={look.partition(' ')[2]}" for name, look in looks)
