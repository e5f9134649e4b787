"""The prediction of what a call with a cache would do: its key, the result if there is one, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...cache.directory import CacheDirectory
from ...cache.entry import Entry, open_entry
from ...cache.inspect.call_parts import parts_of_call
from ...cache.inspect.explain import Explanation, compared
from ...cache.inspect.nearest import EntryIndex
from ...cache.lookup import CachedResult, find
from ...errors import CacheError
from ...hashing.call_key import CallKey, call_key, function_part
from ...hashing.digest import PendingFuture
from ...jobs.list_job_calls import calls_of_jobs
from ...resources import Resources
from ...result_cache import Cache
from ...utils.quantities import moment
from ..base import Settings
from ..cached.settings import CallSettings, SettingsByResources
from .planned_call import PlannedState
from .read_cache import reading

__all__ = ["Prediction", "Predictor"]


@dataclass(frozen=True)
class Prediction:
    """What a call would do; see `PlannedCall`."""

    state: PlannedState
    reason: str = ""
    key: str | None = None
    directory: str = ""  # of the cache
    found: CachedResult | None = None
    nearest: str | None = None
    differences: tuple[str, ...] = ()
    diffs: Mapping[str, str] = field(default_factory=dict)


class Predictor:
    """Predicts the calls of one executor; the cache is only read."""

    def __init__(self, cache: Cache, settings: Settings) -> None:
        self._refreshes = cache.mode == "refresh"
        self._settings = SettingsByResources(reading(cache), settings)
        self._code_only = settings.changes_data
        self._indexes: dict[str, EntryIndex] = {}  # by directory, as the next one
        self._jobs: dict[str, Mapping[str, str]] = {}  # where jobs are, by the keys or identities of their calls

    def settings_of(self, resources: Resources) -> CallSettings:
        """Return the cache of a call, and its resources for the backend."""
        return self._settings.of(resources)

    def predict(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], known: CallSettings
    ) -> Prediction:
        """Return what a call would do.

        Raises:
            CacheError: an argument, or the function, has no content that can be hashed.
        """
        cache, call = known.cache, self._key(fn, args, kwargs, known)
        key = known.own_key or (None if call is None else call.hex)
        if key is None:
            return Prediction("after inputs")
        damaged = False
        if not self._refreshes:
            found = find(cache._directory, key)
            damaged = found is None and cache._directory.exists(key)
            if found is not None and (cache.failures or not found.failed):
                reason = "its failure is kept in the cache" if found.failed else ""
                return Prediction("failed" if found.failed else "cached", reason, key, cache.path, found)
        running = self._running(cache, key)
        if running:
            return Prediction("running", running, key, cache.path)
        if damaged:
            return Prediction("to compute", "its file in the cache is damaged", key, cache.path)
        if call is None:
            return Prediction("after inputs", key=key, directory=cache.path)
        name = getattr(fn, "__name__", None) or type(fn).__name__
        why = self._why(cache, key, name, call, known)
        nearest = None if why.nearest is None else why.nearest.key
        reason = self._in_words(cache, key, why)
        return Prediction("to compute", reason, key, cache.path, None, nearest, tuple(why.differences), why.diffs)

    def _key(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], known: CallSettings
    ) -> CallKey | None:
        """Return the key; None if it depends on results to come, or does not matter as the user has given another."""
        try:
            return call_key(fn, args, kwargs, known.context, function_part(fn, self._code_only))
        except PendingFuture:
            return None
        except CacheError:
            if known.own_key is None:
                raise
            return None

    def _running(self, cache: Cache, key: str) -> str:
        """Return where the call is on its way in another process; "" if it is not."""
        holder = cache._claims.holder(key)
        if holder is not None and holder.state() != "gone":
            return f"is run by {holder.where()}"
        jobs = self._jobs.get(cache.path)
        if jobs is None:
            on_their_way = (call for call in calls_of_jobs(cache._directory) if call.state in ("unsent", "queued"))
            jobs = self._jobs[cache.path] = {call.known_as: _of_job(call.state, call.job) for call in on_their_way}
        return jobs.get(key, "")

    def _why(self, cache: Cache, key: str, name: str, call: CallKey, known: CallSettings) -> Explanation:
        index = self._indexes.get(cache.path) or self._indexes.setdefault(cache.path, EntryIndex(cache._directory))
        return compared(index.nearest, key, name, parts_of_call(call, known.resources))

    def _in_words(self, cache: Cache, key: str, why: Explanation) -> str:
        entry = _entry(cache._directory, key) or _entry(cache._directory.failures, key)
        if entry is not None and entry.answers and self._refreshes:
            return f'the cache is opened with mode="refresh"; it is there since {moment(entry.created)}'
        if entry is not None:
            return f"it failed at {moment(entry.created)}, and failures are run again"
        if why.nearest is None:
            return f"no call of {why.function} is in the cache"
        return "; ".join(why.differences) or f"there is no result with the key {key}"


def _of_job(state: str, job: str | None) -> str:
    return f"is job {job}, {state}" if job else "is not submitted to its scheduler yet"


def _entry(directory: CacheDirectory, key: str) -> Entry | None:
    try:
        return open_entry(directory, key)
    except (OSError, CacheError):
        return None
