"""The pickler: sends functions and classes by reference where a worker can import them, by value otherwise.

By value means their code, defaults and closure, with the globals that they reach as pickles of their own beside them.
cloudpickle does everything else: code objects, the parts of classes, and objects that pickle does not know.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import count
from types import CellType, FunctionType, ModuleType
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import _builtin_type, _dynamic_class_reduce

from . import reconstruct
from .change_detection import DERIVED, EMPTY, LRU, content, snapshot
from .globals import ReachedNames, at_import, hooked_globals, is_importable, place_of, reached_by, value_of
from .importable import by_reference
from .module_namespace import UNSENT, GlobalName, Needs, Place, SentGlobals, space_of, space_of_module
from .object_graph import ObjectGraph
from .object_identity import identity
from .reductions import REDUCTIONS, reduction_of
from .shared_objects import shareable
from .unpicklable import UnsendableGlobal, culprit

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not a static type of an extension
_BUILDING = frozenset(value for value in vars(reconstruct).values() if type(value) is FunctionType)
_BY_NAME = frozenset((reconstruct.named, reconstruct.type_of_types, getattr))
_class_versions = count(1)


class NameReference:
    """Stands for the value of a global, which is taken from its namespace where the pickle is read."""

    def __init__(self, place: Place) -> None:
        self.place = place


class NameReferences:
    """References that are pickled first, so that the objects for which they stand are not pickled any more."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.references = tuple(map(NameReference, places))


class JointPickle:
    """Values of globals in one pickle; `refs` are globals that mean objects in them."""

    def __init__(self, places: tuple[Place, ...], refs: Iterable[Place]) -> None:
        self._places, self._refs = places, NameReferences(refs)

    def __reduce__(self) -> Any:
        values = map(value_of, self._places)
        return reconstruct.together, (_names_of(self._places), *self._refs.references, self._refs, *values)


class LentNames:
    """A thing with the values of globals that share objects with it. The globals have these values for one call."""

    def __init__(self, thing: Any, places: tuple[Place, ...], refs: Iterable[Place]) -> None:
        self._thing, self._places, self._refs = thing, places, NameReferences(refs)

    def __reduce__(self) -> Any:
        values = tuple(map(value_of, self._places))
        begin = _BeginLending(self._places)
        return reconstruct.lend, (*self._refs.references, self._refs, begin, self._thing, values)


class _BeginLending:
    """Pickled before the values, because the reader has to save those that the globals have."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        self._places = places

    def __reduce__(self) -> Any:
        return reconstruct.begin_to_lend, (_names_of(self._places),)


def _names_of(places: Iterable[Place]) -> tuple[GlobalName, ...]:
    return tuple((space.header, name) for space, name in places)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles functions and classes as above. `pickle.loads` reads the result.

    Args:
        file: gets the pickle.
        buffer_callback: as in `pickle.Pickler`.
        reduce: is asked first, for each object; NotImplemented means that it leaves the object to the pickler.
        home: the reader is the process from which functions came here, so their globals are not sent back to it.
        graph: the globals that are reached; one of its own if there is none.
        lent: globals whose values are pickled with the object.
    """

    def __init__(
        self,
        file: Any,
        *,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
        reduce: Callable[[Any], Any] | None = None,
        home: bool = False,
        graph: ObjectGraph | None = None,
        lent: tuple[Place, ...] = (),
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._hook = reduce
        self._home = home
        self._graph = graph
        self.overtaken = False  # whether globals that have been written would be written differently now
        self.by_name: set[int] = set()  # ids of objects that were sent by their names; the memo holds them
        self._lent = lent
        self._objects: dict[int, tuple[int, Any]] | None = None
        self._written: set[Place] = set(lent)
        self._cells: set[int] = set()  # whose content has been written or will be; the memo holds them
        self._classes: set[int] = set()  # that are defined in this pickle
        self._sources: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        if self._hook is not None:
            reduced = self._hook(obj)
            if reduced is not NotImplemented:
                return reduced
        kind = type(obj)
        if kind is FunctionType or kind is LRU or issubclass(kind, type):
            return self._noted(obj, self._definable(obj, kind))
        if kind is ModuleType:
            return self._module(obj)
        if kind is CellType and id(obj) in self._cells:
            return reconstruct.cell, ()
        if kind is NameReference:
            return reconstruct.shared, (obj.place[0].header, obj.place[1], self._needs((obj.place,)))
        if kind is NameReferences:
            return self._resolve(obj)
        reduction = reduction_of(obj)
        return NotImplemented if reduction is None or by_reference(obj) else reduction(obj)

    def _definable(self, obj: Any, kind: type) -> Any:
        if kind is FunctionType:
            return NotImplemented if obj in _BUILDING else self._function(obj)
        return self._cached(obj) if kind is LRU else self._class(obj)

    def _noted(self, obj: Any, reduced: Any) -> Any:
        if reduced is NotImplemented or reduced[0] in _BY_NAME:
            self.by_name.add(id(obj))
        return reduced

    def _resolve(self, obj: NameReferences) -> Any:
        """Let the memo have the references in place of the objects for which they stand."""
        memo: dict[int, tuple[int, Any]] = self.memo.copy()
        for reference in obj.references:
            index, _ = memo.pop(id(reference))
            value = value_of(reference.place)
            memo[id(value)] = index, value
            self.by_name.add(id(value))
        self.memo: Any = memo
        return tuple, ()

    def _function(self, function: FunctionType) -> Any:
        if by_reference(function):
            return NotImplemented
        return self._reference(function) or self._method(function) or self._definition(function)

    def _method(self, function: FunctionType) -> Any:
        """Reduce a method to its name in its class; None if it is none, or it is being sent with the class."""
        owner, _, name = function.__qualname__.rpartition(".")
        cls = function.__globals__.get(owner)
        if isinstance(cls, type) and id(cls) not in self._classes and vars(cls).get(name) is function:
            return getattr, (cls, name)
        return None

    def _reference(self, thing: Any) -> Any:
        """Reduce a function or class to its name in its namespace, with all that it needs; None if it has no name."""
        place = self._place_to_name(thing)
        if place is None:
            return None
        space, name = place
        return reconstruct.named, (space.header, name, identity(thing).key, self._needs((place,)))

    def _place_to_name(self, thing: Any) -> Place | None:
        place = place_of(thing)
        if place is None or self._defines(place):
            return None
        made_here = place[0].foreign and not identity(thing).foreign
        return None if made_here else place  # the process that defines the namespace has no such global

    def _defines(self, place: Place) -> bool:
        return place in self._lent

    def _definition(self, function: FunctionType) -> Any:
        module = at_import(function)
        header = space_of(function).header if module is None else module
        place = place_of(function)
        key = identity(function).key if place is not None and self._defines(place) else None
        cells = function.__closure__ or ()
        new = [cell for cell in cells if id(cell) not in self._cells]
        self._cells.update(map(id, new))
        contents = [(cell, content(cell)) for cell in new if content(cell) is not EMPTY]
        needs = self._all_needs(reached_by(function))
        arguments = (header, needs, key, function.__code__, function.__name__, cells)
        hooked = {} if module is None else hooked_globals(function)
        state = (_attributes(function), dict(vars(function)), contents, hooked)
        return reconstruct.function, arguments, state, None, None, reconstruct.fill_function

    def _class(self, cls: type) -> Any:
        if by_reference(cls):
            return NotImplemented
        reference = self._reference(cls)
        if reference is not None:
            return reference
        reduced = super().reducer_override(cls)
        if reduced is NotImplemented:  # cloudpickle takes it for importable
            if not cls.__flags__ & _HEAP_TYPE:
                return NotImplemented
            reduced = _dynamic_class_reduce(cls)
        if len(reduced) < 6:  # types that are not where their names say: NoneType, CodeType
            make, arguments = reduced
            return (reconstruct.type_of_types if make is _builtin_type else make), arguments
        make, arguments, state, _, _, fill = reduced
        place = place_of(cls)
        root = place is not None and self._defines(place)
        header = place[0].header if place is not None and root else None
        self._classes.add(id(cls))
        version = None if root else _class_version(cls)
        if version is not None:  # the reader finds it again by its key, with its attributes
            self.by_name |= _parts(cls)
        known = (header, identity(cls).key, make, *_with_slots(cls, arguments))
        return reconstruct.dynamic_class, known, (version, fill, state), None, None, reconstruct.fill_class

    def _module(self, module: ModuleType) -> Any:
        if is_importable(module):
            return NotImplemented
        space = space_of_module(module)
        return reconstruct.module, (space.header, self._needs(self._module_places(module)))

    def _module_places(self, module: ModuleType) -> list[Place]:
        if module.__name__ == "__main__":
            return []
        space = space_of_module(module)
        return [(space, name) for name in vars(module) if name not in UNSENT]

    def _cached(self, wrapper: Any) -> Any:
        if by_reference(wrapper):
            return NotImplemented
        make, arguments, *state = REDUCTIONS[LRU](wrapper)
        place = place_of(wrapper)
        if place is None or not self._defines(place):
            return self._reference(wrapper) or (make, arguments, *state)
        space, name = place
        return (reconstruct.made, (space.header, name, identity(wrapper).key, make, *arguments), *state)

    def _all_needs(self, reached: ReachedNames) -> Needs:
        sources = tuple(source for source in reached.sources if source[0] not in self._sources)
        self._sources.update(filename for filename, _ in sources)
        return self._needs(reached.places)[0], reached.imports, sources

    def _needs(self, places: Iterable[Place]) -> Needs:
        if self._home:
            places = [place for place in places if not place[0].foreign]
        self.overtaken |= self.graph.add(places)
        return tuple(self.graph.pickled(places, self._written)), (), ()

    @property
    def graph(self) -> ObjectGraph:
        if self._graph is None:
            self._graph = ObjectGraph(ValuePickler)
        return self._graph

    @property
    def sent(self) -> Mapping[Place, SentGlobals | None]:
        """The globals that were reached, as they were sent; None for those that never had a value."""
        return self.graph.sent

    # -- the objects in the pickle ---------------------------------------------------------------------

    @property
    def ids(self) -> AbstractSet[int]:
        """The ids of all objects in the pickle, when it is complete. The pickler keeps the objects alive."""
        return self._all_objects().keys()

    def has(self, number: int) -> bool:
        """Tell whether the object of this id can be shared with other pickles."""
        return number not in self.by_name and shareable(self._all_objects()[number][1])

    def is_sentinel(self, number: int) -> bool:
        """Tell whether the object of this id is a sentinel, an `object()`, which never changes."""
        return type(self._all_objects()[number][1]) is object

    def _all_objects(self) -> dict[int, tuple[int, Any]]:
        if self._objects is None:
            self._objects = self.memo.copy()
        return self._objects


class ValuePickler(Pickler):
    """Pickles the values of some globals. The globals that these reach in turn are noted, not sent.

    Args:
        places: the globals.
        refs: globals that mean objects in the values. The reader takes these objects from there.
        unread: the pickle is only compared, so it need not be possible to read it.
    """

    def __init__(self, places: tuple[Place, ...], refs: tuple[Place, ...] = (), unread: bool = False) -> None:
        with io.BytesIO() as file:
            super().__init__(file)
            self.reached: dict[Place, None] = {}
            self.named: set[Place] = set(refs)
            self._places = places
            self._values = tuple(map(value_of, places))
            if refs or len(places) > 1:
                self._dump(self._values if unread else JointPickle(places, refs))
            else:
                self._dump(self._values[0])
            self.data = file.getvalue()

    def _dump(self, thing: Any) -> None:
        try:
            self.dump(thing)
        except UnsendableGlobal:
            raise
        except Exception as error:
            raise self._unsendable(error) from error

    def _unsendable(self, error: Exception) -> UnsendableGlobal:
        """Return the error that names the global, and the part of it, that cannot be sent."""
        place = next((place for place in self._places if not _can_be_sent(value_of(place), place)), self._places[0])
        path, part = culprit(value_of(place), place[1], lambda part: not _can_be_sent(part, place))
        return UnsendableGlobal(place[1], path, part, error)

    def _defines(self, place: Place) -> bool:
        return place in self._places

    def _module_places(self, module: ModuleType) -> list[Place]:
        return [] if any(module is value for value in self._values) else super()._module_places(module)

    def _reference(self, thing: Any) -> Any:
        place = self._place_to_name(thing)
        if place is not None:
            self.named.add(place)
        return super()._reference(thing)

    def _needs(self, places: Iterable[Place]) -> Needs:
        self.reached.update(dict.fromkeys(places))
        return (), (), ()


class _PartPickler(ValuePickler):
    """Pickles a part of the value of a global, to find out whether it can be sent."""

    def __init__(self, part: Any, place: Place) -> None:
        with io.BytesIO() as file:
            Pickler.__init__(self, file)
            self.reached, self.named = {}, set()
            self._places, self._values = (place,), (part,)
            self.dump(part)


def _can_be_sent(value: Any, place: Place) -> bool:
    try:
        _PartPickler(value, place)
    except Exception:
        return False
    return True


def _with_slots(cls: type, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Add the slots to the arguments of a class: cloudpickle omits them, and then instances cannot come back."""
    slots = None if issubclass(cls, tuple) else vars(cls).get("__slots__")
    if slots is None:
        return arguments
    return tuple({**a, "__slots__": slots} if type(a) is dict else a for a in arguments)


def _attributes(function: FunctionType) -> dict[str, Any]:
    """Return the attributes of a function that `FunctionType` does not set, and `vars` does not have."""
    found: dict[str, Any] = {"__qualname__": function.__qualname__, "__module__": function.__module__}
    for name in ("__doc__", "__defaults__", "__kwdefaults__", "__annotations__", "__type_params__"):
        try:
            value = getattr(function, name, None)
        except Exception:  # from 3.14 on annotations are evaluated now, and a name in them may not exist
            continue
        if value:
            found[name] = dict(value) if type(value) is dict else value
    return found


def _parts(cls: type) -> set[int]:
    """Return the ids of a class that is sent with a version, and of its parts."""
    sent = identity(cls).sent
    own = (cls.__bases__, *(value for name, value in vars(cls).items() if name in DERIVED))
    return {*map(id, own)} | (set() if sent is None else sent[1].ids)


def _class_version(cls: type) -> int | None:
    """Return a number that changes with the attributes of the class; None if they can change unseen."""
    known = identity(cls)
    if known.sent is None or not known.sent[1].unchanged(cls):
        taken = snapshot(cls)
        if taken is None or taken.open:
            return None
        known.sent = (next(_class_versions), taken)
    return known.sent[0]
