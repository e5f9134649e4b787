"""The search for the stored call that has most in common with another call.

A call with the same arguments comes first, because then the difference is why the call runs again; then one that
differs in a single argument, then the one with most ingredients in common. Of several it is the newest.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from ...errors import CacheError
from ..directory import CacheDirectory
from ..entry import Entry, noted_ingredients
from .find import entries, keys_by_age
from .key_differences import Ingredients, arguments_of, distance

__all__ = ["EntryIndex"]

_UNKNOWN = 1 << 30  # the distance of an entry without known ingredients, longer than any other
_LOOKED_AT = 10_000  # entries of one function that are read, the newest first
_COMPARED = 1000  # of these, entries compared as a whole
_CLOSE = 20  # entries with the same arguments, or all but one, that are compared

Arguments = frozenset[tuple[str, str]]


class EntryIndex:
    """The entries of a cache at one moment, by function; each file is read once."""

    def __init__(self, directory: CacheDirectory) -> None:
        self._directory = directory
        self._heads: dict[str, list[Entry]] | None = None
        self._functions: dict[str, _EntriesOfFunction] = {}

    def nearest(self, function: str, ingredients: Ingredients, key: str) -> tuple[Entry | None, Ingredients]:
        """Return the entry of a function with most in common, and its ingredients; never the one of this key."""
        if self._heads is None:
            self._heads = {}
            for entry in entries(self._directory, reversed(keys_by_age(self._directory))):
                self._heads.setdefault(entry.function, []).append(entry)
        found = self._functions.get(function)
        if found is None:
            found = self._functions[function] = _EntriesOfFunction(self._heads.get(function, ()))
        return found.nearest(ingredients, key)


class _EntriesOfFunction:
    def __init__(self, newest_first: Iterable[Entry]) -> None:
        self._known = [(entry, _ingredients(entry)) for entry in islice(newest_first, _LOOKED_AT)]
        self._by_arguments: dict[Arguments, list[int]] = {}  # the numbers of entries, the newest first
        self._by_all_but_one: dict[Arguments, list[int]] = {}
        for number, (_, noted) in enumerate(self._known):
            arguments = arguments_of(noted)
            if arguments:
                self._by_arguments.setdefault(arguments, []).append(number)
            for one in arguments:
                self._by_all_but_one.setdefault(_all_but(one, arguments), []).append(number)

    def nearest(self, ingredients: Ingredients, key: str) -> tuple[Entry | None, Ingredients]:
        arguments = arguments_of(ingredients)
        same = self._by_arguments.get(arguments, ())
        close = (self._by_all_but_one.get(_all_but(one, arguments), ()) for one in arguments)
        best = self._best(islice(same, _CLOSE), ingredients, key)
        best = best or self._best((number for numbers in close for number in islice(numbers, _CLOSE)), ingredients, key)
        return best or self._best(range(min(len(self._known), _COMPARED)), ingredients, key) or (None, {})

    def _best(self, numbers: Iterable[int], ingredients: Ingredients, key: str) -> tuple[Entry, Ingredients] | None:
        """Return the nearest of some entries; of several the newest."""
        ranks = []
        for number in numbers:
            entry, noted = self._known[number]
            if entry.key != key:
                ranks.append((distance(noted, ingredients) if noted else _UNKNOWN, number))
        return self._known[min(ranks)[1]] if ranks else None


def _all_but(one: tuple[str, str], arguments: Arguments) -> Arguments:
    """Return arguments without the content of one."""
    return arguments - {one} | {(one[0], "")}


def _ingredients(entry: Entry) -> Ingredients:
    """Return what went into the key of an entry; nothing if it is not readable any more."""
    try:
        return noted_ingredients(entry)
    except (CacheError, OSError):
        return {}
