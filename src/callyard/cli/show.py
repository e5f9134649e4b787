"""Show one call: its function, its arguments, its result, and where and how it ran.

Arguments and result are loaded for this, which may run code of their classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from ..cache.entry import Entry
from ..errors import CacheError
from ..utils import quantities
from . import tables
from .arguments import add_json, add_place, find_entry, print_json
from .list_calls import row_of

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--source", action="store_true", help="show the text of the function too")
    add_json(parser, "an object; values are as Python writes them")
    add_place(parser, "KEY", ", and the beginning of the key")


def run(options: argparse.Namespace) -> int:
    """Print the entry."""
    entry: Entry = find_entry(options)
    if options.json:
        print_json(_as_object(entry))
    else:
        print("\n".join(_as_text(entry, options.source)))
    return 0


def _as_object(entry: Entry) -> dict[str, Any]:
    failed = entry.state == "failed"
    return row_of(entry) | {
        "args": _loaded(lambda: [repr(arg) for arg in entry.args]),
        "kwargs": _loaded(lambda: {name: repr(arg) for name, arg in entry.kwargs.items()}),
        "output": None if failed else _loaded(lambda: repr(entry.output)),
        "error": _loaded(lambda: repr(entry.error)) if failed else None,
        "traceback": _loaded(lambda: entry.traceback),
        "resources": entry.resources,
        "host": entry.host,
        "versions": entry.versions,
        "ingredients": entry.ingredients,
        "source": entry.source,
    }


def _as_text(entry: Entry, source: bool) -> Iterator[str]:
    rows = [(name, shown) for name, shown in _rows(entry) if shown]
    for name, shown in rows:
        first, *others = shown.splitlines()
        yield f"{name:10} {first}"
        yield from (" " * 11 + line for line in others)
    if source:
        yield ""
        yield entry.source.rstrip() or "the text of the function is not known"


def _rows(entry: Entry) -> Iterator[tuple[str, str]]:
    yield "key", entry.key
    yield "function", entry.function
    yield "state", entry.state
    yield "began", tables.when(entry.created)
    yield "took", quantities.duration(entry.seconds)
    yield "host", _host(entry)
    yield "resources", ", ".join(f"{name}={value}" for name, value in entry.resources.items())
    yield "versions", ", ".join(f"{name} {value}" for name, value in entry.versions.items())
    yield "file", f"{entry.path} ({quantities.size(entry.size)})"
    yield "arguments", _loaded(lambda: _call(entry))
    if entry.state == "failed":
        yield "error", _loaded(lambda: tables.value(entry.error))
        yield "traceback", _loaded(lambda: entry.traceback)
    else:
        yield "output", _loaded(lambda: tables.value(entry.output))


def _host(entry: Entry) -> str:
    process = entry.facts.get("pid")
    return f"{entry.host}, process {process}" if process else entry.host or ""


def _call(entry: Entry) -> str:
    named = (f"{name}={tables.value(arg)}" for name, arg in entry.kwargs.items())
    return "\n".join([*(tables.value(arg) for arg in entry.args), *named])


def _loaded(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except CacheError as error:
        return f"<{error}>"
