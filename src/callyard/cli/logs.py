"""Print the output of calls, and the traceback of a failed one. Of several calls, each under its name.

Without a key, those of the failed calls are printed.
"""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

from ..cache.inspect.find import SHORTEST, NoEntry
from ..cache.output_log import read_log
from ..events.event import Failure
from ..jobs.list_job_calls import JobCallStatus, calls_of_jobs, find_job_calls
from ..jobs.spool import names
from ..result_cache import Cache
from . import tables
from .arguments import add_json, add_place, call_of, open_cache, print_json, split_some

__all__ = ["CallLog", "configure", "log_of", "run"]


class CallLog(NamedTuple):
    """What is known of the output and the failure of a call, as the JSON has it."""

    key: str
    function: str
    state: str
    log: str | None
    traceback: str | None
    error: str | None = None  # its class and message

    def text(self) -> str:
        """Return output and traceback, and the error where no traceback tells it: a crash, or a limit."""
        parts = [part.rstrip("\n") for part in (self.log, self.traceback) if part]
        if self.error and self.error not in (self.traceback or ""):
            parts.append(self.error)
        return "\n".join(parts)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_json(parser, "an object, or an array of them for several calls or none")
    add_place(parser, "[KEY ...]", ", and the beginnings of keys")


def run(options: argparse.Namespace) -> int:
    """Print the logs."""
    directory, beginnings = split_some(options)
    cache = open_cache(options, directory)
    found = [log_of(cache, key) for key in beginnings or _failed(cache)]
    if not found and not options.json:
        print(f"no failed calls in {cache.path}; of other calls name the keys", file=sys.stderr)
    if options.json:
        print_json(found[0]._asdict() if len(beginnings) == 1 else [each._asdict() for each in found])
    elif len(beginnings) == 1:
        _print(found[0])
    else:
        for each in found:
            print(f"==> {each.function}, {tables.short(each.key)}, {each.state} <==")
            _print(each)
            print()
    return 0 if not found or any(each.text() for each in found) else 1


def _failed(cache: Cache) -> list[str]:
    """Return the keys of the failed calls."""
    jobs = [call.known_as for call in calls_of_jobs(cache._directory) if call.state == "failed"]
    return list(dict.fromkeys([*(entry.key for entry in cache if entry.state == "failed"), *jobs]))


def log_of(cache: Cache, beginning: str) -> CallLog:
    """Return the log of a call: of one that a process runs, of a stored one, of a job, or of one that was ended."""
    try:
        running = _running(cache, beginning)
        if running is not None:
            return running
        call = call_of(cache, beginning)
    except NoEntry:
        left = _left(cache, beginning)
        if left is None:
            raise
        return left
    if isinstance(call, JobCallStatus):
        return CallLog(call.known_as, call.name, call.state, call.log, *_told(call.failure))
    return CallLog(call.key, call.function, call.state, call.log, *_told(call.failure))


def _told(failure: Failure | None) -> tuple[str | None, str | None]:
    """Return the traceback and the error of a failure."""
    return (None, None) if failure is None else (failure.traceback or None, failure.words)


def _running(cache: Cache, beginning: str) -> CallLog | None:
    """Return the output so far of a call that a process runs; None for any other call."""
    if find_job_calls(cache._directory, beginning):
        return None
    key = cache.find_key(beginning)
    owner = cache._claims.holder(key)
    if owner is None or cache._directory.exists(key) or (owner.state() == "gone" and key in cache):
        return None
    state = "gone" if owner.state() == "gone" else "running"
    return CallLog(key, owner.name, state, read_log(cache._directory.log(key)), None)


def _left(cache: Cache, beginning: str) -> CallLog | None:
    """Return the output of a call without an entry, as it was cancelled while it ran; `prune` removes such output."""
    keys = [name.removesuffix(".log") for name in names(f"{cache.path}/output")]
    found = [key for key in keys if key.startswith(beginning)] if len(beginning) >= SHORTEST else []
    if len(found) != 1:
        return None
    return CallLog(found[0], "a call", "ended without a result", read_log(cache._directory.log(found[0])), None)


def _print(found: CallLog) -> None:
    if found.text():
        print(found.text())
        return
    goes_on = found.state in ("unsent", "queued", "running")
    where = f", which is {found.state}, has printed nothing yet" if goes_on else " has printed nothing that was kept"
    print(f"callyard logs: {found.key}{where}", file=sys.stderr)
