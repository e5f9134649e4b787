"""How a function travels from the driver to a worker: once, where that can be.

A function that a worker can import is defined there by its name. One that travels by value is defined again
when anything that it reaches by name has changed. What is new each time, as a lambda in a loop, travels with
the arguments of its call.
"""

from __future__ import annotations

import io
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import count
from types import BuiltinFunctionType, FunctionType, MappingProxyType
from typing import Any

from . import identities, references
from .namespaces import Origin, Space
from .pickler import Pickler, dumps, pickle_unit
from .references import by_reference
from .snapshots import LRU, Snapshot, snapshot
from .units import Place, Unit, current, forget_pickles, place_of

__all__ = ["Definition", "Functions", "Pickler", "dumps"]


def resend_by_value(modules: Iterable[str]) -> None:
    """From now on let what these modules define travel by value: where it is read, another version is found."""
    references.differ(modules)
    _resend()


def _resend() -> None:
    forget_pickles()
    identities.forget_sent()


class Definition:
    """A function as it is sent once to each worker, to be called there by its number.

    Its number is put among the dead when nobody can call it any more: neither the function nor a pending
    call of it is there.
    """

    __slots__ = ("__weakref__", "_dead", "data", "id", "names")

    def __init__(
        self, number: int, data: bytes, names: Mapping[tuple[Origin, str], int] | None, dead: deque[int]
    ) -> None:
        self.id, self.data, self.names, self._dead = number, data, names, dead

    def __del__(self) -> None:
        try:
            self._dead.append(self.id)
        except AttributeError:  # an exception has interrupted its making
            pass


class _Watch:
    """Tells whether what a function reaches is what it was."""

    __slots__ = ("_own", "_places")

    def __init__(self, own: Snapshot | None, sent: Mapping[Place, Unit | None]) -> None:
        self._own = own
        places: dict[Space, list[tuple[str, Unit | None]]] = {}
        for (space, name), unit in sent.items():
            places.setdefault(space, []).append((name, unit))
        self._places = list(places.items())

    def unchanged(self, function: Any) -> bool:
        if self._own is not None and not self._own.unchanged(function):
            return False
        for space, expected in self._places:
            values, units = space.globals(), space.units
            for name, unit in expected:
                if unit is None:
                    if name in values:
                        return False
                elif units.get(name) is not unit:
                    return False
                elif unit.snapshot is not None and unit.snapshot.unchanged(values.get(name)):
                    continue
                elif current(space, name, pickle_unit) is not unit:
                    return False
        return True


class _Entry:
    __slots__ = ("definition", "reference", "watch")

    def __init__(self, reference: weakref.ref[Any], definition: Definition, watch: _Watch | None) -> None:
        self.reference, self.definition, self.watch = reference, definition, watch


class Functions:
    """The functions that workers are told once. Entries live as long as their functions."""

    def __init__(self) -> None:
        self.dead: deque[int] = deque()  # numbers that workers may forget
        self._entries: dict[int, _Entry] = {}  # by id of the function
        self._seen: dict[int, weakref.ref[Any]] = {}  # those that came once, as lambdas in a loop do
        self._numbers = count(1)
        self._differences = references.differences

    def definition(self, function: Any) -> Definition | None:
        """How to send it once. None: it travels with the arguments of each call."""
        if references.importing and references.settle():
            _resend()
        if self._differences != references.differences:
            self._entries.clear()
            self._differences = references.differences
        entry = self._entries.get(id(function))
        if entry is not None and entry.reference() is function:
            watch = entry.watch
            if watch is None or watch.unchanged(function):
                return entry.definition
            return self._by_value(function)
        kind = type(function)
        if kind not in _DEFINABLE and not isinstance(function, type):
            return None
        if by_reference(function):
            return self._enter(function, dumps(function), None, None)
        if kind is BuiltinFunctionType or isinstance(function, type) or not self._came_before(function):
            return None
        return self._by_value(function)

    def _by_value(self, function: Any) -> Definition | None:
        own = snapshot(function)
        named = place_of(function) is not None
        if own is None and not named:
            return None  # what its closure holds may change, so it is pickled each time anyway
        with io.BytesIO() as file:
            pickler = Pickler(file)
            pickler.dump(function)
            data, sent = file.getvalue(), pickler.sent
        names = {(s.header[0], n): unit.version for (s, n), unit in sent.items() if unit is not None}
        return self._enter(function, data, MappingProxyType(names), _Watch(None if named else own, sent))

    def _enter(
        self, function: Any, data: bytes, names: Mapping[tuple[Origin, str], int] | None, watch: _Watch | None
    ) -> Definition:
        number, entries = id(function), self._entries

        def forget(reference: weakref.ref[Any]) -> None:
            if number in entries and entries[number].reference is reference:
                del entries[number]

        definition = Definition(next(self._numbers), data, names, self.dead)
        entries[number] = _Entry(weakref.ref(function, forget), definition, watch)
        return definition

    def _came_before(self, function: Any) -> bool:
        """Whether this is not the first time; only the last few are remembered."""
        known = self._seen.pop(id(function), None)
        if known is not None and known() is function:
            return True
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[id(function)] = weakref.ref(function)
        return False


_DEFINABLE = frozenset((FunctionType, BuiltinFunctionType, LRU))
_REMEMBERED = 256
