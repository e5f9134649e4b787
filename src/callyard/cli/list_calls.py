"""List the calls in a cache, finished, failed, waiting or running; the newest come last.

Only the beginning of each file is read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from ..cache.entry import Entry
from ..cache.inspect.find import all_keys, entries
from ..jobs.list_job_calls import JobCallStatus, calls_of_jobs
from ..result_cache import Cache
from ..utils import quantities
from . import tables as text
from .arguments import add_json, add_place, open_cache, print_json, split

__all__ = ["as_text", "configure", "row_of", "row_of_job", "rows_of_claims", "run"]

_STATES = ("finished", "failed", "unsent", "queued", "running", "gone")
_RIGHT = frozenset(("TOOK", "SIZE"))

Row = dict[str, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--function", metavar="NAME", help="only calls of this function")
    parser.add_argument(
        "--state",
        choices=_STATES,
        help="only these; unsent: not submitted yet; gone: its process ended without a result",
    )
    parser.add_argument("-n", "--limit", type=_count, metavar="N", help="only the newest N")
    parser.add_argument("-l", "--long", action="store_true", help="show arguments too, which takes longer")
    add_json(parser, "an array of objects")
    add_place(parser)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"at least 1, not {text}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    directory, _ = split(options, 0)
    cache = open_cache(options, directory)
    jobs = [*_jobs(cache, options)]
    known = {row["key"] for row in jobs}
    running = [row for row in _running(cache, options) if row["key"] not in known]
    # The failure of a job is a row of the job as long as its files are there, and one that is run again counts no more.
    known |= {row["key"] for row in running if row["state"] == "running"}
    stored = (row for row in _stored(cache, options) if row["state"] != "failed" or row["key"] not in known)
    rows = [*stored, *jobs, *running]
    rows = rows[-options.limit :] if options.limit else rows
    if options.json:
        print_json(rows)
    elif rows:
        print(as_text(rows, options.long), text.total(rows), sep="\n\n")
    else:
        print(f"no calls in {cache.path}")
    return 0


def _stored(cache: Cache, options: argparse.Namespace) -> list[Row]:
    """Return the newest entries, in order of storing."""
    if options.state in ("running", "gone"):
        return []
    newest = entries(cache._directory, reversed(all_keys(cache._directory)))
    meant = (entry for entry in newest if _is_meant(entry.function, entry.state, options))
    return [row_of(entry, options.long) for entry in islice(meant, options.limit)][::-1]


def _running(cache: Cache, options: argparse.Namespace) -> Iterator[Row]:
    return (row for row in rows_of_claims(cache) if _is_meant(row["function"], row["state"], options))


def rows_of_claims(cache: Cache) -> Iterator[Row]:
    """Yield the fields of the calls that processes run, or did when they ended, the oldest first."""
    for key, owner in sorted(cache._claims.running(), key=lambda pair: pair[1].since):
        state = "gone" if owner.state() == "gone" else "running"
        since = datetime.fromtimestamp(owner.since, timezone.utc)
        seconds = None if state == "gone" else _since(owner.since)  # the time of its end is unknown
        yield _row(key, owner.name, state, since, seconds, where=owner.where()) | {"arguments": owner.arguments}


def _jobs(cache: Cache, options: argparse.Namespace) -> Iterator[Row]:
    """Yield the calls that are jobs without a result."""
    for call in calls_of_jobs(cache._directory):
        if call.state in _STATES and call.state != "finished" and _is_meant(call.name, call.state, options):
            yield row_of_job(call)


def row_of_job(call: JobCallStatus) -> Row:
    """Return the fields of a call that is a job. `created` and `seconds` are None before it begins."""
    began, seconds = None, None
    if call.began is not None:
        began = datetime.fromtimestamp(call.began, timezone.utc)
        seconds = _since(call.began) if call.ended is None else max(0.0, call.ended - call.began)
    where = f"job {call.job}" + (f" on {call.node}" if call.node else "") if call.job else None
    return _row(call.known_as, call.name, call.state, began, seconds, where=where) | {"arguments": call.arguments}


def _since(moment: float) -> float:
    return max(0.0, time.time() - moment)  # another machine's clock may be ahead


def _is_meant(function: str, state: str, options: argparse.Namespace) -> bool:
    return options.function in (None, function) and options.state in (None, state)


def row_of(entry: Entry, long: bool = False) -> Row:
    """Return the fields of a stored call, by their names in the JSON."""
    path = str(entry.path)
    row = _row(entry.key, entry.function, entry.state, entry.created, entry.seconds, entry.size, path)
    return row | {"arguments": entry.arguments, "inputs": entry.inputs} if long else row


def _row(
    key: str,
    function: str,
    state: str,
    created: datetime | None,
    seconds: float | None,
    size: int | None = None,
    path: str | None = None,
    where: str | None = None,
) -> Row:
    moment = created and created.astimezone(timezone.utc).isoformat()
    return {
        "key": key, "function": function, "state": state, "created": moment, "seconds": seconds, "size": size,
        "path": path, "where": where,
    }  # fmt: skip


def as_text(rows: list[Row], long: bool = False) -> str:
    """Return the rows as a table."""
    head = ["KEY", "FUNCTION", "STATE", "BEGAN", "TOOK", "SIZE", *(["ARGUMENTS"] if long else [])]
    return text.table(head, [_cells(row, long) for row in rows], _RIGHT, "ARGUMENTS" if long else "FUNCTION")


def _cells(row: Row, long: bool) -> list[str]:
    key, size = text.short(row["key"]), quantities.size(row["size"])
    took = "" if row["seconds"] is None else quantities.duration(row["seconds"])
    began = "" if row["created"] is None else text.when(datetime.fromisoformat(row["created"]))
    more = [row.get("arguments") or row["where"] or ""] if long else []
    return [key, row["function"], row["state"], began, took, size, *more]
