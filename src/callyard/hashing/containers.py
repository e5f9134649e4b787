"""Tokens of containers: sequences, mappings, sets, and the states of objects.

The order of a mapping's keys and of a set's elements does not count. Keys and elements are sorted by their *outlines*:
bytes cheap to make and equal in each process. Tokens cannot serve, because values in a circle have none of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from functools import partial
from types import CodeType, FunctionType, MappingProxyType
from typing import Any, NamedTuple

from ..dependencies.replace_futures import is_future
from .digest import ATOMS, Encoder, Handler, UnkeyableError, combine, text
from .packages import module_of


class Outliner(NamedTuple):
    """What an encoder tells for outlines.

    Attributes:
        code_token: makes the token of a function's code; lambdas cannot be told apart by their names.
        result_of: returns the result as which a future counts, or None if it has none; default: there are no futures.
    """

    code_token: Callable[[CodeType], bytes]
    result_of: Callable[[Any], Any] | None = None


def outline(value: Any, by: Outliner, depth: int = 3) -> bytes:
    """Return the bytes for sorting a value: the token of an atom, otherwise the facts known without a walk.

    Args:
        value: a key, or an element of a set.
        by: tells what code and futures count as.
        depth: the number of levels of containers and attributes to count.
    """
    if by.result_of is not None and is_future(value):
        value = by.result_of(value)
    kind = type(value)
    atom = ATOMS.get(kind)
    if atom is not None:
        return atom(value)
    if not depth:
        return b"..."
    if kind is tuple or kind is frozenset:
        parts = (outline(part, by, depth - 1) for part in value)
        return combine(b"-", parts if kind is tuple else sorted(parts))
    names = text(b"-", module_of(kind), kind.__qualname__)
    if kind is FunctionType:
        return combine(b"-", [names, *_outline_of_function(value, by, depth)])
    if issubclass(kind, (type, Enum)):
        return combine(b"-", [names, text(b"-", str(getattr(value, "__qualname__", "") or value.name))])
    pairs = sorted((ATOMS[str](str(n)), outline(v, by, depth - 1)) for n, v in _attributes(value).items())
    return combine(b"-", [names, *(part for pair in pairs for part in pair)])


def _outline_of_function(function: FunctionType, by: Outliner, depth: int) -> list[bytes]:
    """Return the outlines of a function's name, code, defaults and closure."""
    held = [*(function.__defaults__ or ())]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty one
            held.append(cell.cell_contents)
    own = [text(b"-", function.__qualname__), by.code_token(function.__code__)]
    return [*own, *(outline(value, by, depth - 1) for value in held)]


def _attributes(value: Any) -> dict[Any, Any]:
    if type(value) is partial:
        return {"func": value.func, "args": value.args, **value.keywords}
    state = getattr(value, "__dict__", None)
    return state if type(state) is dict else {}


def sequence(encoder: Encoder, values: Iterable[Any]) -> bytes:
    """Return the token of values in their order."""
    parts: list[bytes] = []
    token = encoder.token
    try:
        for value in values:
            simple = ATOMS.get(type(value))
            parts.append(token(value) if simple is None else simple(value))
    except UnkeyableError as error:
        raise error.inside(f"[{len(parts)}]") from None
    return combine(b"[", parts)


def pairs(encoder: Encoder, items: Iterable[tuple[Any, Any]]) -> bytes:
    """Return the token of keys with their values, whatever their order."""
    outlined, parts = [(_label(encoder, key), key, value) for key, value in items], []
    for label, key, value in sorted(outlined, key=_first):
        key_token = label if type(key) in ATOMS else encoder.token(key)
        try:
            parts.append((label, key_token, encoder.token(value)))
        except UnkeyableError as error:
            raise error.inside(f"[{key!r:.40}]" if type(key) in ATOMS else "[...]") from None
    return combine(b"{", (part for _, *pair in sorted(parts) for part in pair))


def members(encoder: Encoder, values: Iterable[Any]) -> bytes:
    """Return the token of the elements of a set."""
    found = sorted(((_label(encoder, value), value) for value in values), key=_first)
    parts = sorted((label, label if type(value) in ATOMS else encoder.token(value)) for label, value in found)
    return combine(b"S", [part for _, part in parts])


def state(encoder: Encoder, found: Any) -> bytes:
    """Return the token of an object's state in the sense of `pickle`: mostly a dict of attributes in any order."""
    if type(found) is tuple and len(found) == 2 and type(found[1]) is dict:  # of a class with slots
        return combine(b"(", [state(encoder, found[0]), state(encoder, found[1])])
    if type(found) is not dict:
        return encoder.token(found)
    parts = []
    for name, value in sorted(found.items(), key=_name):
        try:
            parts.append((encoder.token(name), encoder.token(value)))
        except UnkeyableError as error:
            raise error.inside(f".{name}") from None
    return combine(b".", (part for pair in sorted(parts) for part in pair))


def _label(encoder: Encoder, value: Any) -> bytes:
    simple = ATOMS.get(type(value))
    return encoder.outline(value) if simple is None else simple(value)


def _name(entry: tuple[Any, Any]) -> str:
    return str(entry[0])


def _first(entry: tuple[Any, ...]) -> Any:
    return entry[0]


def by_attributes(kind: bytes, *names: str) -> Handler:
    """Return the handler of a type with just these attributes in its instances."""
    return lambda encoder, value: combine(kind, [encoder.token(getattr(value, name)) for name in names])


CONTAINERS: dict[type, Handler] = {
    list: lambda e, v: combine(b"l", [sequence(e, v)]),
    tuple: lambda e, v: combine(b"t", [sequence(e, v)]),
    dict: lambda e, v: combine(b"M", [pairs(e, v.items())]),
    set: lambda e, v: combine(b"u", [members(e, v)]),
    frozenset: lambda e, v: combine(b"z", [members(e, v)]),
    deque: lambda e, v: combine(b"q", [sequence(e, v), e.token(v.maxlen)]),
    MappingProxyType: lambda e, v: combine(b"P", [pairs(e, v.items())]),
    range: by_attributes(b"r", "start", "stop", "step"),
    slice: by_attributes(b"k", "start", "stop", "step"),
    type({}.keys()): lambda e, v: combine(b"d", [members(e, v)]),
    type({}.values()): lambda e, v: combine(b"d", [sequence(e, v)]),
    type({}.items()): lambda e, v: combine(b"d", [pairs(e, v)]),
}
