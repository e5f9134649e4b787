"""How a function travels from the driver to a worker.

By reference, its name alone, when a worker can import it. Otherwise by value: its code, defaults and closure,
with the globals that it reaches by name as units beside it (see `units`), into the one namespace that all
functions of its module share there (see `namespaces`). cloudpickle does everything else.
"""

from __future__ import annotations

import io
import pickle
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from types import BuiltinFunctionType, CellType, FunctionType, MappingProxyType, ModuleType
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import _dynamic_class_reduce

from . import namespaces
from .namespaces import UNSENT, Needs, Origin, Space, identity, space_of, space_of_module
from .reductions import REDUCTIONS
from .references import by_reference
from .snapshots import EMPTY, LRU, Snapshot, content, snapshot
from .units import Place, Reach, Unit, at_import, closure, current, is_importable, place_of, reach

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not a static type of an extension
_class_versions = count(1)


class Pickler(cloudpickle.Pickler):
    """Pickles functions and classes as above. `pickle.loads` reads the result.

    `reduce` is asked first, for each object; NotImplemented means that it does not care. `home`: the reader
    is the process whose functions travelled here, so what came from it need not be described to it.
    """

    def __init__(
        self,
        file: Any,
        *,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
        reduce: Callable[[Any], Any] | None = None,
        home: bool = False,
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._hook = reduce
        self._home = home
        self._sent: dict[Place, Unit | None] = {}
        self._cells: set[int] = set()  # those whose content has been sent or will be; the memo holds them
        self._sources: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        if self._hook is not None:
            reduced = self._hook(obj)
            if reduced is not NotImplemented:
                return reduced
        kind = type(obj)
        if kind is FunctionType:
            return self._function(obj)
        if issubclass(kind, type):
            return self._class(obj)
        if kind is ModuleType:
            return self._module(obj)
        if kind is CellType and id(obj) in self._cells:
            return namespaces.cell, ()
        reduction = REDUCTIONS.get(kind)
        return NotImplemented if reduction is None else self._special(obj, reduction)

    def _function(self, function: FunctionType) -> Any:
        if by_reference(function):
            return NotImplemented
        return self._reference(function) or self._definition(function)

    def _reference(self, thing: Any) -> Any:
        """By its name in its namespace, with what that name needs."""
        place = place_of(thing)
        if place is None or self._defines(place):
            return None
        space, name = place
        key = identity(thing).key
        if space.foreign and key[0] == namespaces.token:
            return None  # made here, so the name means nothing where the namespace is at home
        return namespaces.named, (space.header, name, key, self._needs((place,)))

    def _defines(self, place: Place) -> bool:  # noqa: ARG002
        return False

    def _definition(self, function: FunctionType) -> Any:
        module = at_import(function)
        header = space_of(function).header if module is None else module
        place = place_of(function)
        key = identity(function).key if place is not None and self._defines(place) else None
        cells = function.__closure__ or ()
        new = [cell for cell in cells if id(cell) not in self._cells]
        self._cells.update(map(id, new))
        contents = [(cell, content(cell)) for cell in new if content(cell) is not EMPTY]
        needs = self._all_needs(reach(function))
        arguments = (header, needs, key, function.__code__, function.__name__, cells)
        state = (_attributes(function), vars(function), contents)
        return namespaces.function, arguments, state, None, None, namespaces.fill_function

    def _class(self, cls: type) -> Any:
        if by_reference(cls):
            return NotImplemented
        reference = self._reference(cls)
        if reference is not None:
            return reference
        reduced = super().reducer_override(cls)
        if reduced is NotImplemented:  # cloudpickle thinks that a worker can import it
            if not cls.__flags__ & _HEAP_TYPE:
                return NotImplemented
            reduced = _dynamic_class_reduce(cls)
        if len(reduced) < 6:  # types that are not where they say: NoneType
            return reduced
        make, arguments, state, _, _, fill = reduced
        place = place_of(cls)
        root = place is not None and self._defines(place)
        key = identity(cls).key
        header = place[0].header if place is not None and root else None
        version = None if root else _class_version(cls)
        filled = (key, version, fill, state)
        return namespaces.dynamic_class, (header, key, make, *arguments), filled, None, None, namespaces.fill_class

    def _module(self, module: ModuleType) -> Any:
        if is_importable(module):
            return NotImplemented
        space = space_of_module(module)
        return namespaces.module, (space.header, self._needs(self._module_places(module)))

    def _module_places(self, module: ModuleType) -> list[Place]:
        if module.__name__ == "__main__":
            return []
        space = space_of_module(module)
        return [(space, name) for name in vars(module) if name not in UNSENT]

    def _special(self, thing: Any, reduction: Callable[[Any], tuple[Any, ...]]) -> Any:
        if by_reference(thing):
            return NotImplemented
        if type(thing) is not LRU:
            return reduction(thing)
        make, arguments, *state = reduction(thing)
        place = place_of(thing)
        if place is None or not self._defines(place):
            return self._reference(thing) or (make, arguments, *state)
        space, name = place
        return (namespaces.made, (space.header, name, identity(thing).key, make, *arguments), *state)

    def _all_needs(self, reached: Reach) -> Needs:
        sources = tuple(source for source in reached.sources if source[0] not in self._sources)
        self._sources.update(filename for filename, _ in sources)
        return self._needs(reached.places)[0], reached.imports, sources

    def _needs(self, places: Iterable[Place]) -> Needs:
        if self._home:
            places = [place for place in places if not place[0].foreign]
        return tuple(closure(places, self._sent, _pickle_unit)), (), ()

    @property
    def sent(self) -> Mapping[Place, Unit | None]:
        """The names that were sent along; those without a unit have no value here."""
        return self._sent


class _UnitPickler(Pickler):
    """Pickles the value of a name: what that reaches in turn is noted, not sent."""

    def __init__(self, file: Any, value: Any, place: Place) -> None:
        super().__init__(file)
        self.reached: dict[Place, None] = {}
        self._value, self._place = value, place

    def _defines(self, place: Place) -> bool:
        return place == self._place

    def _module_places(self, module: ModuleType) -> list[Place]:
        return [] if module is self._value else super()._module_places(module)

    def _needs(self, places: Iterable[Place]) -> Needs:
        self.reached.update(dict.fromkeys(places))
        return (), (), ()


def _pickle_unit(value: Any, place: Place) -> tuple[bytes, tuple[Place, ...]]:
    with io.BytesIO() as file:
        pickler = _UnitPickler(file, value, place)
        try:
            pickler.dump(value)
        except Exception as error:
            if hasattr(error, "add_note"):
                space, name = place
                error.add_note(f"penstock: while sending the global {name!r} of {space.header[0][1]!r}")
            raise
        return file.getvalue(), tuple(pickler.reached)


def _attributes(function: FunctionType) -> dict[str, Any]:
    """What `FunctionType` does not set, and `vars` does not have."""
    found = {"__qualname__": function.__qualname__, "__module__": function.__module__}
    for name in ("__doc__", "__defaults__", "__kwdefaults__", "__annotations__", "__type_params__"):
        try:
            value = getattr(function, name, None)
        except NameError:  # annotations that refer to what is not there yet
            continue
        if value:
            found[name] = value
    return found


def _class_version(cls: type) -> int | None:
    """A number that changes with the attributes of the class; None if that cannot be told."""
    known = identity(cls)
    if known.sent is None or not known.sent[1].unchanged(cls):
        taken = snapshot(cls)
        if taken is None:
            return None
        known.sent = (next(_class_versions), taken)
    return known.sent[0]


def dumps(
    obj: Any,
    *,
    buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    reduce: Callable[[Any], Any] | None = None,
    home: bool = False,
) -> bytes:
    """Pickle with `Pickler`, for `pickle.loads`."""
    with io.BytesIO() as file:
        Pickler(file, buffer_callback=buffer_callback, reduce=reduce, home=home).dump(obj)
        return file.getvalue()


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
        self._dead.append(self.id)


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
                elif units.get(name) is not unit or not self._stands(unit, values.get(name), space, name):
                    return False
        return True

    @staticmethod
    def _stands(unit: Unit, value: Any, space: Space, name: str) -> bool:
        taken = unit.snapshot
        if taken is not None and taken.unchanged(value):
            return True
        return current(space, name, _pickle_unit) is unit


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

    def definition(self, function: Any) -> Definition | None:
        """How to send it once. None: it travels with the arguments of each call."""
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
