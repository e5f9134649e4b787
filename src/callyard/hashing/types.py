"""What values of each kind mean.

What nothing here knows counts by its class and by what `pickle` would make it from.
"""

from __future__ import annotations

import copyreg
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
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
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any, NewType, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, WeakValueDictionary

from ..dependencies.find_futures import is_future
from ..dependencies.wait import failure_of
from . import value_caches
from .decorator import choice
from .digest import ATOMS, UnkeyableError, combine, content, text, token
from .identity_memo import Memo
from .packages import module_of, owner_of

if TYPE_CHECKING:
    from .values import Encoder

Handler = Callable[["Encoder", Any], bytes]


def outline(value: Any, depth: int = 3) -> bytes:
    """What a key is ordered by: its token if that is plain, otherwise what can be said of it without a walk."""
    kind = type(value)
    atom = ATOMS.get(kind)
    if atom is not None:
        return atom(value)
    if not depth:
        return b"..."
    if kind is tuple or kind is frozenset:
        parts = (outline(part, depth - 1) for part in value)
        return combine(b"-", parts if kind is tuple else sorted(parts))
    names = text(b"-", module_of(kind), kind.__qualname__)
    if kind is FunctionType:
        return combine(b"-", [names, *_outline_of_function(value, depth)])
    if issubclass(kind, (type, Enum)):
        return combine(b"-", [names, text(b"-", str(getattr(value, "__qualname__", "") or value.name))])
    state = getattr(value, "__dict__", None)
    if kind is partial:
        state = {"func": value.func, "args": value.args, **value.keywords}
    pairs = sorted((ATOMS[str](str(n)), outline(v, depth - 1)) for n, v in state.items()) if type(state) is dict else ()
    return combine(b"-", [names, *(part for pair in pairs for part in pair)])


def _outline_of_function(function: FunctionType, depth: int) -> list[bytes]:
    """By its code and what it was made with: lambdas have no names that tell them apart."""
    from .definitions import code_token  # here, because that leads here

    held = [*(function.__defaults__ or ())]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty one
            held.append(cell.cell_contents)
    own = [text(b"-", function.__qualname__), code_token(function.__code__)]
    return [*own, *(outline(value, depth - 1) for value in held)]


_Cached = type(lru_cache(len))
_NONE: Any = object()

# -- functions and what is made of them --------------------------------------------------------------------


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
    """Of a method that is a function of an installed module, as `random.random`: not by what it is bound to."""
    module = sys.modules.get(type(method.__self__).__module__)
    home = owner_of(vars(module)) if type(module) is ModuleType else None
    if home is None or getattr(module, method.__name__, None) != method:
        return None
    return text(b"g", home.name, home.version, type(method.__self__).__module__, method.__name__)


def _descriptor(encoder: Encoder, descriptor: Any) -> bytes:
    return combine(b"y", [encoder.token(descriptor.__objclass__), text(b"s", descriptor.__name__)])


def _around_function(kind: bytes, *names: str) -> Handler:
    """Of a property or its like: the functions in it, and a docstring that is not theirs."""
    parts = _parts(kind, *names)

    def token(encoder: Encoder, value: Any) -> bytes:
        made, own = parts(encoder, value), own_docstring(value)
        return made if own is None else combine(kind, [made, encoder.token(own)])

    return token


def own_docstring(value: Any) -> Any:
    """The docstring of a property or its like, if it is not that of the function in it."""
    own = getattr(value, "__doc__", None)
    inner = next((getattr(value, name) for name in ("fget", "__func__", "func") if hasattr(value, name)), None)
    return None if own == getattr(inner, "__doc__", None) or own == type(value).__doc__ else own


def _code(_: Encoder, code: CodeType) -> bytes:
    from . import bytecode

    return bytecode.meaning(code)


def _parts(kind: bytes, *names: str) -> Handler:
    """Of what is nothing but its attributes of these names."""
    return lambda encoder, value: combine(kind, [encoder.token(getattr(value, name)) for name in names])


def _cached(encoder: Encoder, function: Any) -> bytes:
    """Of `functools.lru_cache`: not by what it has remembered."""
    options = getattr(function, "cache_parameters", None)
    more = {name: value for name, value in vars(function).items() if not _is_of_the_inner(function, name, value)}
    made = _around(encoder, function, function.__wrapped__, options and options())
    return combine(b"W", [made, encoder.state(more)]) if more else made


def _is_of_the_inner(function: Any, name: str, value: Any) -> bool:
    """Whether an attribute of a wrapper was taken over from what it wraps."""
    return name in ("__wrapped__", "cache_parameters") or value is getattr(function.__wrapped__, name, _NONE)


def _around(encoder: Encoder, value: Any, inner: Any, options: Any) -> bytes:
    return combine(b"W", [encoder.definition(type(value)), encoder.token(inner), encoder.token(options)])


def _compiled(encoder: Encoder, value: Any) -> bytes | None:
    """What numba's or jax's `jit` makes of a function."""
    library = module_of(type(value)).partition(".")[0]
    name = {"numba": "py_func", "jax": "__wrapped__", "jaxlib": "__wrapped__"}.get(library)
    inner = getattr(value, name, None) if name else None
    return None if inner is None else _around(encoder, value, inner, getattr(value, "targetoptions", None))


def _callable(encoder: Encoder, value: Any) -> bytes:
    """A callable object: by the version that the user gave it, what it wraps, or its state."""
    chosen = choice(value)
    if chosen is not None and chosen.version is not None:
        names = (str(getattr(value, name, "")) for name in ("__module__", "__qualname__"))
        return text(b"V", *names, chosen.version)
    if type(value) is _Cached:
        return _cached(encoder, value)
    return _compiled(encoder, value) or reduced(encoder, value)


# -- objects -----------------------------------------------------------------------------------------------


def _enum(encoder: Encoder, value: Any) -> bytes:
    return combine(b"e", [encoder.definition(type(value)), text(b"s", value.name or ""), encoder.token(value._value_)])


def _future(encoder: Encoder, future: Any) -> bytes:
    """As its result. One that failed keeps its call pending for good: that ends as the future did."""
    linked = encoder.future(future)
    if linked is not None:
        return linked
    known: bytes | None = getattr(future, "result_token", None) if future.done() else None
    if known is not None and not encoder.opens_results:
        return known
    if not future.done() or future.cancelled() or failure_of(future) is not None:
        return encoder.pending(future)
    return encoder.token(future.result())


def _derived(handler: Handler) -> Handler:
    """Of instances of a class that is made from a container: class, content and attributes."""
    return lambda e, v: combine(b"x", [e.definition(type(v)), handler(e, v), attributes(e, v)])


def attributes(encoder: Encoder, value: Any) -> bytes:
    """What an instance of a class that is made from a container has besides."""
    kind = type(value)
    state = {**getattr(value, "__dict__", {})}
    for name in copyreg._slotnames(kind):  # type: ignore[attr-defined]
        if hasattr(value, name):
            state[name] = getattr(value, name)
    factory = getattr(value, "default_factory", None)
    return combine(
        b"a", [encoder.state(value_caches.without(state, value_caches.names(kind)) or {}), encoder.token(factory)]
    )


def reduced(encoder: Encoder, value: Any, leaving_out: frozenset[str] = frozenset()) -> bytes:
    """By class and by what `pickle` would make it from: for most classes, the state."""
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
    make, arguments, state, items, pairs, setter = (*made, None, None, None, None)[:6]
    if make is copyreg.__newobj__ and len(arguments) == 1 and arguments[0] is kind:  # type: ignore[attr-defined]
        made_by = b"new"  # as most are
    else:
        made_by = combine(b"O", [encoder.token(make), encoder.state(arguments)])
    tokens = [
        encoder.definition(kind),
        made_by,
        encoder.state(value_caches.without(state, value_caches.names(kind) | leaving_out)),
    ]
    for part, whole in ((items, encoder.sequence), (pairs, _ordered_pairs(encoder))):
        tokens.append(b"" if part is None else whole(part))
    return combine(b"O", [*tokens, encoder.token(setter)])


def _global(encoder: Encoder, value: Any, name: str) -> bytes:
    """Of what `pickle` would look up under a name in its module."""
    module = module_of(value)
    found = sys.modules.get(module)
    home = owner_of(vars(found)) if isinstance(found, ModuleType) else None
    if home is not None and getattr(found, name, None) is value:
        return text(b"g", home.name, home.version, module, name)
    return combine(b"g", [encoder.definition(type(value)), text(b"s", module, name)])


def _weak_table(encoder: Encoder, table: Any) -> bytes:
    return combine(b"x", [encoder.definition(type(table)), encoder.pairs(list(table.items()))])


def _ordered_pairs(encoder: Encoder) -> Callable[[Any], bytes]:
    return lambda pairs: combine(b"[", [encoder.sequence(pair) for pair in pairs])


_HANDLERS: dict[type, Handler] = {
    list: lambda e, v: combine(b"l", [e.sequence(v)]),
    tuple: lambda e, v: combine(b"t", [e.sequence(v)]),
    dict: lambda e, v: combine(b"M", [e.pairs(v.items())]),
    set: lambda e, v: combine(b"u", [e.members(v)]),
    frozenset: lambda e, v: combine(b"z", [e.members(v)]),
    bytearray: lambda _, v: combine(b"Y", [content(b"b", memoryview(v))]),
    memoryview: lambda _, v: combine(b"w", [text(b"s", v.format, *map(str, v.shape)), token(b"b", v.tobytes())]),
    deque: lambda e, v: combine(b"q", [e.sequence(v), e.token(v.maxlen)]),
    MappingProxyType: lambda e, v: combine(b"P", [e.pairs(v.items())]),
    range: _parts(b"r", "start", "stop", "step"),
    slice: _parts(b"k", "start", "stop", "step"),
    GenericAlias: _parts(b"G", "__origin__", "__args__"),
    property: _around_function(b"p", "fget", "fset", "fdel"),
    staticmethod: _around_function(b"Q", "__func__"),
    classmethod: _around_function(b"C", "__func__"),
    cached_property: _around_function(b"h", "func"),
    singledispatchmethod: _parts(b"K", "dispatcher", "func"),
    TypeVar: _parts(b"v", "__name__", "__bound__", "__constraints__", "__covariant__", "__contravariant__"),
    NewType: _parts(b"v", "__name__", "__supertype__"),
    ReferenceType: lambda e, v: combine(b"F", [e.token(v())]),
    type({}.keys()): lambda e, v: combine(b"d", [e.members(v)]),
    type({}.values()): lambda e, v: combine(b"d", [e.sequence(v)]),
    type({}.items()): lambda e, v: combine(b"d", [e.pairs(v)]),
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
    Struct: _parts(b"H", "format"),
}

# Instances of classes made from these, the most particular first.
_DERIVED: tuple[tuple[type, Handler], ...] = (
    (type, _definition),
    (ModuleType, _definition),
    (Enum, _enum),
    (PurePath, lambda e, v: combine(b"/", [e.definition(type(v)), e.token(str(v))])),
    (OrderedDict, reduced),
    *((kind, _weak_table) for kind in (WeakKeyDictionary, WeakValueDictionary)),
    (WeakSet, lambda e, v: combine(b"x", [e.definition(type(v)), e.members(list(v))])),
    (dict, _derived(lambda e, v: e.pairs(dict.items(v)))),
    (list, _derived(lambda e, v: e.sequence(list.__iter__(v)))),
    (tuple, _derived(lambda e, v: e.sequence(tuple.__iter__(v)))),
    (set, _derived(lambda e, v: e.members(set.__iter__(v)))),
    (frozenset, _derived(lambda e, v: e.members(frozenset.__iter__(v)))),
    *((kind, _derived(_HANDLERS[kind])) for kind in (property, staticmethod, classmethod)),
    (cached_property, lambda e, v: combine(b"x", [e.definition(type(v)), _HANDLERS[cached_property](e, v)])),
)
_others: Memo[Handler] = Memo()
_LIBRARIES = {
    **dict.fromkeys(("numpy", "pandas", "torch"), "arrays"),
    **dict.fromkeys(("ctypes", "_ctypes"), "shared_libraries"),
    **dict.fromkeys(("pydantic", "scipy", "xarray"), "libraries"),
}


def handler_of(value: Any) -> Handler:
    """What makes the token of this value, and of others of its class."""
    kind = type(value)
    known = _HANDLERS.get(kind) or _others.get(kind)
    return _others.put(kind, _found(value, kind)) if known is None else known


def _found(value: Any, kind: type) -> Handler:
    for base in kind.__mro__:
        library = _LIBRARIES.get(module_of(base).partition(".")[0])
        if library is not None:  # imported now, because it is needed only where they are
            special: Handler | None = import_module(f".{library}", __package__).handler_of(base)
            if special is not None:
                return special
    if hasattr(kind, "n_sequence_fields"):  # as os.stat_result: a tuple that has more
        return reduced
    for made_from, handler in _DERIVED:
        if issubclass(kind, made_from):
            return handler
    if is_future(value):
        return _future
    return _callable if callable(value) else reduced
