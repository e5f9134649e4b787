"""The calls whose results a call took, and the calls whose results these took, as a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..jobs.list_job_calls import JobCallStatus, calls_of_jobs
from ..result_cache import Cache
from ..utils import quantities
from . import tables
from .list_calls import row_of, row_of_job, rows_of_claims

__all__ = ["UpstreamCall", "as_tree", "upstream"]


class UpstreamCall(NamedTuple):
    """A call in the tree.

    `depth` is 0 for the call in question, 1 for its inputs, and so on; `state` "" for a call that is not in the cache
    any more; `repeated` for a call that stands before with all its inputs.
    """

    depth: int
    key: str
    function: str
    state: str
    seconds: float | None
    arguments: str
    repeated: bool


class _Call(NamedTuple):
    function: str
    state: str
    seconds: float | None
    arguments: str
    inputs: dict[str, str]  # functions by keys


def upstream(cache: Cache, beginning: str) -> list[UpstreamCall]:
    """Return the tree of a call, each call before its inputs.

    Raises:
        KeyError: no call has a key with this beginning, or several do.
    """
    jobs = list(calls_of_jobs(cache._directory))
    found: list[UpstreamCall] = []
    seen: set[str] = set()
    waiting = [(0, _whole_key(cache, jobs, beginning), "")]
    while waiting:
        depth, key, function = waiting.pop()
        call = _look_up(cache, jobs, key) or _Call(function, "", None, "", {})
        repeated = key in seen and bool(call.inputs)
        seen.add(key)
        found.append(UpstreamCall(depth, key, *call[:4], repeated))
        inputs = () if repeated else call.inputs.items()
        waiting += [(depth + 1, each, name) for each, name in reversed(list(inputs))]
    return found


def _whole_key(cache: Cache, jobs: Sequence[JobCallStatus], beginning: str) -> str:
    names = {call.known_as for call in jobs if call.known_as.startswith(beginning)}
    return names.pop() if len(names) == 1 else cache.find_key(beginning)


def _look_up(cache: Cache, jobs: Sequence[JobCallStatus], key: str) -> _Call | None:
    entry = cache.get(key)
    if entry is not None:
        row = row_of(entry)
        return _Call(entry.function, entry.state, row["seconds"], entry.arguments, entry.inputs)
    for call in jobs:
        if call.known_as == key:
            inputs = dict(_inputs(call, jobs))
            return _Call(call.name, call.state, row_of_job(call)["seconds"], call.arguments, inputs)
    for row in rows_of_claims(cache):
        if row["key"] == key:
            return _Call(row["function"], row["state"], row["seconds"], row["arguments"], {})
    return None


def _inputs(call: JobCallStatus, jobs: Sequence[JobCallStatus]) -> Iterator[tuple[str, str]]:
    """Yield key and function of the inputs of a job; the key of a call without one so far is its name until then."""
    for given in call.inputs:
        if given.key:
            yield given.key, given.name
        for other in jobs:
            if not given.key and (other.folder.token, other.number) == (given.token, given.number):
                yield other.known_as, other.name


def as_tree(calls: Sequence[UpstreamCall]) -> Iterator[str]:
    """Yield the lines of the tree."""
    for call in calls:
        took = "" if call.seconds is None else quantities.duration(call.seconds)
        words = (call.state or "not in the cache any more", took, "see above" if call.repeated else call.arguments)
        rest = "  ".join(filter(None, (tables.short(call.key), call.function, *words)))
        yield tables.fitted(rest, None if (room := tables.room()) is None else max(room - 2 * call.depth, 20)).join(
            ("  " * call.depth, "")
        )
