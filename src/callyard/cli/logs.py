"""Print the output of a call, if it was kept, and the traceback of a failed one."""

from __future__ import annotations

import argparse
import sys

from ..cache.entry import Entry
from ..jobs.list_job_calls import JobCallStatus
from .arguments import add_json, add_place, call_of, open_cache, print_json, split

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_json(parser, "an object")
    add_place(parser, "KEY", ", and the beginning of the key")


def run(options: argparse.Namespace) -> int:
    """Print the log."""
    directory, (beginning,) = split(options, 1)
    cache = open_cache(options, directory)
    call = call_of(cache, beginning)
    if isinstance(call, JobCallStatus):
        key, log, trace = call.known_as, call.log, call.error and call.error[1]
    else:
        key, log, trace = call.key, call.log, call.traceback
    if options.json:
        print_json({"key": key, "log": log, "traceback": trace})
        return 0 if log or trace else 1
    if not log and not trace:
        where = (
            f", which is {call.state}, has printed nothing yet"
            if _goes_on(call)
            else " has printed nothing that was kept"
        )
        print(f"callyard logs: {key}{where}", file=sys.stderr)
        return 1
    print(*(part.rstrip("\n") for part in (log, trace) if part), sep="\n")
    return 0


def _goes_on(call: Entry | JobCallStatus) -> bool:
    return call.state in ("unsent", "queued", "running")
