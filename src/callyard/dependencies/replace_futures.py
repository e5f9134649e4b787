"""The search for futures among the arguments of a call, and the replacement of each by its result.

Used in front of another library's executor, where arguments stay in this process. Elsewhere arguments are pickled
anyway, and the pickler finds the futures: see `serialize.packer`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from concurrent.futures import Future as StandardFuture
from typing import Any

_PLAIN = frozenset((int, float, complex, bool, str, bytes, bytearray, type(None), range, slice))
_CONTAINERS = (list, tuple, dict, set, frozenset)
_FUTURE_METHODS = ("add_done_callback", "cancelled", "done", "exception", "result")
_future_types: dict[type, bool] = {StandardFuture: True}


def is_future(value: object) -> bool:
    """Return True for a future of any library but asyncio, recognized by its methods."""
    kind = type(value)
    known = _future_types.get(kind)
    if known is None:
        known = _future_types[kind] = _looks_like_a_future(kind)
    return known


def _looks_like_a_future(kind: type) -> bool:
    if issubclass(kind, StandardFuture):
        return True
    if any(base.__module__ in ("asyncio.futures", "_asyncio") for base in kind.__mro__):
        return False  # callbacks of these futures run in an event loop, and `result()` does not wait
    return all(callable(getattr(kind, name, None)) for name in _FUTURE_METHODS)


def find_futures(value: Any) -> list[Any]:
    """Return the futures in `value`, at any depth of lists, tuples, dicts, sets and dataclasses, each once."""
    return [part for part in _visited(value) if is_future(part)]


def replace_futures(value: Any, replacement: Callable[[Any], Any]) -> Any:
    """Return `value` with `replacement(future)` for each future in it; containers without one stay the same objects.

    What is there twice stays one, and what contains itself does so afterwards.
    """
    visited = _visited(value)
    return _Replacement(visited, replacement).of(value) if any(map(is_future, visited)) else value


def _visited(value: Any) -> list[Any]:
    """Return the futures and containers in `value`, each once; a loop, because structures may be deep."""
    found, stack = {}, [value]
    while stack:
        part = stack.pop()
        if type(part) in _PLAIN or id(part) in found:
            continue
        if is_future(part):
            found[id(part)] = part
        elif isinstance(part, _CONTAINERS) or _is_dataclass(part):
            found[id(part)] = part
            stack.extend(reversed(_parts(part)))
    return list(found.values())


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _parts(container: Any) -> list[Any]:
    parts: list[Any] = []
    if isinstance(container, dict):
        parts = [part for pair in container.items() for part in pair]
    elif isinstance(container, _CONTAINERS) and not set(map(type, container)) <= _PLAIN:  # at the speed of C
        parts = list(container)
    return [*parts, *_fields(container).values()]


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are set, by name; none of another object."""
    if not _is_dataclass(value):
        return {}
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


class _Replacement:
    """The copies of the containers from which a future can be reached, by their ids; all others stay themselves."""

    def __init__(self, visited: list[Any], replacement: Callable[[Any], Any]) -> None:
        self._new = replacement
        self._copies: dict[int, Any] = {}
        self._visited = visited  # alive, so that their ids stay valid
        self._affected = _holders(visited)

    def of(self, value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        if is_future(value):
            return self._new(value)
        if id(value) not in self._affected:
            return value
        if id(value) not in self._copies:
            # Noted before it is filled where that is possible, as it may contain itself.
            if isinstance(value, (tuple, frozenset)):
                items = [self.of(item) for item in value]
                kind = type(value)
                copied = kind._make(items) if hasattr(kind, "_make") else kind(items)  # a named tuple has _make
                self._copies.setdefault(id(value), copied)  # perhaps an item contains it, and has made a copy
            else:
                self._copies[id(value)] = _empty(value)
                self._fill(self._copies[id(value)], value)
        return self._copies[id(value)]

    def _fill(self, fresh: Any, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():  # one by one, as pickle does: a Counter would count, in `update`
                fresh[self.of(key)] = self.of(item)
        elif isinstance(value, (list, set)):
            add = fresh.extend if isinstance(value, list) else fresh.update
            add([self.of(item) for item in value])
        for name, field in _fields(value).items():
            object.__setattr__(fresh, name, self.of(field))  # the class may be frozen


def _holders(visited: list[Any]) -> set[int]:
    """Return the ids of the containers from which a future can be reached."""
    holders: dict[int, list[int]] = {}
    for container in visited:
        if not is_future(container):
            for part in _parts(container):
                holders.setdefault(id(part), []).append(id(container))
    affected: set[int] = set()
    reached = [id(part) for part in visited if is_future(part)]
    while reached:
        for holder in holders.get(reached.pop(), ()):
            if holder not in affected:
                affected.add(holder)
                reached.append(holder)
    return affected


def _empty(value: Any) -> Any:
    """Return a new object of the same class without its content, with the attributes that are no fields."""
    if type(value) in (list, dict, set):
        return type(value)()
    if isinstance(value, (list, dict, set)):
        fresh = copy.copy(value)  # keeps the factory of a defaultdict, and the attributes of a user's class
        fresh.clear()
        return fresh
    # Not by dataclasses.replace, which would run __init__ and __post_init__ again, and refuses init=False fields.
    fresh = object.__new__(type(value))
    for name, attribute in getattr(value, "__dict__", {}).items():
        object.__setattr__(fresh, name, attribute)
    return fresh
