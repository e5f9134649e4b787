"""Show one call: its function, its arguments, its result, and where and how it ran; for a job, how far it has come.

Arguments and result are loaded for this, which may run code of their classes. Those of a call that has not finished
are not shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from ..cache.entry import Entry
from ..errors import CacheError
from ..jobs.list_job_calls import JobCallStatus, find_job_calls
from ..result_cache import Cache
from ..utils import quantities
from . import tables
from .arguments import add_json, add_place, call_of, open_cache, print_json, split
from .list_calls import Row, row_of, row_of_job, rows_of_claims

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--source", action="store_true", help="show the text of the function too")
    add_json(parser, "an object; values are as Python writes them")
    add_place(parser, "KEY", ", and the beginning of the key")


def run(options: argparse.Namespace) -> int:
    """Print the entry, or the state of the job."""
    directory, (beginning,) = split(options, 1)
    cache = open_cache(options, directory)
    running = _running(cache, beginning)
    if running is not None:
        print_json(running) if options.json else print("\n".join(_aligned(_rows_of_running(running))))
        return 0
    call = call_of(cache, beginning)
    if isinstance(call, JobCallStatus):
        shown = _job_as_object(call) if options.json else _aligned(_rows_of_job(call))
    else:
        shown = _as_object(call) if options.json else _as_text(call, options.source)
    print_json(shown) if options.json else print("\n".join(shown))
    return 0


def _running(cache: Cache, beginning: str) -> Row | None:
    """Return the fields of a call that a process runs, or did when it ended; None for a stored call, or a job."""
    if find_job_calls(cache._directory, beginning):
        return None
    key = cache.find_key(beginning)
    return None if key in cache else next((row for row in rows_of_claims(cache) if row["key"] == key), None)


def _rows_of_running(row: Row) -> Iterator[tuple[str, str]]:
    yield from ((name, str(row[name])) for name in ("key", "function", "state"))
    yield "began", tables.when(datetime.fromisoformat(row["created"]))
    yield "took", quantities.duration(row["seconds"]) if row["seconds"] is not None else ""
    yield "where", row["where"]


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
        "job": entry.facts.get("job"),
        "versions": entry.versions,
        "ingredients": entry.ingredients,
        "source": entry.source,
    }


def _job_as_object(call: JobCallStatus) -> dict[str, Any]:
    error, trace = call.error or (None, None)
    return row_of_job(call) | {
        "submitted": call.submitted,
        "job": call.job,
        "node": call.node or None,
        "inputs": _inputs(call),
        "resources": call.folder.batch.resources,
        "error": error and repr(error),
        "traceback": trace,
        "log": call.folder.log(call.number),
    }


def _inputs(call: JobCallStatus) -> list[str]:
    """Return the names of the calls whose results this one takes."""
    packed = call.call_file
    return [] if packed is None else [given.name for given in packed.inputs]


def _aligned(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, shown in rows:
        first, *others = shown.splitlines() or [""]
        if shown:
            yield f"{name:10} {first}"
        yield from (" " * 11 + line for line in others)


def _as_text(entry: Entry, source: bool) -> Iterator[str]:
    yield from _aligned(_rows(entry))
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
    yield "job", str(entry.facts.get("job") or "")
    yield "resources", ", ".join(f"{name}={value}" for name, value in entry.resources.items())
    yield "versions", ", ".join(f"{name} {value}" for name, value in entry.versions.items())
    yield "file", f"{entry.path} ({quantities.size(entry.size)})"
    yield "arguments", _loaded(lambda: _call(entry))
    if entry.state == "failed":
        yield "error", _loaded(lambda: tables.value(entry.error))
        yield "traceback", _loaded(lambda: entry.traceback)
    else:
        yield "output", _loaded(lambda: tables.value(entry.output))


def _rows_of_job(call: JobCallStatus) -> Iterator[tuple[str, str]]:
    row, resources = row_of_job(call), call.folder.batch.resources
    yield "key", call.known_as
    yield "function", call.name
    yield "state", call.state
    yield "submitted", tables.when(datetime.fromtimestamp(call.submitted, timezone.utc))
    yield "began", tables.when(datetime.fromisoformat(row["created"])) if row["created"] else ""
    yield "took", quantities.duration(row["seconds"]) if row["seconds"] is not None else ""
    yield "job", call.job or ""
    yield "node", call.node
    yield "resources", ", ".join(f"{name}={value}" for name, value in resources.items())
    yield "inputs", ", ".join(_inputs(call))
    yield "log", call.folder.log(call.number) if call.began is not None else ""
    ended = call.error  # read from its file at each look
    if ended is not None:
        error, trace = ended
        yield "error", tables.value(error)
        yield "traceback", trace


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
