"""How a function travels from the driver to a worker: once, where that can be.

A function that a worker can import is defined there by its name. One that travels by value is defined again
when anything that it reaches by name has changed. What is new each time, as a lambda in a loop, travels with
the arguments of its call.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import count
from types import BuiltinFunctionType, FunctionType, MappingProxyType
from typing import Any

from . import importable, object_identity
from .change_detection import LRU, Snapshot, snapshot
from .dump import Dump, dumps
from .globals import MISSING, GlobalUnit, forget_pickles, place_of, value_of
from .importable import by_reference
from .module_namespace import ModuleNamespace, Origin
from .object_graph import AnyStream, ObjectGraph
from .pickler import Pickler, ValuePickler
from .shared_objects import Place

__all__ = ["FunctionDefinition", "FunctionRegistry", "Pickler", "dumps"]


def resend_by_value(modules: Iterable[str]) -> None:
    """From now on let what these modules define travel by value: where it is read, another version is found."""
    importable.differ(modules)
    _resend()


def _resend() -> None:
    forget_pickles()
    object_identity.forget_sent()


class FunctionDefinition:
    """A function as it is sent once to each worker, to be called there by its number.

    Its number is put among the dead when nobody can call it any more: neither the function nor a pending
    call of it is there.
    """

    __slots__ = ("__weakref__", "_dead", "data", "id", "names", "watch")

    def __init__(
        self,
        number: int,
        data: bytes,
        names: Mapping[tuple[Origin, str], int] | None,
        dead: deque[int],
        watch: ReachWatch | None = None,
    ) -> None:
        self.id, self.data, self.names, self._dead = number, data, names, dead
        self.watch = watch

    def __del__(self) -> None:
        try:
            self._dead.append(self.id)
        except AttributeError:  # an exception has interrupted its making
            pass


class ReachWatch:
    """Tells whether what a function reaches is what it was, and whether that has an object of its arguments."""

    __slots__ = ("_ids", "_looked", "_mark", "_met", "_own", "_places")

    def __init__(self, own: Snapshot | None, dump: Dump) -> None:
        self._own = own
        self._places: dict[ModuleNamespace, list[tuple[str, GlobalUnit | None]]] = {}
        sent = dump.pickler.sent
        for (space, name), unit in sent.items():
            self._places.setdefault(space, []).append((name, unit))
        self._ids = frozenset[int]().union(*(unit.ids for unit in sent.values() if unit is not None))
        if own is not None:
            self._ids |= {number for number in own.met & dump.pickler.ids if dump.pickler.has(number)}
        # What has been looked at for the coming call. None: nothing, or another thread has taken it.
        self._looked: list[AnyStream | ValuePickler] | None = _changing(dump.graph)
        self._met = self._known_in(self._looked)
        self._mark: bytes | None = None  # of the values that may change, as they were pickled together last

    def unchanged(self, function: Any) -> bool:
        if self._own is not None and not self._own.unchanged(function):
            return False
        unseen: list[Place] = []  # those whose values may have changed unseen
        for space, expected in self._places.items():
            values, units = space.globals(), space.units
            for name, unit in expected:
                if unit is None or unit.data is None:
                    if name in values:
                        return False
                elif units.get(name) is not unit:
                    return False
                elif unit.snapshot is None or not unit.snapshot.unchanged(values.get(name)):
                    unseen.append((space, name))
        self._looked = []
        return not unseen or self._is_as_before(unseen)

    def shares(self, pickler: Pickler) -> bool:
        """Whether a pickler has met an object that the function reaches, too."""
        looked, self._looked = self._looked, None
        if looked is None or (self._ids and any(map(pickler.has, self._ids & pickler.ids))):
            return True
        return any(pickler.has(n) and one.has(n) for one in looked for n in one.ids & pickler.ids)

    def forget(self) -> None:
        """Keep nothing alive that was only looked at."""
        self._looked = None

    def _is_as_before(self, unseen: list[Place]) -> bool:
        """Pickle these values together: if the pickle is the same, so is what they are and what they share."""
        if any(value_of(place) is MISSING for place in unseen):
            return False
        look = ValuePickler(tuple(unseen), unread=True)
        self._looked = [look]
        met = self._known_in(self._looked)
        if met == self._met and self._is_pickle_of(unseen, look.data):
            return True
        expected = [((space, name), unit) for space, names in self._places.items() for name, unit in names]
        graph = ObjectGraph(ValuePickler)
        graph.look(place for place, _ in expected)
        self._looked = _changing(graph)
        self._mark, self._met = _mark(look.data), met
        return all(graph.units[place] is unit for place, unit in expected)

    def _known_in(self, looked: list[AnyStream | ValuePickler]) -> frozenset[int]:
        """What never changes of the objects that values which may change have been given."""
        return frozenset().union(*(one.ids & self._ids for one in looked)) if self._ids else frozenset()

    def _is_pickle_of(self, places: list[Place], data: bytes) -> bool:
        (space, name), *others = places
        unit = space.units[name]
        if not others and len(unit.places) == 1 and not unit.refs:
            return unit.data == data
        return _mark(data) == self._mark


def _mark(data: bytes) -> bytes:
    if len(data) < _LARGE:
        return data
    from hashlib import blake2b  # here, because it loads OpenSSL, and few globals are large

    return blake2b(data).digest()


def _changing(graph: ObjectGraph) -> list[AnyStream | ValuePickler]:
    return [stream for stream in graph.distinct() if stream.snapshot is None]


class _FunctionEntry:
    __slots__ = ("definition", "reference", "watch")

    def __init__(self, reference: weakref.ref[Any], definition: FunctionDefinition, watch: ReachWatch | None) -> None:
        self.reference, self.definition, self.watch = reference, definition, watch


class FunctionRegistry:
    """The functions that workers are told once. Entries live as long as their functions."""

    def __init__(self) -> None:
        self.dead: deque[int] = deque()  # numbers that workers may forget
        self._entries: dict[int, _FunctionEntry] = {}  # by id of the function
        self._seen: dict[int, weakref.ref[Any]] = {}  # those that came once, as lambdas in a loop do
        self._numbers = count(1)
        self._differences = importable.differences

    def definition(self, function: Any) -> FunctionDefinition | None:
        """How to send it once. None: it travels with the arguments of each call."""
        if importable.importing and importable.settle():
            _resend()
        if self._differences != importable.differences:
            self._entries.clear()
            self._differences = importable.differences
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

    def _by_value(self, function: Any) -> FunctionDefinition | None:
        own = snapshot(function)
        named = place_of(function) is not None
        if own is None and not named:
            return None  # what its closure holds may change, so it is pickled each time anyway
        dump = Dump(function)
        if dump.lent:
            return None  # what its closure holds is a value of a global, too
        sent = dump.pickler.sent
        names = {(s.header[0], n): unit.version for (s, n), unit in sent.items() if unit is not None}
        return self._enter(function, dump.data, MappingProxyType(names), ReachWatch(None if named else own, dump))

    def _enter(
        self, function: Any, data: bytes, names: Mapping[tuple[Origin, str], int] | None, watch: ReachWatch | None
    ) -> FunctionDefinition:
        number, entries = id(function), self._entries

        def forget(reference: weakref.ref[Any]) -> None:
            if number in entries and entries[number].reference is reference:
                del entries[number]

        definition = FunctionDefinition(next(self._numbers), data, names, self.dead, watch)
        entries[number] = _FunctionEntry(weakref.ref(function, forget), definition, watch)
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
_LARGE = 1 << 16  # bytes: of larger pickles a digest is kept
