"""Remove the stored failure of a call, or the claim of a dead process on it, so that the call runs again.

The call runs again at its next submission. A claim of a process that may still live is left alone: if the process is on
a machine that cannot be asked, and you know that it has ended, say --force.
"""

from __future__ import annotations

import argparse

from ..cache.claims import ClaimOwner
from ..errors import CacheError
from ..jobs.list_job_calls import JobCallStatus, find_job_calls
from ..jobs.spool import CallOutcome
from ..result_cache import Cache
from .arguments import add_json, add_place, open_cache, print_json, split, the_job_call, to_change

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--force", action="store_true", help="also if its process cannot be proven gone")
    add_json(parser, "an object")
    add_place(parser, "KEY", ", and the beginning of the key")


def run(options: argparse.Namespace) -> int:
    """Remove the failure or the claim, and print the outcome."""
    directory, (beginning,) = split(options, 1)
    looked_at = open_cache(options, directory)
    jobs = find_job_calls(looked_at._directory, beginning)
    if jobs and jobs[-1].state != "finished":
        call = the_job_call(jobs, beginning)
        key, cache = call.known_as, to_change(looked_at)
        done = [*_retry_job(cache, call, options.force), *_forget_failure(cache, key)]
    else:
        key = looked_at.find_key(beginning)
        done = _retry(to_change(looked_at), key, options.force)
    if options.json:
        print_json({"key": key, "done": done})
    else:
        again = "the next submission runs the call again"
        print(*(f"{line}; {again}" for line in done or [f"there is nothing to forget of {key}"]), sep="\n")
    return 0


def _retry_job(cache: Cache, call: JobCallStatus, force: bool) -> list[str]:
    """Return the steps taken; none if the failure was received already, so that nothing holds the call back."""
    if call.state == "cancelled" or call.folder.news().get(call.number) == "seen":
        return []
    if call.state == "failed":
        call.folder.received(call.number)
        return [f"forgot the failure of {call.name!r}, key {call.known_as}"]
    if not force:
        raise CacheError(
            f"{call.known_as} is {call.state}{f', as job {call.job}' if call.job else ''}: `callyard cancel` ends it; "
            "if you know that it has ended without a word, say --force"
        )
    call.folder.end(call.number, CallOutcome("cancelled"))
    if call.key:
        cache._claims.force(call.key)
    return [f"forgot that {call.name!r} is {call.state}, key {call.known_as}"]


def _retry(cache: Cache, key: str, force: bool) -> list[str]:
    holder = cache._claims.holder(key)
    done = []
    if holder is not None:
        done.append(_drop_claim(cache, key, holder, force))
    done += _forget_failure(cache, key)
    if not done and cache._directory.exists(key):
        forget = f"callyard prune {cache.path} --key {key}"
        raise CacheError(f"{key} has finished, so there is nothing to retry: `{forget}` forgets it")
    return done


def _forget_failure(cache: Cache, key: str) -> list[str]:
    entry = cache.get(key)
    if entry is None or entry.state != "failed" or not entry.answers:  # then it holds no submission back
        return []
    entry._directory.remove(key)
    return [f"forgot the failure of {entry.function!r}, key {key}"]


def _drop_claim(cache: Cache, key: str, holder: ClaimOwner, force: bool) -> str:
    state = holder.state()
    if state == "alive":
        raise CacheError(f"{holder.where()} is running {key}: wait for it, or end it first")
    if state == "unknown" and not force:
        raise CacheError(
            f"{holder.where()} may still be running {key}, which cannot be seen from here: if you know that it has "
            "ended, say --force"
        )
    cache._claims.force(key)
    return f"forgot the run of {holder.name!r} by {holder.where()}, key {key}"
