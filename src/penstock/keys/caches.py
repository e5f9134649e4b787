"""What objects remember of what they were asked: it follows from the rest, so it does not count.

Of instances that is the values of `cached_property` and its like, and what a library is known to keep beside its data.
"""

from __future__ import annotations

import functools
from functools import cached_property
from types import CellType, FunctionType
from typing import Any

from .memo import Memo
from .owners import module_of

_CACHED = frozenset(("cached_property", "cache_readonly", "lazyproperty", "reify"))  # names of the classes that make such
_REMEMBERED = frozenset(("_attrs_cached_hash",))
# By the library: of instances of its classes, and of classes made from them.
_OF_LIBRARIES = {
    "networkx": frozenset(("__networkx_cache__",)),
    "pandas": frozenset(("_cache", "_item_cache", "_cacher")),
    "scipy": frozenset(("_has_sorted_indices", "_has_canonical_format", "has_canonical_format")),
    "xarray": frozenset(("_cache",)),
}
_DISPATCHED = frozenset(("dispatch_cache", "cache_token"))  # of `functools.singledispatch`
_known: Memo[frozenset[str]] = Memo()


def names(kind: type) -> frozenset[str]:
    """The attributes of instances of a class that hold what was remembered."""
    return _known.get(kind) or _known.put(kind, _names(kind))


def _names(kind: type) -> frozenset[str]:
    found = set(_REMEMBERED)
    for base in kind.__mro__:
        found |= _OF_LIBRARIES.get(module_of(base).partition(".")[0], frozenset())
    looked_up = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
    for name, value in looked_up.items():
        if isinstance(value, cached_property) or type(value).__name__ in _CACHED:
            found.add(getattr(value, "attrname", None) or name)
    return frozenset(found)


def without(kind: type, state: Any) -> Any:
    """The state of an instance of a class, as `pickle` has it, less what was remembered."""
    if type(state) is tuple and len(state) == 2:  # of a class with slots
        return tuple(without(kind, part) for part in state)
    if type(state) is not dict:
        return state
    left = state.keys() - names(kind)
    kept = state if len(left) == len(state) else {name: state[name] for name in state if name in left}
    if type(kept.get("__dict__")) is dict:  # as pydantic has it
        kept = {**kept, "__dict__": without(kind, kept["__dict__"])}
    return kept


def cells(function: FunctionType) -> list[tuple[str, CellType]]:
    """The closure of a function, each cell with the name of its variable."""
    found = list(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if found and function.__globals__ is vars(functools):
        return [(name, cell) for name, cell in found if name not in _DISPATCHED]
    return found
