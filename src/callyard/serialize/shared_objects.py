"""The search for objects that values of different globals share, and that must be one object where they are read.

The memos of picklers tell which objects a value contains, so nothing here walks through the user's objects.
"""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import Enum
from types import BuiltinFunctionType, CodeType, GenericAlias, ModuleType, UnionType
from typing import Any, Protocol, TypeVar

from .module_namespace import UNSENT, ModuleNamespace, Place

# Nobody can tell two equal objects of these types apart, or they are found by their names.
_INTERCHANGEABLE = frozenset(
    (
        *(int, float, complex, bool, str, bytes, range, slice, CodeType, ModuleType, BuiltinFunctionType),
        *(type(None), type(...), type(NotImplemented), GenericAlias, UnionType),
    )
)
_IMPORTED_TYPES = frozenset(("typing", "typing_extensions", "dataclasses", "_io"))  # modules of such types
_CONTAINERS = frozenset((list, dict, set, bytearray, object))


class PickledObjects(Protocol):
    """The objects that are in a pickle of globals."""

    @property
    def places(self) -> tuple[Place, ...]: ...

    @property
    def links(self) -> AbstractSet[Place]:
        """The globals whose values must be there when it is read, because it refers to objects in them."""

    @property
    def refs(self) -> tuple[Place, ...]: ...

    @property
    def ids(self) -> AbstractSet[int]: ...

    def has(self, number: int) -> bool:
        """Tell whether the object of this id can be shared with another pickle."""


M = TypeVar("M", bound=PickledObjects)


def shareable(thing: Any) -> bool:
    """Tell whether a program can see that there are two objects instead of one."""
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
    """Tell whether pickle sends only a name, as it does for ufuncs and many sentinels."""
    try:
        reduce = copyreg.dispatch_table.get(kind)
        return isinstance(thing.__reduce_ex__(5) if reduce is None else reduce(thing), str)
    except Exception:  # functions, and types that only cloudpickle can reduce
        return False


def order(place: Place) -> tuple[Any, ...]:
    """Return the key by which globals are sorted, so that the order does not depend on which was reached first."""
    return place[0].header[0], place[1]


def owners(spaces: Iterable[ModuleNamespace]) -> dict[int, Place]:
    """Return, by the id of an object, the first global that means it."""
    found: dict[int, Place] = {}
    for space in sorted(spaces, key=lambda space: space.header[0]):
        for name, value in list(space.globals().items()):
            if type(value) not in _INTERCHANGEABLE and name not in UNSENT:
                found.setdefault(id(value), (space, name))
    return found


def linked(one: PickledObjects, other: PickledObjects) -> bool:
    """Tell whether one of them refers to an object of the other's."""
    return not set(one.refs).isdisjoint(other.places) or not set(other.refs).isdisjoint(one.places)


def sharing(pickles: list[M]) -> list[list[M]]:
    """Return the groups that share an object, directly or through others."""
    members = [pickle for pickle in pickles if pickle.ids]
    return [group for group in _components(members) if len(group) > 1] if len(members) > 1 else []


def _components(pickles: list[M]) -> list[list[M]]:
    firsts: dict[int, M] = {}  # by the id of an object, the first that contains it
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
    """Return the groups that refer to each other in a circle, and so cannot be read one after the other."""
    by_place = {place: pickle for pickle in pickles for place in pickle.places}
    targets = {id(s): [by_place[p] for p in s.links if p in by_place and by_place[p] is not s] for s in pickles}
    special = [pickle for pickle in pickles if pickle.refs or len(pickle.places) > 1]
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
