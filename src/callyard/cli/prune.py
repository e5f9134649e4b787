"""Remove the calls that meet all conditions, and files left behind by ended processes.

Running calls stay, and so do the inputs of calls that wait. At least one condition is needed. With --older-than alone,
damaged batches of jobs that are over are removed as well.
"""

from __future__ import annotations

import argparse
import time

from ..cache.inspect.find import age, volume
from ..errors import CacheError
from ..jobs.check_and_prune import prune_damaged
from ..jobs.list_job_calls import needed_keys, prune_jobs
from ..utils import quantities
from . import UsageError
from .arguments import add_json, add_place, open_cache, print_json, split, to_change
from .ended_jobs import jobs_are_over
from .list_calls import as_text, row_of, row_of_job

__all__ = ["configure", "run"]

_CONDITIONS = ("older_than", "larger_than", "max_size", "function", "state", "keys")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--older-than", metavar="AGE", help="begun longer ago, as 90min, 12h, 30d, 2w")
    parser.add_argument("--larger-than", metavar="SIZE", help="files larger than this, as 500kB, 1GB")
    parser.add_argument("--max-size", metavar="SIZE", help="of what meets the others, keep so much, the newest")
    parser.add_argument("--function", metavar="NAME", help="only calls of this function")
    parser.add_argument("--state", choices=["finished", "failed"], help="only these")
    parser.add_argument("--key", metavar="KEY", action="append", dest="keys", help="only this call; can be repeated")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    add_json(parser, "an array of what was removed")
    add_place(parser)


def run(options: argparse.Namespace) -> int:
    """Remove the calls, and print them."""
    conditions = {name: getattr(options, name) for name in _CONDITIONS}
    if not any(value is not None for value in conditions.values()):
        raise UsageError("remove what? Give a condition, as --older-than 30d or --function NAME; --max-size 0 for all")
    _check(options)
    directory, _ = split(options, 0)
    cache = open_cache(options, directory)
    if not options.dry_run:
        cache = to_change(cache)
    removed = cache.prune(**conditions, dry_run=options.dry_run)
    rows = [row_of(entry) for entry in removed]
    before = None if options.older_than is None else time.time() - age(options.older_than)
    if options.state != "finished" and not (options.keys or options.larger_than or options.max_size):
        # Jobs that failed have no entry, only a directory with their errors and logs.
        jobs = prune_jobs(cache._directory, before, options.function, options.dry_run)
        rows += map(row_of_job, jobs)
    word, damaged = "would remove" if options.dry_run else "removed", list[str]()
    if all(value is None for name, value in conditions.items() if name != "older_than"):
        damaged = prune_damaged(cache._directory, before, options.dry_run, jobs_are_over)
    if options.json:
        print_json([*rows, *({"batch": path} for path in damaged)])
        return 0
    if rows:
        print(as_text(rows))
    for path in damaged:
        print(f"{word} the damaged batch {path}, whose jobs are over")
    needed = "; the inputs of waiting calls stay" if needed_keys(cache._directory) else ""
    print(f"{word} {quantities.calls(len(rows))}, {quantities.size(sum(entry.size for entry in removed))}{needed}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise an error for a wrong age or size, before the cache is opened."""
    for name, read in (("older_than", age), ("larger_than", volume), ("max_size", volume)):
        value = getattr(options, name)
        try:
            read(value or 0)
        except CacheError as error:
            raise UsageError(f"--{name.replace('_', '-')}: {error}") from None
