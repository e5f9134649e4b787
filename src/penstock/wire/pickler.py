"""Pickles functions and classes by reference where a worker can import them, by value otherwise.

By value means their code, defaults and closure, with the globals that they reach by name as units beside
them. cloudpickle does everything else: code objects, the parts of classes, what pickle does not know.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from types import CellType, FunctionType, ModuleType
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import _builtin_type, _dynamic_class_reduce

from . import building
from .identities import identity
from .namespaces import UNSENT, Needs, space_of, space_of_module
from .reductions import reduction_of
from .references import by_reference
from .snapshots import EMPTY, LRU, content, snapshot
from .units import Place, Reach, Unit, at_import, closure, hooked_globals, is_importable, place_of, reach
from .unsendable import UnsendableGlobal, culprit

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not a static type of an extension
_BUILDING = frozenset(value for value in vars(building).values() if type(value) is FunctionType)
_class_versions = count(1)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
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
            return NotImplemented if obj in _BUILDING else self._function(obj)
        if issubclass(kind, type):
            return self._class(obj)
        if kind is ModuleType:
            return self._module(obj)
        if kind is CellType and id(obj) in self._cells:
            return building.cell, ()
        reduction = reduction_of(obj)
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
        known = identity(thing)
        if space.foreign and not known.foreign:
            return None  # made here, so the name means nothing where the namespace is at home
        return building.named, (space.header, name, known.key, self._needs((place,)))

    def _defines(self, place: Place) -> bool:
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
        hooked = {} if module is None else hooked_globals(function)
        state = (_attributes(function), vars(function), contents, hooked)
        return building.function, arguments, state, None, None, building.fill_function

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
        if len(reduced) < 6:  # types that are not where they say: NoneType, CodeType
            make, arguments = reduced
            return (building.type_of_types if make is _builtin_type else make), arguments
        make, arguments, state, _, _, fill = reduced
        place = place_of(cls)
        root = place is not None and self._defines(place)
        header = place[0].header if place is not None and root else None
        version = None if root else _class_version(cls)
        known = (header, identity(cls).key, make, *_with_slots(cls, arguments))
        return building.dynamic_class, known, (version, fill, state), None, None, building.fill_class

    def _module(self, module: ModuleType) -> Any:
        if is_importable(module):
            return NotImplemented
        space = space_of_module(module)
        return building.module, (space.header, self._needs(self._module_places(module)))

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
        return (building.made, (space.header, name, identity(thing).key, make, *arguments), *state)

    def _all_needs(self, reached: Reach) -> Needs:
        sources = tuple(source for source in reached.sources if source[0] not in self._sources)
        self._sources.update(filename for filename, _ in sources)
        return self._needs(reached.places)[0], reached.imports, sources

    def _needs(self, places: Iterable[Place]) -> Needs:
        if self._home:
            places = [place for place in places if not place[0].foreign]
        return tuple(closure(places, self._sent, pickle_unit)), (), ()

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


def pickle_unit(value: Any, place: Place) -> tuple[bytes, tuple[Place, ...]]:
    with io.BytesIO() as file:
        pickler = _UnitPickler(file, value, place)
        try:
            pickler.dump(value)
        except UnsendableGlobal:
            raise
        except Exception as error:
            path, part = culprit(value, place[1], partial(_unsendable, place=place))
            raise UnsendableGlobal(place[1], path, part, error) from error
        return file.getvalue(), tuple(pickler.reached)


def _unsendable(value: Any, place: Place) -> bool:
    try:
        with io.BytesIO() as file:
            _UnitPickler(file, value, place).dump(value)
    except Exception:
        return True
    return False


def _with_slots(cls: type, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cloudpickle makes the class with a dictionary instead; then instances cannot come back."""
    slots = None if issubclass(cls, tuple) else vars(cls).get("__slots__")
    if slots is None:
        return arguments
    return tuple({**a, "__slots__": slots} if type(a) is dict else a for a in arguments)


def _attributes(function: FunctionType) -> dict[str, Any]:
    """What `FunctionType` does not set, and `vars` does not have."""
    found = {"__qualname__": function.__qualname__, "__module__": function.__module__}
    for name in ("__doc__", "__defaults__", "__kwdefaults__", "__annotations__", "__type_params__"):
        try:
            value = getattr(function, name, None)
        except Exception:  # from 3.14 on annotations are evaluated now, and may refer to what is not there
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
