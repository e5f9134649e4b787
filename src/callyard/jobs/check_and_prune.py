"""The check and the pruning of a cache, with the calls that are jobs there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..cache.claims import Claims, UnreadableClaim
from ..cache.directory import CacheDirectory, is_key, remove_file
from ..cache.entry import Entry, open_entry
from ..cache.failures import sweep
from ..cache.format.record_file import DamagedFile, read
from ..cache.inspect.find import age, all_keys, entries, keys_by_age, needed_files, volume
from ..cache.kept_files import KeptFiles
from ..cache.lookup import check_files
from ..errors import CacheError, UnsafeCache, VersionMismatch
from ..utils.quantities import calls, size
from .find_batches import unreadable_batches
from .list_job_calls import needed_keys
from .spool import BatchDirectory

__all__ = ["Check", "JobsAreOver", "Problem", "check", "is_free", "over_and_damaged", "prune", "remove"]

JobsAreOver = Callable[[BatchDirectory], bool]
_STATES = ("finished", "failed")


@dataclass(frozen=True)
class Problem:
    """A problem with one file of a cache.

    `kind` is "damaged", "newer", "unsafe", "unreadable", "foreign" (Callyard did not write it), "left" (a half-written
    file or a claim of a process that is gone) or "aside" (a damaged file, set aside). `done` is the
    action of the repair; empty if there was none.
    """

    kind: str
    path: str
    text: str
    done: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" + (f" ({self.done})" if self.done else "")


@dataclass(frozen=True)
class Check:
    """The findings of a check: the number of whole records, their size (bytes), and the problems."""

    whole: int
    size: int
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if no problem is left for people to look at."""
        return all(problem.kind == "aside" or problem.done for problem in self.problems)

    def __str__(self) -> str:
        verb = "is" if self.whole == 1 else "are"
        return "\n".join([*map(str, self.problems), f"{calls(self.whole)} {verb} whole, {size(self.size)}"])


def check(directory: CacheDirectory, repair: bool, jobs_are_over: JobsAreOver | None = None) -> Check:
    """Do the work of `Cache.check`. A damaged batch with jobs is set aside only if `jobs_are_over` says so."""
    if repair and not directory.writable:
        raise CacheError(f"the cache {directory.path} is only read here: open it for writing to repair it")
    problems = list(_left(directory, repair))
    whole = total = 0
    records = [(place, key) for place in (directory, directory.failures) for key in keys_by_age(place)]
    for place, key in records:
        found = _record(place, key, repair)
        if isinstance(found, Problem):
            problems.append(found)
        elif found is not None:
            whole, total = whole + 1, total + found
    problems += _unneeded_files(directory, repair)
    return Check(whole, total, [*problems, *_batches(directory, repair, jobs_are_over), *_others(directory)])


# ------------------------------------------------------------------ records


def _record(directory: CacheDirectory, key: str, repair: bool) -> int | Problem | None:
    """Return the size of a record (bytes), or its problem; None for a removed record."""
    path = directory.record(key)
    try:
        return _read(directory, key, path)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        done = f"moved to {directory.set_aside(key, str(error))}" if repair else ""
        return Problem("damaged", path, str(error), done)
    except UnsafeCache as error:
        return Problem("unsafe", path, str(error))
    except VersionMismatch as error:
        return Problem("newer", path, str(error))
    except OSError as error:
        return Problem("unreadable", path, f"{path} cannot be read: {error.strerror}")


def _read(directory: CacheDirectory, key: str, path: str) -> int:
    descriptor = directory.open_record(key, is_use=False)
    try:
        head = read(descriptor, path).head
    finally:
        os.close(descriptor)
    if head.key != key:
        raise DamagedFile(f"{path} is damaged: it holds another call, {head.key}")
    check_files(directory, head)
    return head.size


def _batches(directory: CacheDirectory, repair: bool, jobs_are_over: JobsAreOver | None) -> Iterator[Problem]:
    """Yield the unreadable batches of jobs; with `repair` the damaged ones whose jobs are over are set aside."""
    for batch, error in unreadable_batches(directory):
        path, is_unsafe = batch.path, isinstance(error, UnsafeCache)
        # Not while a job may run, which would lose its call and outcome. An unsafe batch is readable once it is safe.
        goes = repair and not is_unsafe and is_free(batch, jobs_are_over)
        done = f"moved to {batch.set_aside(str(error))}" if goes else ""
        stays = "; its jobs may not be over, so it stays" if repair and not is_unsafe and not goes else ""
        yield Problem("unsafe" if is_unsafe else "damaged", path, f"{error}{stays}", done)


def is_free(batch: BatchDirectory, jobs_are_over: JobsAreOver | None) -> bool:
    """Return True if no job of a damaged batch may run, as far as files or the function tell."""
    return not batch.may_have_jobs() or (jobs_are_over is not None and jobs_are_over(batch))


def over_and_damaged(directory: CacheDirectory, before: float | None, over: JobsAreOver) -> list[BatchDirectory]:
    """Return the damaged batches that nobody has changed since a time, and whose jobs are over."""
    found = []
    for batch, error in unreadable_batches(directory):
        changed = os.stat(batch.path).st_mtime
        if not isinstance(error, UnsafeCache) and (before is None or changed < before) and is_free(batch, over):
            found.append(batch)
    return found


# ------------------------------------------------------------------ all other files


def _left(directory: CacheDirectory, repair: bool) -> Iterator[Problem]:
    """Yield the claims and temporary files of dead processes, and remove each one with `repair`."""
    for key, owner in list(Claims(directory).running()):
        gone = owner.state() == "gone"
        if isinstance(owner, UnreadableClaim):
            text = f"{owner.name} is no claim that can be read" + (
                "" if gone else f": {owner.awaited(key, directory.path)}"
            )
            yield Problem("damaged", owner.name, text, "set aside" if repair and gone else "")
        elif gone:
            text = f"{owner.where()} is gone and left its claim to {key} ({owner.name})"
            yield Problem("left", f"{directory.path}/claims/{key}", text, "removed" if repair else "")
    for path in list(directory.left()):
        yield Problem("left", path, f"{path} was being written by a process that is gone", "removed" if repair else "")
    for path in list(_left_logs(directory)):
        text = f"{path} is the output of a call whose process is gone"
        yield Problem("left", path, text, "removed" if repair and remove_file(path) else "")
    if repair:
        Claims(directory).sweep()
        directory.sweep()


def _unneeded_files(directory: CacheDirectory, repair: bool) -> Iterator[Problem]:
    """Yield the kept files that no entry names, and remove each one with `repair`."""
    kept = KeptFiles(directory)
    for content in kept.unneeded(partial(needed_files, directory)):
        path = f"{kept.path}/{content}"
        done = "removed" if repair and kept.remove(content) else ""
        yield Problem("left", path, f"{path} is named by no call that is stored here", done)


def _left_logs(directory: CacheDirectory) -> Iterator[str]:
    """Yield the paths of the output of calls that nobody runs any more."""
    claims, folder = Claims(directory), f"{directory.path}/output"
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            key = name.removesuffix(".log")
            if is_key(key) and ((holder := claims.holder(key)) is None or holder.state() == "gone"):
                yield f"{folder}/{name}"


def _others(directory: CacheDirectory) -> Iterator[Problem]:
    """Yield the foreign files, and the damaged ones set aside."""
    for parent, names, files in os.walk(directory.path):
        relative = os.path.relpath(parent, directory.path)
        for name in sorted([*files, *(names if relative == "damaged" else ())]):
            path = os.path.join(parent, name)
            if relative == "damaged":
                is_batch = os.path.isdir(path) and os.path.exists(f"{path}.txt")  # a claim has no reason beside it
                if name.endswith(".h5") or is_batch:
                    yield Problem("aside", path, _why(path))
            elif not _is_ours(relative, name):
                yield Problem("foreign", path, f"{path} is nothing that Callyard writes: move it elsewhere")
        names[:] = sorted(names) if relative == "." else []


def _is_ours(relative: str, name: str) -> bool:
    if name.startswith(".tmp-"):
        return relative != "."
    if relative == "claims":
        return is_key(name.partition("+")[0])
    if relative == "output":
        return is_key(name.removesuffix(".log"))
    key = name.removesuffix(".h5")
    return key != name and is_key(key) and (relative in ("own", "failed") or (len(key) == 40 and key[:2] == relative))


def _why(path: str) -> str:
    try:
        with open(path.removesuffix(".h5") + ".txt", encoding="utf-8", errors="replace") as file:
            return f"{path} was set aside: {file.read().strip()}"
    except OSError:
        return f"{path} was set aside"


# ------------------------------------------------------------------ removal


def prune(
    directory: CacheDirectory,
    keys: list[str] | None,
    older_than: Any,
    unused_for: Any,
    larger_than: Any,
    max_size: Any,
    function: str | None,
    state: str | None,
    unreached: str | None,
    dry_run: bool,
) -> list[Entry]:
    """Do the work of `Cache.prune`."""
    conditions = (keys, older_than, unused_for, larger_than, max_size, function, state, unreached)
    if all(condition is None for condition in conditions):
        raise CacheError("prune needs a condition, as older_than= or function=; max_size=0 removes everything")
    if state not in (None, *_STATES):
        raise CacheError(f"state is 'finished' or 'failed', not {state!r}")
    if unreached is not None:
        from ..cache.inspect.unreached import unreached_keys  # here, because this loads all that makes keys

        keys = [key for key in unreached_keys(directory, unreached) if keys is None or key in keys]
    most = None if max_size is None else volume(max_size)
    meets = _filter(older_than, unused_for, larger_than, function, state)
    found: Iterable[Entry] = filter(meets, entries(directory, all_keys(directory) if keys is None else keys))
    if most is not None:
        found = _beyond(list(found), most)
    return list(_idle(directory, found)) if dry_run else remove(directory, found)


def remove(directory: CacheDirectory, found: Iterable[Entry]) -> list[Entry]:
    """Remove the entries that are idle and still as they were found, and the files left by ended processes."""
    Claims(directory).sweep()
    directory.sweep()
    sweep(directory)
    for path in list(_left_logs(directory)):
        remove_file(path)
    gone = [entry for entry in _idle(directory, found) if _is_there(entry) and entry._directory.remove(entry.key)]
    KeptFiles(directory).remove_unneeded(
        partial(needed_files, directory), {content for entry in gone for content in entry._head.files}
    )
    return gone


def _is_there(entry: Entry) -> bool:
    """Return True unless the entry has been removed, or stored anew, since it was found."""
    try:
        return open_entry(entry._directory, entry.key) == entry
    except (FileNotFoundError, CacheError):
        return False


def _filter(
    older_than: Any, unused_for: Any, larger_than: Any, function: str | None, state: str | None
) -> Callable[[Entry], bool]:
    """Return the test of whether an entry meets all conditions; None stands for no condition."""
    now = time.time()
    before = None if older_than is None else now - age(older_than)
    unused_since = None if unused_for is None else now - age(unused_for)
    least = None if larger_than is None else volume(larger_than)

    def meets(entry: Entry) -> bool:
        return (
            (function is None or entry.function == function)
            and (state is None or entry.state == state)
            and (before is None or entry.created.timestamp() < before)
            and (unused_since is None or entry.used.timestamp() < unused_since)
            and (least is None or entry.size > least)
        )

    return meets


def _beyond(found: list[Entry], most: float) -> list[Entry]:
    """Return the entries to remove, so that the newest ones, of at most `most` bytes together, stay."""
    room = most
    for number in range(len(found) - 1, -1, -1):
        room -= found[number].size
        if room < 0:
            return found[: number + 1]
    return []


def _idle(directory: CacheDirectory, found: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries that no call runs anew, and that no call in the queue of a scheduler takes as an input."""
    running = {key for key, owner in Claims(directory).running() if owner.state() != "gone"}
    needed = needed_keys(directory)
    return (entry for entry in found if entry.key not in running and entry.key not in needed)
