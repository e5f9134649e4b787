"""The arguments common to the commands that show a run: where its record is, and which one."""

from __future__ import annotations

import argparse
import os
import sys

from ..events.call_record import RunRecord
from ..report.runs import runs_at
from ..utils import quantities
from . import UsageError
from .arguments import VARIABLE, open_cache

__all__ = ["add_source", "the_run"]


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a run."""
    about = f"a file of events, or the directory of a cache (default: the value of {VARIABLE} in the environment)"
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=about)
    parser.add_argument("--run", type=int, metavar="N", help="the run, counted from 1; -1, the last, by default")
    parser.add_argument("--trust", choices=["group"], help="open a cache that is shared with a group")


def the_run(options: argparse.Namespace) -> RunRecord:
    """Return the run that is meant; say on stderr which one of several."""
    source = options.source if options.source is not None else os.environ.get(VARIABLE)
    if not source:
        raise UsageError(f"which run? Name a file of events or the directory of a cache, or set {VARIABLE}")
    cache = open_cache(options, source) if os.path.isdir(source) else None
    runs = runs_at(source, cache)
    number = -1 if options.run is None else options.run
    if not 1 <= abs(number) <= len(runs):
        raise UsageError(f"there is no run {number}: {source} has {quantities.counted(len(runs), 'run')}")
    place = number - 1 if number > 0 else len(runs) + number
    if options.run is None and len(runs) > 1:
        print(f"the last of {len(runs)} runs; --run {place} is the one before", file=sys.stderr)
    return runs[place]
