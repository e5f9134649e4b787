"""Tokens of values by their types: a table with a handler for each type.

An object of any other type counts by its class and its state, see `objects`.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from enum import Enum
from functools import cached_property, lru_cache, partial, singledispatchmethod
from importlib import import_module
from pathlib import PurePath
from struct import Struct
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NewType, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, WeakValueDictionary

from ..dependencies.replace_futures import is_future
from . import bytecode
from .containers import CONTAINERS, by_attributes, members, pairs, sequence, state
from .decorator import choice, ignored
from .digest import Encoder, Handler, combine, content, text, token
from .files import File, file_token
from .identity_memo import Memo
from .objects import derived, reduced, weak_table
from .packages import module_of, owner_of

_Cached = type(lru_cache(len))
_NONE: Any = object()

# -- functions, and wrappers of functions ---------------------------------------------------------------------


def _definition(encoder: Encoder, thing: Any) -> bytes:
    return encoder.definition(thing)


def _method(encoder: Encoder, method: MethodType) -> bytes:
    return _named(method) or combine(b"m", [encoder.token(method.__self__), encoder.token(method.__func__)])


def _builtin(encoder: Encoder, function: Any) -> bytes:
    bound_to = function.__self__
    if bound_to is None or isinstance(bound_to, ModuleType) or isinstance(function.__module__, str):
        return encoder.definition(function)
    return _named(function) or combine(b"m", [encoder.token(bound_to), text(b"s", function.__name__)])


def _named(method: Any) -> bytes | None:
    """Return the token of a method offered by an installed module as a function, such as `random.random`, by name.

    The object of the method does not count. None for other methods.
    """
    module = sys.modules.get(type(method.__self__).__module__)
    package = owner_of(vars(module)) if type(module) is ModuleType else None
    if package is None or getattr(module, method.__name__, None) != method:
        return None
    return text(b"g", package.name, package.version, type(method.__self__).__module__, method.__name__)


def _descriptor(encoder: Encoder, descriptor: Any) -> bytes:
    return combine(b"y", [encoder.token(descriptor.__objclass__), text(b"s", descriptor.__name__)])


def _around_function(kind: bytes, *names: str) -> Handler:
    """Return the handler of a descriptor, such as `property`: by its functions, and a docstring of its own."""
    parts = by_attributes(kind, *names)

    def token(encoder: Encoder, value: Any) -> bytes:
        made, own = parts(encoder, value), own_docstring(value)
        return made if own is None else combine(kind, [made, encoder.token(own)])

    return token


def own_docstring(value: Any) -> Any:
    """Return the docstring of a descriptor; None if copied from its function."""
    own = getattr(value, "__doc__", None)
    inner = next((getattr(value, name) for name in ("fget", "__func__", "func") if hasattr(value, name)), None)
    return None if own == getattr(inner, "__doc__", None) or own == type(value).__doc__ else own


def _code(encoder: Encoder, code: CodeType) -> bytes:
    made, others = bytecode.bytecode_token(code), bytecode.other_constants(code)
    return combine(b"_", [made, *map(encoder.token, others)]) if others else made


def _cached(encoder: Encoder, function: Any) -> bytes:
    """Return the token of a function with `functools.lru_cache`; the cached results do not count."""
    options = getattr(function, "cache_parameters", None)
    more = {name: value for name, value in vars(function).items() if not _is_copied(function, name, value)}
    made = _around(encoder, function, function.__wrapped__, options and options())
    return combine(b"W", [made, state(encoder, more)]) if more else made


def _is_copied(function: Any, name: str, value: Any) -> bool:
    """Return True if an attribute of a wrapper was copied from the wrapped function."""
    return name in ("__wrapped__", "cache_parameters") or value is getattr(function.__wrapped__, name, _NONE)


def _around(encoder: Encoder, value: Any, inner: Any, options: Any) -> bytes:
    return combine(b"W", [encoder.definition(type(value)), encoder.token(inner), encoder.token(options)])


def _compiled(encoder: Encoder, value: Any) -> bytes | None:
    """Return the token of a function compiled by `jit` of numba or jax; None for other functions."""
    library = module_of(type(value)).partition(".")[0]
    name = {"numba": "py_func", "jax": "__wrapped__", "jaxlib": "__wrapped__"}.get(library)
    inner = getattr(value, name, None) if name else None
    return None if inner is None else _around(encoder, value, inner, getattr(value, "targetoptions", None))


def _partial(encoder: Encoder, value: Any, left_out: frozenset[str]) -> bytes:
    """Return the token of a partial without the parameters that `keyed` leaves out."""
    from inspect import signature  # here, because this import is slow

    try:
        given = signature(value.func).bind_partial(*value.args, **value.keywords).arguments
    except TypeError:  # the call itself will fail, with the error of the function
        return reduced(encoder, value)
    kept = {name: part for name, part in given.items() if name not in left_out}
    return combine(b"W", [encoder.definition(type(value)), *map(encoder.token, (value.func, kept, vars(value)))])


def _callable(encoder: Encoder, value: Any) -> bytes:
    """Return the token of a callable object: by the user's version, by the wrapped function, or by its state."""
    chosen = choice(value)
    if chosen is not None and chosen.version is not None:
        names = (str(getattr(value, name, "")) for name in ("__module__", "__qualname__"))
        return text(b"V", *names, chosen.version)
    if type(value) is _Cached:
        return _cached(encoder, value)
    if isinstance(value, partial) and (left_out := ignored(value)):
        return _partial(encoder, value, left_out)
    return _compiled(encoder, value) or reduced(encoder, value)


# -- the table ---------------------------------------------------------------------------------------------


def _future(encoder: Encoder, future: Any) -> bytes:
    return encoder.future(future)


def _enum(encoder: Encoder, value: Any) -> bytes:
    return combine(b"e", [encoder.definition(type(value)), text(b"s", value.name or ""), encoder.token(value._value_)])


_HANDLERS: dict[type, Handler] = {
    **CONTAINERS,
    bytearray: lambda _, v: combine(b"Y", [content(b"b", memoryview(v))]),
    memoryview: lambda _, v: combine(b"w", [text(b"s", v.format, *map(str, v.shape)), token(b"b", v.tobytes())]),
    GenericAlias: by_attributes(b"G", "__origin__", "__args__"),
    property: _around_function(b"p", "fget", "fset", "fdel"),
    staticmethod: _around_function(b"Q", "__func__"),
    classmethod: _around_function(b"C", "__func__"),
    cached_property: _around_function(b"h", "func"),
    singledispatchmethod: by_attributes(b"K", "dispatcher", "func"),
    TypeVar: by_attributes(b"v", "__name__", "__bound__", "__constraints__", "__covariant__", "__contravariant__"),
    NewType: by_attributes(b"v", "__name__", "__supertype__"),
    ReferenceType: lambda e, v: combine(b"F", [e.token(v())]),
    object: lambda e, v: e.sentinel(v),
    FunctionType: _definition,
    ModuleType: _definition,
    BuiltinFunctionType: _builtin,
    MethodType: _method,
    MethodDescriptorType: _descriptor,
    WrapperDescriptorType: _descriptor,
    GetSetDescriptorType: _descriptor,
    MemberDescriptorType: _descriptor,
    CodeType: _code,
    Struct: by_attributes(b"H", "format"),
}

# For instances of subclasses too, the most specific class first.
_DERIVED: tuple[tuple[type, Handler], ...] = (
    (type, _definition),
    (ModuleType, _definition),
    (Enum, _enum),
    (File, lambda _, v: file_token(v)),
    (PurePath, lambda e, v: combine(b"/", [e.definition(type(v)), e.token(str(v))])),
    (OrderedDict, reduced),
    *((kind, weak_table) for kind in (WeakKeyDictionary, WeakValueDictionary)),
    (WeakSet, lambda e, v: combine(b"x", [e.definition(type(v)), members(e, list(v))])),
    (dict, derived(lambda e, v: pairs(e, dict.items(v)))),
    (list, derived(lambda e, v: sequence(e, list.__iter__(v)))),
    (tuple, derived(lambda e, v: sequence(e, tuple.__iter__(v)))),
    (set, derived(lambda e, v: members(e, set.__iter__(v)))),
    (frozenset, derived(lambda e, v: members(e, frozenset.__iter__(v)))),
    *((kind, derived(_HANDLERS[kind])) for kind in (property, staticmethod, classmethod)),
    (cached_property, lambda e, v: combine(b"x", [e.definition(type(v)), _HANDLERS[cached_property](e, v)])),
)
_others: Memo[Handler] = Memo()
_LIBRARIES = {
    **dict.fromkeys(("numpy", "pandas", "torch"), "arrays"),
    **dict.fromkeys(("ctypes", "_ctypes"), "ctypes_libraries"),
    **dict.fromkeys(("pydantic", "scipy", "xarray"), "library_objects"),
}


def handler_of(value: Any) -> Handler:
    """Return the handler of a value's class. The search is done once in the life of the class."""
    kind = type(value)
    known = _HANDLERS.get(kind) or _others.get(kind)
    return _others.put(kind, _find(value, kind)) if known is None else known


def _find(value: Any, kind: type) -> Handler:
    for base in kind.__mro__:
        library = _LIBRARIES.get(module_of(base).partition(".")[0])
        if library is not None:  # imported only now: most programs use few of them
            special: Handler | None = import_module(f".{library}", __package__).handler_of(base)
            if special is not None:
                return special
    if hasattr(kind, "n_sequence_fields"):  # as os.stat_result: with fields outside the tuple
        return reduced
    for base, handler in _DERIVED:
        if issubclass(kind, base):
            return handler
    if is_future(value):
        return _future
    return _callable if callable(value) else reduced
