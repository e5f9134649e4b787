"""Pickles whose arrays are datasets beside them, named by their places in the value."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from .dtypes import describe_array
from .hdf5 import MAX_RANK, is_name
from .pickles import KeepFile, dumps

_APART = 1000  # arrays beside one pickle, and at most _SMALL_APART of less than _SMALL bytes
_SMALL_APART = 64
_SMALL = 4096
_VISITS = 2000  # objects looked at in search of the arrays' places
_DEPTH = 6


def dump(value: Any, keep: KeepFile | None = None) -> tuple[bytes, list[tuple[Any, Any, str]]]:
    """Return the pickle, and the arrays beside it, each with its described dtype (see `dtypes.describe`) and a name.

    `keep` is called for files in the value, as by `pickles.dumps`.
    """
    chosen = _ArraySelection()
    data, arrays = dumps(value, chosen, keep)
    names = _names(value, arrays) if arrays else {}
    return data, [(array, dtype, names[id(array)]) for array, dtype in zip(arrays, chosen.dtypes, strict=True)]


class _ArraySelection:
    """The choice of arrays to be stored beside a pickle; called once for each object in it."""

    def __init__(self) -> None:
        self.dtypes: list[Any] = []
        self._small = 0

    def __call__(self, thing: Any) -> bool:
        kind = type(thing)
        if kind.__name__ != "ndarray" or kind.__module__ != "numpy" or thing.ndim > MAX_RANK:
            return False
        small = thing.nbytes < _SMALL
        if len(self.dtypes) == _APART or (small and self._small == _SMALL_APART):
            return False
        described = describe_array(thing)
        if described is None:
            return False
        self._small += small
        self.dtypes.append(described)
        return True


def _names(value: Any, arrays: list[Any]) -> dict[int, str]:
    """Return a name for each array, by its id: its path in the value, or else a number."""
    found: dict[int, str] = {}
    missing = {id(array) for array in arrays}
    todo = [(value, "", 0)]
    for _ in range(_VISITS):
        if not todo or not missing:
            break
        thing, path, depth = todo.pop()
        if id(thing) in missing:
            missing.remove(id(thing))
            found[id(thing)] = path
        elif depth < _DEPTH:
            todo.extend((item, f"{path}/{name}" if path else name, depth + 1) for name, item in _members(thing))
    nameless = [id(array) for array in arrays if id(array) not in found]
    return found | {array: f"array-{number}" for number, array in enumerate(nameless)}


def _members(thing: Any) -> Iterable[tuple[str, Any]]:
    """Return the members of an object with names that have no other use in the file."""
    if type(thing) is list or type(thing) is tuple:
        return [(str(number), item) for number, item in enumerate(thing[:_VISITS])]
    held = thing if type(thing) is dict else _attributes(thing)
    named = itertools.islice(held.items(), _VISITS)
    return [(k, v) for k, v in named if is_name(k) and k != "pickle" and not k.startswith("array-")]


def _attributes(thing: Any) -> dict[Any, Any]:
    if isinstance(thing, (type, ModuleType)):
        return {}
    try:
        held = thing.__dict__
    except Exception:  # a class of the user's may do anything here
        return {}
    return held if type(held) is dict else {}
