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
    found: dict[int, Any] = {}

    def note(future: Any) -> Any:
        found[id(future)] = future
        return future

    replace_futures(value, note)
    return list(found.values())


def replace_futures(value: Any, replacement: Callable[[Any], Any]) -> Any:
    """Return `value` with `replacement(future)` for each future in it; containers without one stay the same objects."""
    return _replace(value, replacement, {})


# Containers with their replacements, by id. So a container with two references stays one object, and a container
# inside itself is visited once. Keeping the container alive keeps its id valid.
_Seen = dict[int, tuple[Any, Any]]


def _replace(value: Any, new: Callable[[Any], Any], seen: _Seen) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if is_future(value):
        return new(value)
    if not (isinstance(value, (list, tuple, dict, set, frozenset)) or _is_dataclass(value)):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = value, value
    result = _replace_inside(value, new, seen)
    seen[id(value)] = value, result
    return result


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _replace_inside(value: Any, new: Callable[[Any], Any], seen: _Seen) -> Any:
    if isinstance(value, dict):
        pairs = [(_replace(k, new, seen), _replace(v, new, seen)) for k, v in value.items()]
        same = all(k is k2 and v is v2 for (k, v), (k2, v2) in zip(value.items(), pairs, strict=True))
        return value if same else _rebuilt_dict(value, pairs)
    if isinstance(value, (list, tuple, set, frozenset)):
        if set(map(type, value)) <= _PLAIN:  # the common large case, at the speed of C
            return value
        items = [_replace(v, new, seen) for v in value]
        same = all(a is b for a, b in zip(value, items, strict=True))
        return value if same else _rebuilt(value, items)
    changes = {}
    for field in dataclasses.fields(value):
        if hasattr(value, field.name):
            old = getattr(value, field.name)
            changed = _replace(old, new, seen)
            if changed is not old:
                changes[field.name] = changed
    return _changed(value, changes) if changes else value


def _rebuilt_dict(old: dict[Any, Any], pairs: list[tuple[Any, Any]]) -> Any:
    if type(old) is dict:
        return dict(pairs)
    fresh = copy.copy(old)  # keeps the factory of a defaultdict, and the attributes of a user's class
    fresh.clear()
    fresh.update(pairs)
    return fresh


def _rebuilt(old: Any, items: list[Any]) -> Any:
    kind = type(old)
    if kind in (list, set) or not isinstance(old, (list, set)):
        return kind._make(items) if hasattr(kind, "_make") else kind(items)  # a named tuple has _make
    fresh: Any = copy.copy(old)  # keeps the attributes of a user's class
    fresh.clear()
    add = fresh.extend if isinstance(old, list) else fresh.update
    add(items)
    return fresh


def _changed(old: Any, changes: dict[str, Any]) -> Any:
    # Not by dataclasses.replace, which would run __init__ and __post_init__ again, and refuses init=False fields.
    fresh = object.__new__(type(old))
    for field in dataclasses.fields(old):
        if hasattr(old, field.name):
            object.__setattr__(fresh, field.name, changes.get(field.name, getattr(old, field.name)))
    for name, value in getattr(old, "__dict__", {}).items():
        if name not in fresh.__dict__:
            object.__setattr__(fresh, name, value)
    return fresh
