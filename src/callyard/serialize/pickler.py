"""The pickler: sends functions and classes by reference if a worker can import them, by value otherwise.

By value means code, defaults and closure. Beside these, each global reached by the code is a pickle of its own.
cloudpickle does everything else: code objects, the parts of classes, and objects unknown to pickle.
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
from .common_objects import shareable
from .definition_identity import identity
from .importable import by_reference
from .module_namespace import UNSENT, Needs, SentGlobals, Variable, space_of, space_of_module
from .name_references import JointPickle, NameReference, NameReferences
from .object_graph import ObjectGraph
from .reached_globals import ReachedNames, at_import, hooked_globals, is_importable, reached_by, value_of, variable_of
from .reductions import REDUCTIONS, reduction_of
from .unpicklable import UnsendableGlobal, culprit

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not a static type of an extension
_BUILDING = frozenset(value for value in vars(reconstruct).values() if type(value) is FunctionType)
_BY_NAME = frozenset((reconstruct.named, reconstruct.type_of_types, getattr))
_class_versions = count(1)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A pickler of functions and classes, as described above. `pickle.loads` reads the result.

    Args:
        file: the file for the pickle.
        buffer_callback: as in `pickle.Pickler`.
        reduce: the reduction to try first for each object; may return NotImplemented.
        to_driver: True if the reader has sent the functions of this process, and needs none of their globals.
        graph: the graph for the reached globals; a new one by default.
        lent: globals to pickle together with the object.
    """

    def __init__(
        self,
        file: Any,
        *,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
        reduce: Callable[[Any], Any] | None = None,
        to_driver: bool = False,
        graph: ObjectGraph | None = None,
        lent: tuple[Variable, ...] = (),
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._hook = reduce
        self._to_driver = to_driver
        self._graph = graph
        self.overtaken = False  # True if globals were written before a later find changed their form
        # Ids in these sets stay valid, because the memo keeps the objects alive.
        self.by_name: set[int] = set()  # ids of objects sent by name
        self._lent = lent
        self._objects: dict[int, tuple[int, Any]] | None = None
        self._written: set[Variable] = set(lent)
        self._cells: set[int] = set()  # ids of cells with contents in this pickle, written or still to come
        self._classes: set[int] = set()  # ids of classes defined in this pickle
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
            return reconstruct.shared, (obj.variable[0].header, obj.variable[1], self._needs((obj.variable,)))
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
        """Replace each reference in the memo by the object, so that later occurrences of the object refer there."""
        memo: dict[int, tuple[int, Any]] = self.memo.copy()
        for reference in obj.references:
            index, _ = memo.pop(id(reference))
            value = value_of(reference.variable)
            memo[id(value)] = index, value
            self.by_name.add(id(value))
        self.memo: Any = memo
        return tuple, ()

    def _function(self, function: FunctionType) -> Any:
        if by_reference(function):
            return NotImplemented
        return self._reference(function) or self._method(function) or self._definition(function)

    def _method(self, function: FunctionType) -> Any:
        """Reduce a method to a name in its class; None for other functions, and for methods sent with the class."""
        owner, _, name = function.__qualname__.rpartition(".")
        cls = function.__globals__.get(owner)
        if isinstance(cls, type) and id(cls) not in self._classes and vars(cls).get(name) is function:
            return getattr, (cls, name)
        return None

    def _reference(self, thing: Any) -> Any:
        """Reduce a function or class to a name in its namespace, with the needed globals; None without a name."""
        variable = self._variable_to_name(thing)
        if variable is None:
            return None
        space, name = variable
        return reconstruct.named, (space.header, name, identity(thing).key, self._needs((variable,)))

    def _variable_to_name(self, thing: Any) -> Variable | None:
        variable = variable_of(thing)
        if variable is None or self._defines(variable):
            return None
        made_here = variable[0].foreign and not identity(thing).foreign
        return None if made_here else variable  # no such global in the process of the namespace

    def _defines(self, variable: Variable) -> bool:
        return variable in self._lent

    def _definition(self, function: FunctionType) -> Any:
        module = at_import(function)
        header = space_of(function).header if module is None else module
        variable = variable_of(function)
        key = identity(function).key if variable is not None and self._defines(variable) else None
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
        if reduced is NotImplemented:  # cloudpickle considers the class importable, and is wrong
            if not cls.__flags__ & _HEAP_TYPE:
                return NotImplemented
            reduced = _dynamic_class_reduce(cls)
        if len(reduced) < 6:  # types missing in the module of their names: NoneType, CodeType
            make, arguments = reduced
            return (reconstruct.type_of_types if make is _builtin_type else make), arguments
        make, arguments, state, _, _, fill = reduced
        variable = variable_of(cls)
        root = variable is not None and self._defines(variable)
        header = variable[0].header if variable is not None and root else None
        self._classes.add(id(cls))
        version = None if root else _class_version(cls)
        if version is not None:  # the reader finds the class again by the key, with all attributes
            self.by_name |= _parts(cls)
        known = (header, identity(cls).key, make, *_with_slots(cls, arguments))
        return reconstruct.dynamic_class, known, (version, fill, state), None, None, reconstruct.fill_class

    def _module(self, module: ModuleType) -> Any:
        if is_importable(module):
            return NotImplemented
        space = space_of_module(module)
        return reconstruct.module, (space.header, self._needs(self._module_variables(module)))

    def _module_variables(self, module: ModuleType) -> list[Variable]:
        if module.__name__ == "__main__":
            return []
        space = space_of_module(module)
        return [(space, name) for name in vars(module) if name not in UNSENT]

    def _cached(self, wrapper: Any) -> Any:
        if by_reference(wrapper):
            return NotImplemented
        make, arguments, *state = REDUCTIONS[LRU](wrapper)
        variable = variable_of(wrapper)
        if variable is None or not self._defines(variable):
            return self._reference(wrapper) or (make, arguments, *state)
        space, name = variable
        return (reconstruct.made, (space.header, name, identity(wrapper).key, make, *arguments), *state)

    def _all_needs(self, reached: ReachedNames) -> Needs:
        sources = tuple(source for source in reached.sources if source[0] not in self._sources)
        self._sources.update(filename for filename, _ in sources)
        return self._needs(reached.variables)[0], reached.imports, sources

    def _needs(self, variables: Iterable[Variable]) -> Needs:
        if self._to_driver:
            variables = [variable for variable in variables if not variable[0].foreign]
        self.overtaken |= self.graph.add(variables)
        return tuple(self.graph.pickled(variables, self._written)), (), ()

    @property
    def graph(self) -> ObjectGraph:
        if self._graph is None:
            self._graph = ObjectGraph(ValuePickler)
        return self._graph

    @property
    def sent(self) -> Mapping[Variable, SentGlobals | None]:
        """The reached globals as sent; None for a global that never had a value."""
        return self.graph.sent

    # -- the objects in the pickle ---------------------------------------------------------------------

    @property
    def ids(self) -> AbstractSet[int]:
        """The ids of all objects in the pickle, when it is complete. The pickler keeps the objects alive."""
        return self._all_objects().keys()

    def has(self, number: int) -> bool:
        """Return True if the object of this id can be shared with other pickles."""
        return number not in self.by_name and shareable(self._all_objects()[number][1])

    def is_sentinel(self, number: int) -> bool:
        """Return True if the object of this id is a sentinel, an `object()`, which never changes."""
        return type(self._all_objects()[number][1]) is object

    def _all_objects(self) -> dict[int, tuple[int, Any]]:
        if self._objects is None:
            self._objects = self.memo.copy()
        return self._objects


class ValuePickler(Pickler):
    """A pickle of the values of some globals. Further globals, reached from the values, are noted and not sent.

    Args:
        variables: the globals.
        refs: other globals with objects in the values. The reader takes these objects from the other globals.
        unread: True for a pickle made only for comparison, never to be read.
    """

    def __init__(self, variables: tuple[Variable, ...], refs: tuple[Variable, ...] = (), unread: bool = False) -> None:
        with io.BytesIO() as file:
            super().__init__(file)
            self.reached: dict[Variable, None] = {}
            self.named: set[Variable] = set(refs)
            self._variables = variables
            self._values = tuple(map(value_of, variables))
            if refs or len(variables) > 1:
                self._dump(self._values if unread else JointPickle(variables, refs))
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
        """Return the error with the name of the unpicklable global and of its unpicklable part."""
        variable = next(
            (variable for variable in self._variables if not _can_be_sent(value_of(variable), variable)),
            self._variables[0],
        )
        path, part = culprit(value_of(variable), variable[1], lambda part: not _can_be_sent(part, variable))
        return UnsendableGlobal(variable[1], path, part, error)

    def _defines(self, variable: Variable) -> bool:
        return variable in self._variables

    def _module_variables(self, module: ModuleType) -> list[Variable]:
        return [] if any(module is value for value in self._values) else super()._module_variables(module)

    def _reference(self, thing: Any) -> Any:
        variable = self._variable_to_name(thing)
        if variable is not None:
            self.named.add(variable)
        return super()._reference(thing)

    def _needs(self, variables: Iterable[Variable]) -> Needs:
        self.reached.update(dict.fromkeys(variables))
        return (), (), ()


class _PartPickler(ValuePickler):
    """A trial pickle of a part of a global's value, to find the part that fails."""

    def __init__(self, part: Any, variable: Variable) -> None:
        with io.BytesIO() as file:
            Pickler.__init__(self, file)
            self.reached, self.named = {}, set()
            self._variables, self._values = (variable,), (part,)
            self.dump(part)


def _can_be_sent(value: Any, variable: Variable) -> bool:
    try:
        _PartPickler(value, variable)
    except Exception:
        return False
    return True


def _with_slots(cls: type, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Add the slots to the arguments of a class: cloudpickle omits slots, and then instances cannot come back."""
    slots = None if issubclass(cls, tuple) else vars(cls).get("__slots__")
    if slots is None:
        return arguments
    return tuple({**a, "__slots__": slots} if type(a) is dict else a for a in arguments)


def _attributes(function: FunctionType) -> dict[str, Any]:
    """Return the attributes of a function that are neither arguments of `FunctionType` nor in `vars`."""
    found: dict[str, Any] = {"__qualname__": function.__qualname__, "__module__": function.__module__}
    for name in ("__doc__", "__defaults__", "__kwdefaults__", "__annotations__", "__type_params__"):
        try:
            value = getattr(function, name, None)
        except Exception:  # from 3.14 on annotations are evaluated now, perhaps with a missing name
            continue
        if value:
            found[name] = dict(value) if type(value) is dict else value
    return found


def _parts(cls: type) -> set[int]:
    """Return the ids of a class with a version, and of its parts."""
    sent = identity(cls).sent
    own = (cls.__bases__, *(value for name, value in vars(cls).items() if name in DERIVED))
    return {*map(id, own)} | (set() if sent is None else sent[1].ids)


def _class_version(cls: type) -> int | None:
    """Return a number that changes with the attributes of the class; None if the attributes can change unseen."""
    known = identity(cls)
    if known.sent is None or not known.sent[1].unchanged(cls):
        taken = snapshot(cls)
        if taken is None or taken.open:
            return None
        known.sent = (next(_class_versions), taken)
    return known.sent[0]
