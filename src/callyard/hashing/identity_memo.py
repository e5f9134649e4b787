"""A memo of facts about objects, by identity, because objects may be equal and mean different things."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """Facts by object, each forgotten at the end of its object. Several threads may use a memo at once."""

    def __init__(self) -> None:
        self._facts: dict[int, tuple[weakref.ref[Any], T]] = {}

    def get(self, thing: Any) -> T | None:
        found = self._facts.get(id(thing))
        # An id is reused after the end of an object, so the reference decides.
        return found[1] if found is not None and found[0]() is thing else None

    def put(self, thing: Any, fact: T) -> T:
        """Note a fact and return it. For the few types without weak references the fact is lost at once."""
        number = id(thing)
        try:
            reference = weakref.ref(thing, lambda gone: self._forget(number, gone))
        except TypeError:
            return fact
        self._facts[number] = reference, fact
        return fact

    def _forget(self, number: int, gone: weakref.ref[Any]) -> None:
        # Perhaps late: by now a new object with the same id may have its own fact here.
        found = self._facts.get(number)
        if found is not None and found[0] is gone:
            del self._facts[number]
