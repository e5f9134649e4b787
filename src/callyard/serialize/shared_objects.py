"""Which values have an object in common that must stay one, told from what picklers have met."""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import Enum
from types import BuiltinFunctionType, CodeType, GenericAlias, ModuleType, UnionType
from typing import Any, Protocol, TypeVar

from .module_namespace import UNSENT, ModuleNamespace

Place = tuple[ModuleNamespace, str]  # a name in a namespace

# Objects of these types are as good as any other that is equal, or are found by their names.
_INTERCHANGEABLE = frozenset(
    (
        *(int, float, complex, bool, str, bytes, range, slice, CodeType, ModuleType, BuiltinFunctionType),
        *(type(None), type(...), type(NotImplemented), GenericAlias, UnionType),
    )
)
_FOUND_AGAIN = frozenset(("typing", "typing_extensions", "dataclasses", "_io"))  # modules of such types
_CONTAINERS = frozenset((list, dict, set, bytearray, object))


class MetObjects(Protocol):
    """What a pickler met."""

    @property
    def places(self) -> tuple[Place, ...]: ...

    @property
    def links(self) -> AbstractSet[Place]:
        """The names that it refers to by what they mean, not only by name."""

    @property
    def refs(self) -> tuple[Place, ...]: ...

    @property
    def ids(self) -> AbstractSet[int]: ...

    def has(self, number: int) -> bool:
        """Whether the object of this id can be shared with another."""


M = TypeVar("M", bound=MetObjects)


def shareable(thing: Any) -> bool:
    """Whether somebody can see that two of it are not one."""
    kind = type(thing)
    if kind in _CONTAINERS:
        return True
    if kind is tuple or kind is frozenset:
        return any(map(shareable, thing))
    if kind in _INTERCHANGEABLE or kind.__module__ in _FOUND_AGAIN or isinstance(thing, Enum):
        return False
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(thing, (numpy.dtype, numpy.generic)):
        return False
    return not _found_by_name(thing, kind)


def _found_by_name(thing: Any, kind: type) -> bool:
    """Whether pickle sends only a name, as it does for ufuncs and many markers."""
    try:
        reduce = copyreg.dispatch_table.get(kind)
        return isinstance(thing.__reduce_ex__(5) if reduce is None else reduce(thing), str)
    except Exception:  # functions, and what only cloudpickle knows
        return False


def order(place: Place) -> tuple[Any, ...]:
    """The same one in every process, whatever was looked at first."""
    return place[0].header[0], place[1]


def owners(spaces: Iterable[ModuleNamespace]) -> dict[int, Place]:
    """The name that stands for an object, by its id: the first that means it."""
    found: dict[int, Place] = {}
    for space in sorted(spaces, key=lambda space: space.header[0]):
        for name, value in list(space.globals().items()):
            if type(value) not in _INTERCHANGEABLE and name not in UNSENT:
                found.setdefault(id(value), (space, name))
    return found


def linked(one: MetObjects, other: MetObjects) -> bool:
    """Whether one of them refers to an object of the other's."""
    return not set(one.refs).isdisjoint(other.places) or not set(other.refs).isdisjoint(one.places)


def sharing(streams: list[M]) -> list[list[M]]:
    """Those that have an object in common, directly or through others."""
    members = [stream for stream in streams if stream.ids]
    return [group for group in _components(members) if len(group) > 1] if len(members) > 1 else []


def _components(streams: list[M]) -> list[list[M]]:
    firsts: dict[int, M] = {}  # who met an object first
    group = {id(stream): [stream] for stream in streams}
    for stream in streams:
        for number in stream.ids & firsts.keys():
            first = firsts[number]
            mine, theirs = group[id(stream)], group[id(first)]
            if mine is not theirs and stream.has(number) and first.has(number):
                theirs += mine
                group.update((id(member), theirs) for member in mine)
        for number in stream.ids:
            firsts.setdefault(number, stream)
    return list({id(members): members for members in group.values()}.values())


def circles(streams: list[M]) -> list[list[M]]:
    """Those that refer to each other in circles which need more than names."""
    by_place = {place: stream for stream in streams for place in stream.places}
    targets = {id(s): [by_place[p] for p in s.links if p in by_place and by_place[p] is not s] for s in streams}
    special = [stream for stream in streams if stream.refs or len(stream.places) > 1]
    found: dict[int, list[M]] = {}
    for stream in special:
        after = _reachable(stream, targets)
        circle = [other for other in after.values() if id(stream) in _reachable(other, targets)]
        if circle:
            circle = list({id(s): s for s in (stream, *circle)}.values())
            found.setdefault(min(map(id, circle)), circle)
    return list(found.values())


def _reachable(stream: M, targets: dict[int, list[M]]) -> dict[int, M]:
    found: dict[int, M] = {}
    todo = list(targets[id(stream)])
    while todo:
        one = todo.pop()
        if id(one) not in found:
            found[id(one)] = one
            todo.extend(targets[id(one)])
    return found
