"""Remove the calls that meet all conditions, and files left behind by ended processes.

What would be removed is shown first, and removed after a yes on the terminal; scripts say --yes. Running calls stay,
and so do the inputs of calls that wait. At least one condition is needed. With --older-than alone, damaged batches of
jobs that are over are removed as well.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from typing import Any

from ..cache.entry import Entry
from ..cache.inspect.find import age, volume
from ..errors import CacheError
from ..jobs.check_and_prune import over_and_damaged, remove
from ..jobs.list_job_calls import needed_keys, over_batches, without_result
from ..jobs.spool import BatchDirectory
from ..result_cache import Cache
from ..utils import quantities
from . import UsageError
from .arguments import add_json, add_place, open_cache, print_json, split, to_change
from .confirm import add_yes, confirm
from .ended_jobs import jobs_are_over
from .list_calls import Row, as_text, row_of, row_of_job
from .tables import by_function

__all__ = ["configure", "run"]

_CONDITIONS = ("older_than", "unused_for", "larger_than", "max_size", "function", "state", "keys", "unreached")
_OF_RESULTS = ("keys", "unused_for", "larger_than", "max_size", "unreached")  # conditions that no files of jobs meet


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--older-than", metavar="AGE", help="begun longer ago, as 90min, 12h, 30d, 2w")
    parser.add_argument("--unused-for", metavar="AGE", help="no answer or input for so long, to the day")
    parser.add_argument("--larger-than", metavar="SIZE", help="files larger than this, as 500kB, 1GB")
    parser.add_argument("--max-size", metavar="SIZE", help="of what meets the others, keep so much, the newest")
    parser.add_argument("--function", metavar="NAME", help="only calls of this function")
    parser.add_argument("--state", choices=["finished", "failed"], help="only these")
    parser.add_argument("--key", metavar="KEY", action="append", dest="keys", help="only this call; can be repeated")
    parser.add_argument("--unreached", metavar="SCRIPT", help="only calls whose code has changed since in this script")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    add_yes(parser)
    add_json(parser, "an array of what was removed")
    add_place(parser)


@dataclass(frozen=True)
class _Found:
    """What meets the conditions: entries, submissions of jobs that are over, and damaged ones among these."""

    entries: list[Entry]
    batches: list[BatchDirectory]
    damaged: list[BatchDirectory]

    def rows(self) -> list[Row]:
        """Return a row for each call. Cancelled jobs have no entry, only a directory with their logs."""
        stored = {entry.key for entry in self.entries}
        jobs = (call for call in without_result(self.batches) if call.key not in stored)
        return [*map(row_of, self.entries), *map(row_of_job, jobs)]


def run(options: argparse.Namespace) -> int:
    """Show the calls; remove them, if the user agrees, and print what was removed."""
    conditions = {name: getattr(options, name) for name in _CONDITIONS}
    if not any(value is not None for value in conditions.values()):
        raise UsageError("remove what? Give a condition, as --older-than 30d or --function NAME; --max-size 0 for all")
    _check(options)
    directory, _ = split(options, 0)
    cache = open_cache(options, directory)
    if not options.dry_run:
        cache = to_change(cache)
    found = _find(cache, options, conditions)
    rows = found.rows()
    if options.dry_run:
        _print(cache, options, found, rows, "would remove")
        return 0
    if rows or found.batches or found.damaged:
        preview = _summary(cache, found, rows, "would remove")
        confirm(options, preview, "Remove them?", "; --dry-run lists the calls")
    _print(cache, options, *_remove(cache, found), "removed")
    return 0


def _find(cache: Cache, options: argparse.Namespace, conditions: dict[str, Any]) -> _Found:
    before = None if options.older_than is None else time.time() - age(options.older_than)
    batches, damaged = list[BatchDirectory](), list[BatchDirectory]()
    if options.state != "finished" and not any(getattr(options, name) for name in _OF_RESULTS):
        batches = over_batches(cache._directory, before, options.function)
    if all(value is None for name, value in conditions.items() if name != "older_than"):
        damaged = over_and_damaged(cache._directory, before, jobs_are_over)
    return _Found(cache.prune(**conditions, dry_run=True), batches, damaged)


def _remove(cache: Cache, found: _Found) -> tuple[_Found, list[Row]]:
    """Remove what was found, and nothing that has come since; return what was removed, with a row for each call."""
    gone = replace(found, entries=remove(cache._directory, found.entries))
    rows = gone.rows()  # before the jobs are gone
    for batch in (*found.batches, *found.damaged):
        batch.remove()
    return gone, rows


def _print(cache: Cache, options: argparse.Namespace, found: _Found, rows: list[Row], word: str) -> None:
    if options.json:
        print_json([*rows, *({"batch": batch.path} for batch in found.damaged)])
        return
    if rows and options.dry_run:
        print(as_text(rows), end="\n\n")
    print(_summary(cache, found, rows, word))


def _summary(cache: Cache, found: _Found, rows: list[Row], word: str) -> str:
    """Return how many calls of each function there are, their sizes and the times of their begin, and all together."""
    lines = [by_function(rows)] if rows else []
    lines += [f"{word} the damaged batch {batch.path}, whose jobs are over" for batch in found.damaged]
    total = f"{word} {quantities.calls(len(rows))}, {quantities.size(sum(entry.size for entry in found.entries))}"
    if found.batches:
        total += f", with the files and logs of {quantities.counted(len(found.batches), 'submission')}"
    return "\n".join([*lines, total + ("; the inputs of waiting calls stay" if needed_keys(cache._directory) else "")])


def _check(options: argparse.Namespace) -> None:
    """Raise an error for a wrong age or size, before the cache is opened."""
    for name, read in (("older_than", age), ("unused_for", age), ("larger_than", volume), ("max_size", volume)):
        value = getattr(options, name)
        try:
            read(value or 0)
        except CacheError as error:
            raise UsageError(f"--{name.replace('_', '-')}: {error}") from None
