"""What was found out about objects, as long as they live. By identity: some are equal and not the same."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """Facts by object; each is forgotten with its object. Threads may use it at once."""

    def __init__(self) -> None:
        self._facts: dict[int, tuple[weakref.ref[Any], T]] = {}

    def get(self, thing: Any) -> T | None:
        found = self._facts.get(id(thing))
        return found[1] if found is not None and found[0]() is thing else None

    def put(self, thing: Any, fact: T) -> T:
        """Keep it, unless `thing` is of the few types that allow no weak reference."""
        number = id(thing)
        try:
            reference = weakref.ref(thing, lambda gone: self._forget(number, gone))
        except TypeError:
            return fact
        self._facts[number] = reference, fact
        return fact

    def _forget(self, number: int, gone: weakref.ref[Any]) -> None:
        found = self._facts.get(number)
        if found is not None and found[0] is gone:
            del self._facts[number]
