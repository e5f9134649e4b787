"""Cancel calls: of your running executors on this machine, or those that are jobs, submitted by any process.

A call of a running executor is named as `callyard status` shows it, 4711:12, or by the beginning of its key. Futures
that wait for these calls are cancelled too. Finished calls stay in the cache. With --all the jobs of a cache are shown
first, and cancelled after a yes on the terminal; scripts say --yes.
"""

from __future__ import annotations

import argparse
import os
import re
import sys

from ..backends.batch.scheduler_client import client_of
from ..errors import CacheError
from ..jobs.list_job_calls import JobCallStatus, calls_of_jobs, find_job_calls
from ..jobs.spool import CallOutcome
from ..report.ask_processes import ProcessAnswer, ask_all
from ..result_cache import Cache
from ..utils.paths import expand
from . import UsageError, tables
from .arguments import VARIABLE, add_json, add_place, from_environment, open_cache, print_json, the_job_call, to_change
from .confirm import add_yes, confirm
from .list_calls import row_of_job

__all__ = ["cancel_jobs", "cancel_named", "configure", "run"]

_NAME = r"(\d+)(?:\.(\d+))?:(\d+)"  # of a call: process, executor, number
_SHORTEST = 4  # characters of a key by which calls of running executors are looked for
_GOING_ON = ("unsent", "queued", "running")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--all", action="store_true", help="all calls that wait or run, instead of those named")
    parser.add_argument("--function", metavar="NAME", help="with --all: only calls of this function")
    add_yes(parser)
    add_json(parser, "an object")
    add_place(parser, "KEY...", ", and the beginnings of the keys")


def run(options: argparse.Namespace) -> int:
    """Cancel the calls, and print their names."""
    done: list[str] = []
    try:
        jobs, path = _cancel(options, done)
    except Exception:  # one of the words is wrong, and those before it are done
        if done:
            _print(options, done, [])
        raise
    _print(options, done, jobs)
    if not done and not jobs:
        print(f"callyard cancel: no job in {path} waits or runs; other calls are cancelled by name", file=sys.stderr)
    return 0


def _cancel(options: argparse.Namespace, done: list[str]) -> tuple[list[JobCallStatus], str]:
    """Cancel the calls; add what was done to live ones to `done`, and return the jobs, and their cache."""
    options.words = _cancel_live(options.words, done)
    others = options.words[1:] if _begins_with_directory(options.words) else options.words
    if done and not others and not options.all:
        return [], ""
    directory, beginnings = _place(options)
    cache = to_change(open_cache(options, directory))
    calls = _chosen(cache, options, beginnings)
    if options.all and calls:
        rows = [row_of_job(call) for call in calls]
        preview = f"{tables.by_function(rows)}\n{tables.total(rows)}"
        confirm(options, preview, "Cancel them?", "; `callyard list` lists the calls")
    cancel_jobs(calls)
    return calls, cache.path


def _print(options: argparse.Namespace, done: list[str], jobs: list[JobCallStatus]) -> None:
    if options.json:
        of_executors: list[dict[str, object]] = [{"words": words} for words in done]
        print_json({"cancelled": [*of_executors, *({"key": call.known_as, "job": call.job} for call in jobs)]})
        return
    for words in done:
        print(words)
    for call in jobs:
        print(f"cancelled {call.name!r}, key {call.known_as}{f', job {call.job}' if call.job else ''}")


def _cancel_live(words: list[str], done: list[str]) -> list[str]:
    """Cancel the calls of running executors that these words name; return the other words."""
    others = list[str]()
    for word in words:
        named = re.fullmatch(_NAME, word)
        if named is not None:
            found = cancel_named(int(named[1]), int(named[2] or 1), int(named[3]))
            if not found:
                raise CacheError(f"no call {word} waits or runs; `callyard status` shows those that do")
        elif os.path.isdir(expand(word)) or len(word) < _SHORTEST:
            found = []
        else:
            found = _told(ask_all("cancel", key=word))
        done += found
        others += [] if found else [word]
    return others


def cancel_named(pid: int, executor: int, number: int) -> list[str]:
    """Cancel the call of this number, of one of the executors of a process; return what was done.

    Raises:
        CacheError: the process does not answer.
    """
    answers = ask_all("cancel", pid, executor=executor, call=number)
    for answer in answers:
        if answer.answer is None:  # the question stays with it
            raise CacheError(f"process {pid} {answer.problem}, so it may cancel the call later: see `callyard status`")
    return _told(answers)


def _told(processes: list[ProcessAnswer]) -> list[str]:
    """Return what the processes have done."""
    return [words for process in processes if process.answer for words in process.answer.get("done", ())]


def _place(options: argparse.Namespace) -> tuple[str, list[str]]:
    words: list[str] = options.words
    if options.cache is not None:
        directory = options.cache
    elif words and (options.all or _begins_with_directory(words)):
        directory, words = words[0], words[1:]
    else:
        directory = from_environment()
    if options.all == bool(words):
        raise UsageError("which calls? Give the beginnings of their keys, or --all")
    return directory, words


def _begins_with_directory(words: list[str]) -> bool:
    """Return True if the first word names the cache. With a default cache, the word may as well be a key."""
    if words and os.path.isdir(expand(words[0])):
        return True
    return len(words) > 1 and not os.environ.get(VARIABLE)


def _chosen(cache: Cache, options: argparse.Namespace, beginnings: list[str]) -> list[JobCallStatus]:
    if options.all:
        return [
            call
            for call in calls_of_jobs(cache._directory)
            if call.state in _GOING_ON and options.function in (None, call.name)
        ]
    return [_the_call(cache, beginning) for beginning in beginnings]


def _the_call(cache: Cache, beginning: str) -> JobCallStatus:
    found = [call for call in find_job_calls(cache._directory, beginning) if call.state in _GOING_ON]
    if not found:
        raise CacheError(
            f"no call that waits or runs has a key that begins with {beginning!r}: neither one of your executors on "
            f"this machine nor a job of {cache.path}"
        )
    return the_job_call(found, beginning)


def cancel_jobs(calls: list[JobCallStatus]) -> None:
    """Cancel the jobs at the scheduler, then record the calls as cancelled for the processes that wait for them."""
    for scheduler in {call.folder.batch.scheduler for call in calls}:
        meant = [call for call in calls if call.folder.batch.scheduler == scheduler]
        jobs = {call.job for call in meant if call.job is not None and not _others_of_its_job(call, meant)}
        if jobs:
            client_of(scheduler).cancel(sorted(jobs))
    for call in calls:
        if call.folder.ended(call.number) is None:
            call.folder.end(call.number, CallOutcome("cancelled"))


def _others_of_its_job(call: JobCallStatus, meant: list[JobCallStatus]) -> bool:
    """Return True if the job of a call also makes calls that are not to be cancelled."""
    spooled = call.folder
    together = spooled.batch.of_element(spooled.batch.element_of(call.number))
    cancelled = {other.number for other in meant if other.folder.token == spooled.token}
    return any(number not in cancelled and spooled.ended(number) is None for number in together)
