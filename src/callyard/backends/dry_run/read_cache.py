"""A cache that a dry run reads: as it is there, or as an empty one that a run would make."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from ...cache.directory import CacheDirectory
from ...result_cache import Cache
from ...utils.paths import expand

__all__ = ["ReadCache", "reading"]


@dataclass(frozen=True, repr=False)
class ReadCache(Cache):
    """A cache for reading, whose directory may be missing; it is not made."""

    def __post_init__(self) -> None:
        path = expand(os.fspath(self.directory))
        if os.path.lexists(path) or not path:
            super().__post_init__()
        else:
            absent = CacheDirectory(os.path.abspath(path), None, False)
            object.__setattr__(self, "_directory", absent)

    def _at(self, directory: str | os.PathLike[str]) -> Cache:
        return reading(self, directory)


def reading(cache: Cache, directory: str | os.PathLike[str] | None = None) -> ReadCache:
    """Return a cache with the same options, in the same directory or another one, that is only read."""
    options = {each.name: getattr(cache, each.name) for each in fields(cache) if each.init}
    place = cache.path if directory is None else directory
    return ReadCache(**{**options, "directory": place, "mode": "read-only"})
