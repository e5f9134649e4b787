"""The entries of a cache as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...errors import CacheError
from ..entry import Entry

__all__ = ["dataframe"]

_COLUMNS = ("key", "function", "state", "created", "seconds", "size", "host", "arguments", "inputs", "failure")
_USED = ("cpu", "peak_memory")
_VALUES = ("args", "kwargs", "output", "error")


def dataframe(entries: Iterable[Entry], values: bool) -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise CacheError("to_dataframe needs pandas: pip install pandas") from None
    names = [*_COLUMNS, *_USED, *(_VALUES if values else ())]
    rows = [[_cell(entry, name) for name in names] for entry in entries]
    table = pd.DataFrame(rows, columns=names)
    table["created"] = pd.to_datetime(table["created"], unit="s", utc=True)
    return table


def _cell(entry: Entry, name: str) -> Any:
    if name == "created":
        return entry.created.timestamp()
    if name == "inputs":
        return tuple(entry.inputs)
    if name == "failure":
        failure = entry.failure
        return None if failure is None else f"{failure.error}: {failure.message}"
    return getattr(entry.usage, name, None) if name in _USED else getattr(entry, name)
