"""The arguments common to the commands: the cache, a call in it, and JSON as the output."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ..cache.entry import Entry
from ..errors import CacheError
from ..jobs.list_job_calls import JobCallStatus, find_job_calls
from ..result_cache import Cache
from ..utils.paths import expand
from . import UsageError

__all__ = [
    "add_json",
    "add_place",
    "call_of",
    "open_cache",
    "print_json",
    "split",
    "split_some",
    "the_job_call",
    "to_change",
]

VARIABLE = "CALLYARD_CACHE"


def add_place(parser: argparse.ArgumentParser, words: str = "", meaning: str = "") -> None:
    """Add the arguments that name a cache, and the `words` after the directory."""
    names = f"[DIRECTORY] {words}".strip()
    about = f"the directory of the cache (default: the value of {VARIABLE} in the environment){meaning}"
    parser.add_argument("words", nargs="*", metavar=names, help=about)
    parser.add_argument("-C", "--cache", metavar="DIRECTORY", help="the directory, for scripts")
    parser.add_argument("--trust", choices=["group"], help="open a cache that is shared with a group")
    parser.usage = f"{parser.prog} [OPTIONS] {names}"


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def split(options: argparse.Namespace, wanted: int) -> tuple[str, list[str]]:
    """Return the directory, and the `wanted` words after it."""
    words: list[str] = options.words
    if options.cache is not None:
        place = options.cache
    elif len(words) > wanted:
        place, words = words[0], words[1:]
    elif words and os.path.isdir(expand(words[0])):  # and no key after it
        place, words = words[0], []
    else:
        place = from_environment()
    if len(words) != wanted:
        raise UsageError(
            "which call? Give the beginning of its key" if len(words) < wanted else f"what is {words[-1]!r}?"
        )
    return place, words


def split_some(options: argparse.Namespace) -> tuple[str, list[str]]:
    """Return the directory, and any number of words after it."""
    words: list[str] = options.words
    if options.cache is not None:
        return options.cache, words
    if words and os.path.isdir(expand(words[0])):
        return words[0], words[1:]
    if len(words) > 1 and not os.environ.get(VARIABLE):
        return words[0], words[1:]
    return from_environment(), words


def from_environment() -> str:
    place = os.environ.get(VARIABLE)
    if not place:
        raise UsageError(f"which cache? Name its directory, or set {VARIABLE} in the environment")
    return place


def open_cache(options: argparse.Namespace, directory: str) -> Cache:
    """Return the cache, opened read-only, because it may be write-protected."""
    if not os.path.lexists(expand(directory)):
        raise CacheError(f"there is no cache {directory!r}: name the directory of one, or set {VARIABLE} to it")
    sys.path.append(os.getcwd())  # the place of modules beside a script started by `python script.py`
    return Cache(directory, mode="read-only", trust=options.trust)


def to_change(cache: Cache) -> Cache:
    """Return the same cache, opened for writing; raise CacheError if it is write-protected."""
    if not os.access(cache.path, os.W_OK | os.X_OK):
        raise CacheError(f"the cache {cache.path} is write-protected: run this as its owner, or make it writable first")
    return Cache(cache.directory, trust=cache.trust)


def call_of(cache: Cache, beginning: str) -> Entry | JobCallStatus:
    """Return the call whose key begins with `beginning`: its entry, or else its job."""
    jobs = find_job_calls(cache._directory, beginning)
    if jobs and not any(key.startswith(beginning) for key, _ in cache._directory.entries()):
        return the_job_call(jobs, beginning)
    key = cache.find_key(beginning)
    holder = cache._claims.holder(key)
    if holder is not None and key not in cache:
        state = "was being run, without a result," if holder.state() == "gone" else "is being run"
        raise CacheError(f"{key} {state} by {holder.where()}, so nothing is stored yet")
    return cache[key]


def the_job_call(found: list[JobCallStatus], beginning: str) -> JobCallStatus:
    """Return the last submission of the call; raise CacheError if several calls were found."""
    if len({call.known_as for call in found}) > 1:
        raise CacheError(f"several keys begin with {beginning!r}: give more of it")
    return found[-1]


def print_json(thing: Any) -> None:
    import json  # here, because most output is text

    json.dump(thing, sys.stdout, indent=2)
    print()
