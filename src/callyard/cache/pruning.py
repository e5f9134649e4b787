"""Which entries go."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import CacheError
from .entry import Entry
from .finding import age, entries, volume

if TYPE_CHECKING:
    from .cache import Cache

__all__ = ["prune"]

_STATES = ("finished", "failed")


def prune(
    cache: Cache,
    keys: list[str] | None,
    older_than: Any,
    larger_than: Any,
    max_size: Any,
    function: str | None,
    state: str | None,
    dry_run: bool,
) -> list[Entry]:
    """See `Cache.prune`."""
    if all(condition is None for condition in (keys, older_than, larger_than, max_size, function, state)):
        raise CacheError("prune needs a condition, as older_than= or function=; max_size=0 removes everything")
    if state not in (None, *_STATES):
        raise CacheError(f"state is 'finished' or 'failed', not {state!r}")
    before = None if older_than is None else time.time() - age(older_than)
    least = None if larger_than is None else volume(larger_than)
    most = None if max_size is None else volume(max_size)

    def meets(entry: Entry) -> bool:
        return (
            (function is None or entry.function == function)
            and (state is None or entry.state == state)
            and (before is None or entry.created.timestamp() < before)
            and (least is None or entry.size > least)
        )

    if not dry_run:
        cache.claims.sweep()
        cache.home.sweep()
    found: Iterable[Entry] = filter(meets, entries(cache.home, cache.keys() if keys is None else keys))
    if most is not None:
        found = _beyond(list(found), most)
    return [entry for entry in _idle(cache, found) if dry_run or cache.home.remove(entry.key)]


def _beyond(found: list[Entry], most: float) -> list[Entry]:
    """All but the newest, those that together have at most so many bytes."""
    room = most
    for place in range(len(found) - 1, -1, -1):
        room -= found[place].size
        if room < 0:
            return found[: place + 1]
    return []


def _idle(cache: Cache, found: Iterable[Entry]) -> Iterator[Entry]:
    running = {key for key, owner in cache.claims.running() if owner.state() != "gone"}
    return (entry for entry in found if entry.key not in running)
