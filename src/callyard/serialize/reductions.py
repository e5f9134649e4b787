"""Reductions of objects that pickle cannot send, or sends by a name that a worker does not find.

The names of the functions `_make_*` are part of pickles in cache files, so renaming one makes old entries unreadable.
"""

from __future__ import annotations

import contextvars
import copyreg
import functools
import struct
import threading
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle

from . import reconstruct
from .change_detection import LRU

_SET_BY_BASES = frozenset((*functools.WRAPPER_ASSIGNMENTS, "__annotations__", "__wrapped__", "func", "lock"))


def _cached(wrapper: Any) -> tuple[Any, ...]:
    return _make_cached, (wrapper.__wrapped__, wrapper.cache_parameters()), vars(wrapper)


def _make_cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


# Descriptors are made by the initializer of the built-in base, because the initializer of a subclass may take other
# arguments. Attributes set by the latter are in the state.


def _cached_property(prop: Any) -> tuple[Any, ...]:
    return _make_cached_property, (type(prop), prop.func), _state(prop)


def _make_cached_property(kind: Any, function: Callable[..., Any]) -> Any:
    prop = kind.__new__(kind)
    functools.cached_property.__init__(prop, function)  # up to Python 3.11 with a lock, which no pickle can hold
    return prop


def _property(prop: Any) -> tuple[Any, ...]:
    return _make_property, (type(prop), prop.fget, prop.fset, prop.fdel, prop.__doc__), _state(prop)


def _make_property(kind: Any, *parts: Any) -> Any:
    prop = kind.__new__(kind)
    property.__init__(prop, *parts)
    return prop


def _method(method: Any) -> tuple[Any, ...]:
    return _make_method, (type(method), method.__func__), _state(method)


def _make_method(kind: Any, function: Any) -> Any:
    base = classmethod if issubclass(kind, classmethod) else staticmethod
    method = kind.__new__(kind, function)
    base.__init__(method, function)
    return method


def _state(descriptor: Any) -> Any:
    """Return the attributes not set by the base's initializer, in the form of a pickle state."""
    names = copyreg._slotnames(type(descriptor))  # type: ignore[attr-defined]
    slots = {name: getattr(descriptor, name) for name in names if hasattr(descriptor, name)}
    own = getattr(descriptor, "__dict__", {})
    attributes = {name: value for name, value in own.items() if name not in _SET_BY_BASES}
    return (attributes or None, slots) if slots else attributes or None


def _context_var(var: Any) -> tuple[Any, ...]:
    """Reduce a variable with its value in this context as the default, because the worker has no such context."""
    try:
        return _make_context_var, (var.name, var.get())
    except LookupError:
        return contextvars.ContextVar, (var.name,)


def _make_context_var(name: str, value: Any) -> contextvars.ContextVar[Any]:
    return contextvars.ContextVar(name, default=value)


def _struct(compiled: struct.Struct) -> tuple[Any, ...]:
    return struct.Struct, (compiled.format,)


def _thread_local(local: Any) -> tuple[Any, ...]:
    """Reduce thread-local data to the values of this thread, for the reading thread."""
    return _make_thread_local, (type(local),), dict(vars(local))


def _make_thread_local(kind: Any) -> Any:
    return kind.__new__(kind)  # without `__init__` and its unknown arguments; the values contain the effects


def _bound(method: types.MethodType) -> tuple[Any, ...]:
    """Reduce a method to a name, if the name leads there, so that the function stays the one of the class."""
    held, name = method.__self__, method.__name__
    owners = (held if isinstance(held, type) else type(held)).__mro__
    found = next((vars(owner)[name] for owner in owners if name in vars(owner)), None)
    if getattr(found, "__func__", found) is method.__func__:
        return getattr, (held, name)
    return types.MethodType, (method.__func__, held)


def _slot(descriptor: Any) -> tuple[Any, ...]:
    return getattr, (descriptor.__objclass__, descriptor.__name__)


def _code(code: types.CodeType) -> tuple[Any, ...]:
    """Reduce code as cloudpickle does, plus the file name for tracebacks and keys, which cloudpickle 3.1.3 drops."""
    return reconstruct.code, (code.co_filename, *cloudpickle.Pickler.dispatch_table[types.CodeType](code))


def _weak_dict(table: Any) -> tuple[Any, ...]:
    return type(table), (dict(table),)


def _new_type(kind: Any) -> tuple[Any, ...]:
    return _make_new_type, (kind.__name__, kind.__supertype__, kind.__module__)


def _make_new_type(name: str, base: Any, module: str) -> Any:
    kind = typing.NewType(name, base)  # type: ignore[misc]
    kind.__module__ = module
    return kind


def _type_var(var: Any) -> Any:
    if var.__module__ == "__main__":
        return NotImplemented  # cloudpickle keeps the identity of type variables in __main__
    return _make_type_var, (
        var.__name__, var.__constraints__, var.__bound__, var.__covariant__, var.__contravariant__
    )  # fmt: skip


def _make_type_var(name: str, constraints: tuple[Any, ...], bound: Any, covariant: bool, contravariant: bool) -> Any:
    return typing.TypeVar(name, *constraints, bound=bound, covariant=covariant, contravariant=contravariant)


def _parameter(parameter: Any) -> tuple[Any, ...]:
    return type(parameter), (parameter.__name__,)


def _alias(alias: Any) -> tuple[Any, ...]:
    return _make_alias, (type(alias), alias.__name__, alias.__value__, alias.__type_params__)


def _make_alias(kind: Any, name: str, value: Any, parameters: Any) -> Any:
    return kind(name, value, type_params=parameters)


def _table() -> dict[type, Callable[[Any], Any]]:
    table: dict[type, Callable[[Any], Any]] = {
        LRU: _cached,
        contextvars.ContextVar: _context_var,
        struct.Struct: _struct,
        types.MethodType: _bound,
        types.MemberDescriptorType: _slot,
        types.CodeType: _code,
        typing.NewType: _new_type,
        typing.TypeVar: _type_var,
        weakref.WeakKeyDictionary: _weak_dict,
        weakref.WeakValueDictionary: _weak_dict,
    }
    newer = {"ParamSpec": _parameter, "TypeVarTuple": _parameter, "TypeAliasType": _alias}
    for name, reduction in newer.items():
        if hasattr(typing, name):
            table[getattr(typing, name)] = reduction
    return table


REDUCTIONS = _table()
# For subclasses too, which neither pickle nor cloudpickle can reduce.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (property, _property),
    (staticmethod, _method),
    (classmethod, _method),
    (functools.cached_property, _cached_property),
    (threading.local, _thread_local),
)
_BUILT_IN = (property, staticmethod, classmethod)
_SUBCLASSED = tuple(base for base, _ in _BASES)


def reduction_of(thing: Any) -> Callable[[Any], Any] | None:
    """Return the reduction of an object, None if pickle or cloudpickle has a right one."""
    kind = type(thing)
    found = REDUCTIONS.get(kind)
    if found is None and issubclass(kind, _SUBCLASSED) and kind not in _BUILT_IN:
        found = next(reduce for base, reduce in _BASES if issubclass(kind, base))
    return found
