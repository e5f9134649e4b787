"""Show one call: its function, its arguments, its result, and where and how it ran; for a job, how far it has come.

Arguments and result are loaded for this, which may run code of their classes. Of a call that has not finished, the
arguments are shown in words.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from ..cache.entry import Entry
from ..errors import CacheError
from ..events.event import Failure
from ..jobs.list_job_calls import JobCallStatus, find_job_calls
from ..result_cache import Cache
from ..utils import quantities
from ..utils.error_words import error_words
from ..utils.shown_text import visible
from . import tables
from .arguments import add_json, add_place, call_of, open_cache, print_json, split
from .list_calls import Row, row_of, row_of_job, rows_of_claims
from .upstream import as_tree, upstream

__all__ = ["configure", "run"]

_LINES = 10  # of the output, at most


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--source", action="store_true", help="show the text of the function too")
    parser.add_argument("--upstream", action="store_true", help="show the calls whose results it took, and theirs")
    add_json(parser, "an object; values are as Python writes them")
    add_place(parser, "KEY", ", and the beginning of the key")


def run(options: argparse.Namespace) -> int:
    """Print the entry, or the state of the job."""
    directory, (beginning,) = split(options, 1)
    cache = open_cache(options, directory)
    if options.upstream:
        found = upstream(cache, beginning)
        print_json([call._asdict() for call in found]) if options.json else print("\n".join(as_tree(found)))
        return 0
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
    if cache._directory.exists(key):
        return None
    row = next((row for row in rows_of_claims(cache) if row["key"] == key), None)
    return None if row is not None and row["state"] == "gone" and key in cache else row


def _rows_of_running(row: Row) -> Iterator[tuple[str, str]]:
    yield from ((name, str(row[name])) for name in ("key", "function", "state"))
    yield "began", tables.when(datetime.fromisoformat(row["created"]))
    yield "took", quantities.duration(row["seconds"]) if row["seconds"] is not None else ""
    yield "where", row["where"]
    yield "arguments", row["arguments"]


def _as_object(entry: Entry) -> dict[str, Any]:
    failed = entry.state == "failed"
    return row_of(entry) | {
        "args": _loaded(lambda: [repr(arg) for arg in entry.args]),
        "kwargs": _loaded(lambda: {name: repr(arg) for name, arg in entry.kwargs.items()}),
        "output": None if failed else _loaded(lambda: repr(entry.output)),
        "error": _loaded(lambda: repr(entry.error)) if failed else None,
        "failure": entry.failure and _told(entry.failure),
        "traceback": entry.traceback,
        "arguments": entry.arguments,
        "inputs": entry.inputs,
        "usage": entry.usage and vars(entry.usage),
        "log": entry.log,
        "resources": entry.resources,
        "host": entry.host,
        "job": entry.facts.get("job"),
        "versions": entry.versions,
        "ingredients": entry.ingredients,
        "source": entry.source,
    }


def _job_as_object(call: JobCallStatus) -> dict[str, Any]:
    error, trace = call.error or (None, None)
    failure = call.failure
    return row_of_job(call) | {
        "submitted": call.submitted,
        "job": call.job,
        "node": call.node or None,
        "inputs": [given.name for given in call.inputs],
        "resources": call.folder.batch.resources,
        "error": error and _loaded(lambda: repr(error)),
        "failure": failure and _told(failure),
        "traceback": trace,
        "log": call.folder.log(call.number),
    }


def _told(failure: Failure) -> dict[str, Any]:
    return {name: told for name, told in vars(failure).items() if name != "traceback"}


def _aligned(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, shown in rows:
        first, *others = visible(shown).rstrip("\n").split("\n")
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
    yield "used", _used(entry)
    yield "host", _host(entry)
    yield "job", str(entry.facts.get("job") or "")
    yield "resources", ", ".join(f"{name}={value}" for name, value in entry.resources.items())
    yield "versions", ", ".join(f"{name} {value}" for name, value in entry.versions.items())
    yield "file", f"{entry.path} ({quantities.size(entry.size)})"
    yield "arguments", _loaded(lambda: _call(entry)) or entry.arguments
    yield "inputs", ", ".join(f"{name} {tables.short(key)}" for key, name in entry.inputs.items())
    failure = entry.failure
    if failure is not None:
        yield from _rows_of_failure(failure)
        yield "runs again", "after `callyard retry`" if entry.answers else "when it is submitted again"
    else:
        yield "output", _loaded(lambda: tables.value(entry.output))
    yield "printed", _printed(entry)


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
    yield "attempt", _attempt(call)
    yield "arguments", call.arguments
    yield "inputs", ", ".join(given.name for given in call.inputs)
    yield "log", call.folder.log(call.number) if call.began is not None else ""
    failure = call.failure
    if failure is not None:
        yield from _rows_of_failure(failure)


def _rows_of_failure(failure: Failure) -> Iterator[tuple[str, str]]:
    yield "error", failure.words
    yield "ended by", failure.signal or ("" if failure.exit_code is None else f"exit code {failure.exit_code}")
    yield "traceback", "" if failure.traceback.strip() == failure.words else failure.traceback


def _attempt(call: JobCallStatus) -> str:
    """Return the number of the present attempt of a call, and the limits of earlier ones; "" for the first."""
    with suppress(OSError, CacheError):
        kept, ended = call.folder.again(call.number), call.folder.ended(call.number)
        attempt = ended.attempts if ended is not None else 1 if kept is None else kept.attempt
        return f"{attempt}{call.folder.batch.tried}" if attempt > 1 else ""
    return ""


def _used(entry: Entry) -> str:
    used = entry.usage
    if used is None:
        return ""
    cpu = "" if used.cpu is None else f"{quantities.duration(used.cpu)} of CPU time"
    memory = "" if used.peak_memory is None else f"{quantities.size(used.peak_memory)} of memory at most"
    return ", ".join(filter(None, (cpu, memory)))


def _printed(entry: Entry) -> str:
    lines = (entry.log or "").splitlines()
    more = [f"... {quantities.counted(len(lines) - _LINES, 'line')} before: callyard logs {tables.short(entry.key)}"]
    return "\n".join([*(more if len(lines) > _LINES else ()), *lines[-_LINES:]])


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
    except Exception as error:  # from a `__repr__` of the user's
        return f"<cannot be shown: {error_words(error)}>"
