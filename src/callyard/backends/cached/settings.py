"""The settings of cached calls, made from an executor's settings and each call's resources."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ...errors import CacheError
from ...hashing.call_key import NOWHERE, KeyContext, surrounding
from ...hashing.digest import UnkeyableError
from ...hashing.values import value_token
from ...resources import Resources
from ...result_cache import Cache
from ...utils.identity_cache import IdentityCache
from ..base import Settings
from ..resource_mapping import shown


@dataclass(frozen=True)
class CallSettings:
    """The cache of calls with certain resources, and their part of the keys."""

    resources: Resources  # for the backend
    cache: Cache
    own_key: str | None
    context: KeyContext
    asked: dict[str, Any]  # for people
    several_ranks: bool


class SettingsByResources:
    """The settings of one executor's calls, made once for the same resources."""

    def __init__(self, cache: Cache, settings: Settings) -> None:
        self._cache = cache
        self._context = _context_of(settings)
        self._others = {cache.path: cache}
        self._known: IdentityCache[Resources, CallSettings] = IdentityCache()

    def of(self, resources: Resources) -> CallSettings:
        return self._known.of(resources, self._make)

    def _make(self, resources: Resources) -> CallSettings:
        asked = resources.asked()
        cache = self._cache
        if resources.cache_directory is not None:
            path = os.path.abspath(resources.cache_directory)
            # `setdefault` is atomic, so two threads get the same cache.
            cache = self._others.get(path) or self._others.setdefault(path, cache._at(path))
        if resources.cache_key is not None:
            cache._directory.record(resources.cache_key)  # refuses a key that cannot be a file name
        ours: dict[str, Any] = {name: None for name in ("cache_key", "cache_directory") if name in asked}
        return CallSettings(
            resources.updated(ours), cache, resources.cache_key, self._with(resources), shown(resources),
            resources.ranks > 1,
        )  # fmt: skip

    def _with(self, resources: Resources) -> KeyContext:
        env = value_token(dict(resources.env)) if resources.env else b""
        if not env and resources.ranks == 1:
            return self._context
        return KeyContext(self._context.initializer, self._context.init_function, resources.ranks, env)


def _context_of(settings: Settings) -> KeyContext:
    if settings.initializer is None and settings.init_function is None:
        return NOWHERE
    try:
        initializer = settings.initializer and surrounding((settings.initializer, settings.initargs))
        return KeyContext(initializer or b"", surrounding(settings.init_function) if settings.init_function else b"")
    except UnkeyableError as error:
        raise CacheError(
            f"calls cannot be cached, because the initializer or its arguments hold a {error.kind}, which has no "
            "meaning that can be hashed; leave out cache=, or teach it with Cache.register(type, function)"
        ) from error
