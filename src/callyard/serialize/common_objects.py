"""The search for objects common to the values of different globals, each of which must stay one object in the reader.

The memos of picklers list the objects in a value, so nothing here walks through the user's objects.
"""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import Enum
from types import BuiltinFunctionType, CodeType, GenericAlias, ModuleType, UnionType
from typing import Any, Protocol, TypeVar

from .module_namespace import UNSENT, ModuleNamespace, Variable

# Types with equal objects that no program can tell apart, or with objects found by name.
_INTERCHANGEABLE = frozenset(
    (
        *(int, float, complex, bool, str, bytes, range, slice, CodeType, ModuleType, BuiltinFunctionType),
        *(type(None), type(...), type(NotImplemented), GenericAlias, UnionType),
    )
)
_IMPORTED_TYPES = frozenset(("typing", "typing_extensions", "dataclasses", "_io"))  # modules of such types
_CONTAINERS = frozenset((list, dict, set, bytearray, object))


class PickledObjects(Protocol):
    """The objects in a pickle of globals."""

    @property
    def variables(self) -> tuple[Variable, ...]: ...

    @property
    def links(self) -> AbstractSet[Variable]:
        """The globals needed by the reader, because the pickle refers to objects in their values."""

    @property
    def refs(self) -> tuple[Variable, ...]: ...

    @property
    def ids(self) -> AbstractSet[int]: ...

    def has(self, number: int) -> bool:
        """Return True if the object of this id can be shared with another pickle."""


M = TypeVar("M", bound=PickledObjects)


def shareable(thing: Any) -> bool:
    """Return True if a program can tell two copies of an object from one."""
    kind = type(thing)
    if kind in _CONTAINERS:
        return True
    if kind is tuple or kind is frozenset:
        return any(map(shareable, thing))
    if kind in _INTERCHANGEABLE or kind.__module__ in _IMPORTED_TYPES or isinstance(thing, Enum):
        return False
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(thing, (numpy.dtype, numpy.generic)):
        return False
    return not _found_by_name(thing, kind)


def _found_by_name(thing: Any, kind: type) -> bool:
    """Return True if pickle sends only a name, as for ufuncs and many sentinels."""
    try:
        reduce = copyreg.dispatch_table.get(kind)
        return isinstance(thing.__reduce_ex__(5) if reduce is None else reduce(thing), str)
    except Exception:  # functions, and types only for cloudpickle
        return False


def order(variable: Variable) -> tuple[Any, ...]:
    """Return the key for sorting globals, so that equal calls give equal pickles, however the globals were reached."""
    return variable[0].header[0], variable[1]


def owners(spaces: Iterable[ModuleNamespace]) -> dict[int, Variable]:
    """Return the first global of each object, by the id of the object."""
    found: dict[int, Variable] = {}
    for space in sorted(spaces, key=lambda space: space.header[0]):
        for name, value in list(space.globals().items()):
            if type(value) not in _INTERCHANGEABLE and name not in UNSENT:
                found.setdefault(id(value), (space, name))
    return found


def linked(one: PickledObjects, other: PickledObjects) -> bool:
    """Return True if either of two pickles refers to an object of the other."""
    return not set(one.refs).isdisjoint(other.variables) or not set(other.refs).isdisjoint(one.variables)


def sharing(pickles: list[M]) -> list[list[M]]:
    """Return the groups of pickles that share an object, directly or through other pickles."""
    members = [pickle for pickle in pickles if pickle.ids]
    return [group for group in _components(members) if len(group) > 1] if len(members) > 1 else []


def _components(pickles: list[M]) -> list[list[M]]:
    firsts: dict[int, M] = {}  # the first pickle with an object, by the id of the object
    group = {id(pickle): [pickle] for pickle in pickles}
    for pickle in pickles:
        for number in pickle.ids & firsts.keys():
            first = firsts[number]
            mine, theirs = group[id(pickle)], group[id(first)]
            if mine is not theirs and pickle.has(number) and first.has(number):
                theirs += mine
                group.update((id(member), theirs) for member in mine)
        for number in pickle.ids:
            firsts.setdefault(number, pickle)
    return list({id(members): members for members in group.values()}.values())


def circles(pickles: list[M]) -> list[list[M]]:
    """Return the groups of pickles in a circle of references, so that no order of reading exists."""
    by_variable = {variable: pickle for pickle in pickles for variable in pickle.variables}
    targets = {
        id(s): [by_variable[p] for p in s.links if p in by_variable and by_variable[p] is not s] for s in pickles
    }
    special = [pickle for pickle in pickles if pickle.refs or len(pickle.variables) > 1]
    found: dict[int, list[M]] = {}
    for pickle in special:
        after = _reachable(pickle, targets)
        circle = [other for other in after.values() if id(pickle) in _reachable(other, targets)]
        if circle:
            circle = list({id(s): s for s in (pickle, *circle)}.values())
            found.setdefault(min(map(id, circle)), circle)
    return list(found.values())


def _reachable(pickle: M, targets: dict[int, list[M]]) -> dict[int, M]:
    found: dict[int, M] = {}
    todo = list(targets[id(pickle)])
    while todo:
        one = todo.pop()
        if id(one) not in found:
            found[id(one)] = one
            todo.extend(targets[id(one)])
    return found
