"""Read everything in a cache, and report damaged files, unsafe permissions and files that do not belong there.

With --repair, damaged entries are set aside, so that their calls run again, as are damaged batches of jobs once the
scheduler says that these are over; files left behind by ended processes are removed. The exit status is 1 if anything
remains that you should look at.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from .arguments import add_json, add_place, open_cache, print_json, split, to_change
from .ended_jobs import jobs_are_over

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--repair", action="store_true", help="set aside and remove what can be")
    add_json(parser, "an object")
    add_place(parser)


def run(options: argparse.Namespace) -> int:
    """Print the findings."""
    directory, _ = split(options, 0)
    cache = open_cache(options, directory)
    found = (to_change(cache) if options.repair else cache)._check(options.repair, jobs_are_over)
    if options.json:
        print_json({"ok": found.ok, **asdict(found)})
    else:
        print(found)
    return 0 if found.ok else 1
