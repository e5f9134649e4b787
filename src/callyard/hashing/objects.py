"""Tokens of objects without a handler: by their class, and their state in the sense of `pickle`."""

from __future__ import annotations

import copyreg
import sys
from types import ModuleType
from typing import Any

from . import value_caches
from .containers import pairs as dict_pairs
from .containers import sequence, state
from .digest import Encoder, Handler, UnkeyableError, combine, text
from .packages import module_of, owner_of


def attributes(encoder: Encoder, value: Any) -> bytes:
    """Return the token of the attributes of an instance of a subclass of a container."""
    kind = type(value)
    found = {**getattr(value, "__dict__", {})}
    for name in copyreg._slotnames(kind):  # type: ignore[attr-defined]
        if hasattr(value, name):
            found[name] = getattr(value, name)
    factory = getattr(value, "default_factory", None)
    counted = value_caches.without(found, value_caches.names(kind)) or {}
    return combine(b"a", [state(encoder, counted), encoder.token(factory)])


def derived(handler: Handler) -> Handler:
    """Return the handler of classes that derive from a container: by class, content and attributes."""
    return lambda e, v: combine(b"x", [e.definition(type(v)), handler(e, v), attributes(e, v)])


def reduced(encoder: Encoder, value: Any, leaving_out: frozenset[str] = frozenset()) -> bytes:
    """Return the token of an object by its class and its `__reduce_ex__`: for most classes, the state.

    Args:
        encoder: makes the tokens of the parts.
        value: any object.
        leaving_out: names of attributes to ignore.

    Raises:
        UnkeyableError: the object cannot be reduced.
    """
    kind = type(value)
    try:
        reduce = copyreg.dispatch_table.get(kind)
        made = reduce(value) if reduce is not None else value.__reduce_ex__(4)
    except (UnkeyableError, RecursionError, MemoryError):
        raise
    except Exception as error:
        raise UnkeyableError(value, str(error)) from error
    if isinstance(made, str):
        return _global(encoder, value, made)
    make, arguments, own, items, pairs, setter = (*made, None, None, None, None)[:6]
    if make is copyreg.__newobj__ and len(arguments) == 1 and arguments[0] is kind:  # type: ignore[attr-defined]
        made_by = b"new"  # so are most objects
    else:
        made_by = combine(b"O", [encoder.token(make), state(encoder, arguments)])
    counted = value_caches.without(own, value_caches.names(kind) | leaving_out)
    tokens = [encoder.definition(kind), made_by, state(encoder, counted)]
    tokens.append(b"" if items is None else sequence(encoder, items))
    tokens.append(b"" if pairs is None else combine(b"[", [sequence(encoder, pair) for pair in pairs]))
    return combine(b"O", [*tokens, encoder.token(setter)])


def _global(encoder: Encoder, value: Any, name: str) -> bytes:
    """Return the token of an object pickled as a name in its module."""
    module = module_of(value)
    found = sys.modules.get(module)
    package = owner_of(vars(found)) if isinstance(found, ModuleType) else None
    if package is not None and getattr(found, name, None) is value:
        return text(b"g", package.name, package.version, module, name)
    return combine(b"g", [encoder.definition(type(value)), text(b"s", module, name)])


def weak_table(encoder: Encoder, table: Any) -> bytes:
    """Return the token of a weak dictionary: by its live entries."""
    return combine(b"x", [encoder.definition(type(table)), dict_pairs(encoder, list(table.items()))])
