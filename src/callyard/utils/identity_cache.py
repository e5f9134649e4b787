"""A cache of what was made for an object, by the object's identity: for values that many calls share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")

_MOST = 1000  # entries: each call may bring a value of its own


class IdentityCache(Generic[T, V]):
    """What was made for objects, each of which is kept with it, so that no other object gets its identity."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, tuple[T, V]] = {}

    def of(self, thing: T, make: Callable[[T], V]) -> V:
        """Return what was made for this very object; make it if that was not done yet."""
        known = self._known.get(id(thing))
        if known is not None:
            return known[1]
        made = make(thing)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[id(thing)] = thing, made
        return made
