"""The caches inside of objects, which follow from other attributes and so do not count.

In instances: the values of `cached_property` and its like, and attributes of certain libraries.
"""

from __future__ import annotations

import functools
from functools import cached_property
from types import FunctionType
from typing import Any

from .identity_memo import Memo
from .packages import module_of

# Names of descriptor classes that store values in attributes of the instance.
_CACHED = frozenset(("cached_property", "cache_readonly", "lazyproperty", "reify"))
_CACHES = frozenset(("_attrs_cached_hash",))
# By library and name of a class, "" for any: attributes of its instances, and of instances of derived classes.
_OF_LIBRARIES = {
    ("networkx", ""): ("__networkx_cache__",),
    ("pandas", ""): ("_cache", "_item_cache", "_cacher"),
    ("scipy", ""): ("_has_sorted_indices", "_has_canonical_format", "has_canonical_format"),
    ("scipy", "Delaunay"): ("_transform", "_vertex_to_simplex", "_vertex_neighbor_vertices"),
}
_DISPATCHED = frozenset(("dispatch_cache", "cache_token", "_clear_cache"))  # of `functools.singledispatch`
_known: Memo[frozenset[str]] = Memo()


def names(kind: type) -> frozenset[str]:
    """Return the names of the cache attributes in instances of a class."""
    return _known.get(kind) or _known.put(kind, _names(kind))


def _names(kind: type) -> frozenset[str]:
    found = set(_CACHES)
    for base in kind.__mro__:
        library = module_of(base).partition(".")[0]
        found.update(_OF_LIBRARIES.get((library, ""), ()), _OF_LIBRARIES.get((library, base.__name__), ()))
    attributes = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
    for name, value in attributes.items():
        if isinstance(value, cached_property) or type(value).__name__ in _CACHED:
            found.add(getattr(value, "attrname", None) or name)
    return frozenset(found)


def without(state: Any, names: frozenset[str]) -> Any:
    """Return the state of an instance in the sense of `pickle`, without its caches."""
    if type(state) is tuple and len(state) == 2:  # of a class with slots
        both = tuple(without(part, names) for part in state)
        return None if both[0] is None and both[1] is None else both
    if type(state) is not dict:
        return state
    if type(state.get("__dict__")) is dict:  # the form of pydantic
        state = {**state, "__dict__": without(state["__dict__"], names) or {}}
    return state if names.isdisjoint(state) else {name: state[name] for name in state if name not in names} or None


def cell_numbers(function: FunctionType) -> list[int]:
    """Return the numbers of the cells in a function's closure, without caches."""
    names = function.__code__.co_freevars
    skipped = _DISPATCHED if names and function.__globals__ is vars(functools) else ()
    return [number for number, name in enumerate(names) if name not in skipped]


def attributes(function: FunctionType) -> dict[str, Any]:
    """Return the attributes of a function, without caches."""
    found = function.__dict__
    if found and function.__globals__ is vars(functools):
        return {name: value for name, value in found.items() if name not in _DISPATCHED}
    return found
