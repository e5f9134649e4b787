"""A cache of objects made for other objects, by their identity: for values shared by many calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")

_MOST = 1000  # entries: each call may bring a value of its own


class IdentityCache(Generic[T, V]):
    """The made objects, each with the object behind the key, so that no other object gets the same identity."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, tuple[T, V]] = {}

    def of(self, thing: T, make: Callable[[T], V]) -> V:
        """Return the object made for this very one; make it at the first call."""
        known = self._known.get(id(thing))
        if known is not None:
            return known[1]
        made = make(thing)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[id(thing)] = thing, made
        return made
