"""The search for the stored call that has most in common with another call.

A call with the same arguments comes first, because then the difference is why the call runs again; then one that
differs in a single argument, then the one with most ingredients in common. Of several it is the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ..directory import CacheDirectory
from ..entry import Entry
from .find import keys_by_age, noted_entries
from .key_differences import Ingredients, arguments_of, distance

__all__ = ["EntryIndex", "Noted", "nearest"]

_UNKNOWN = 1 << 30  # the distance of an entry without known ingredients, longer than any other
_LOOKED_AT = 10_000  # entries of one function that are read, the newest first
_COMPARED = 100  # of these, entries compared as a whole
_CLOSE = 20  # entries with the same arguments, or all but one, that are compared

Arguments = frozenset[tuple[str, str]]
Noted = tuple[Entry, Ingredients]


class EntryIndex:
    """The entries of a cache at one moment, by function; each file is read once."""

    def __init__(self, directory: CacheDirectory) -> None:
        self._directory = directory
        self._functions: dict[str, _EntriesOfFunction] | None = None

    def nearest(self, function: str, ingredients: Ingredients, key: str) -> Noted | tuple[None, Ingredients]:
        """Return the entry of a function with most in common, and its ingredients; never the one of this key."""
        if self._functions is None:
            self._functions = {}
            for entry, noted in _newest_first(self._directory):
                self._functions.setdefault(entry.function, _EntriesOfFunction()).add(entry, noted)
        found = self._functions.get(function)
        return (None, {}) if found is None else found.nearest(ingredients, key)


def nearest(
    directory: CacheDirectory, function: str, ingredients: Ingredients, key: str
) -> Noted | tuple[None, Ingredients]:
    """Return the same as an `EntryIndex`, for a single call: the newest with the same arguments ends the search."""
    found, arguments = _EntriesOfFunction(), arguments_of(ingredients)
    for entry, noted in _newest_first(directory):
        if entry.function == function and entry.key != key:
            found.add(entry, noted)
            if (arguments and arguments_of(noted) == arguments) or found.is_full:
                break
    return found.nearest(ingredients, key)


def _newest_first(directory: CacheDirectory) -> Iterator[Noted]:
    return noted_entries(directory, reversed(keys_by_age(directory)))


class _EntriesOfFunction:
    """Entries of one function with their ingredients, the newest first; of more than are looked at the newest."""

    def __init__(self) -> None:
        self._known: list[Noted] = []
        self._by_arguments: dict[Arguments, list[int]] = {}  # the numbers of entries
        self._by_all_but_one: dict[Arguments, list[int]] = {}

    @property
    def is_full(self) -> bool:
        return len(self._known) >= _LOOKED_AT

    def add(self, entry: Entry, noted: Ingredients) -> None:
        if self.is_full:
            return
        number = len(self._known)
        self._known.append((entry, noted))
        arguments = arguments_of(noted)
        if arguments:
            self._by_arguments.setdefault(arguments, []).append(number)
        for one in arguments:
            self._by_all_but_one.setdefault(_all_but(one, arguments), []).append(number)

    def nearest(self, ingredients: Ingredients, key: str) -> Noted | tuple[None, Ingredients]:
        arguments = arguments_of(ingredients)
        same = self._by_arguments.get(arguments, ())
        close = (self._by_all_but_one.get(_all_but(one, arguments), ()) for one in arguments)
        best = self._best(islice(same, _CLOSE), ingredients, key)
        best = best or self._best((number for numbers in close for number in islice(numbers, _CLOSE)), ingredients, key)
        return best or self._best(range(min(len(self._known), _COMPARED)), ingredients, key) or (None, {})

    def _best(self, numbers: Iterable[int], ingredients: Ingredients, key: str) -> Noted | None:
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
