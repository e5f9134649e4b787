"""Print the output of a call, if it was kept, and the traceback of a failed one."""

from __future__ import annotations

import argparse
import sys

from ..jobs.list_job_calls import JobCallStatus, find_job_calls
from .arguments import add_json, add_place, entry_of, open_cache, print_json, split

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_json(parser, "an object")
    add_place(parser, "KEY", ", and the beginning of the key")


def run(options: argparse.Namespace) -> int:
    """Print the log."""
    directory, (beginning,) = split(options, 1)
    cache = open_cache(options, directory)
    jobs = find_job_calls(cache._directory, beginning)
    if jobs and not any(key.startswith(beginning) for key, _ in cache._directory.entries()):
        key, log, trace = jobs[-1].known_as, jobs[-1].log, _trace(jobs[-1])
    else:
        entry = entry_of(cache, beginning)
        key, log, trace = entry.key, entry.log, entry.traceback
    if options.json:
        print_json({"key": key, "log": log, "traceback": trace})
        return 0 if log or trace else 1
    if not log and not trace:
        print(f"callyard logs: {key} has printed nothing that was kept", file=sys.stderr)
        return 1
    print(*(part.rstrip("\n") for part in (log, trace) if part), sep="\n")
    return 0


def _trace(call: JobCallStatus) -> str | None:
    end = call.folder.ended(call.number)
    return end.error()[1] if end is not None and end.failure else None
