"""How objects travel that pickle sends by name, and so not from a script, or not at all."""

from __future__ import annotations

import functools
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle

from . import building
from .snapshots import LRU


def _cached(wrapper: Any) -> tuple[Any, ...]:
    return _make_cached, (wrapper.__wrapped__, wrapper.cache_parameters()), vars(wrapper)


def _make_cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _cached_property(prop: Any) -> tuple[Any, ...]:
    return _make_cached_property, (type(prop), prop.func, prop.attrname)  # its lock stays here


def _make_cached_property(kind: Any, function: Callable[..., Any], name: str) -> Any:
    prop = kind(function)
    prop.attrname = name
    return prop


def _bound(method: types.MethodType) -> tuple[Any, ...]:
    """By its name, where that leads to it: the function is that of the class, and no other one that is equal."""
    held, name = method.__self__, method.__name__
    owners = (held if isinstance(held, type) else type(held)).__mro__
    found = next((vars(owner)[name] for owner in owners if name in vars(owner)), None)
    if getattr(found, "__func__", found) is method.__func__:
        return getattr, (held, name)
    return types.MethodType, (method.__func__, held)


def _slot(descriptor: Any) -> tuple[Any, ...]:
    return getattr, (descriptor.__objclass__, descriptor.__name__)


def _code(code: types.CodeType) -> tuple[Any, ...]:
    """As cloudpickle does, which from 3.1.3 on forgets the file: tracebacks and the proof of a syntax tree need it."""
    return building.code, (code.co_filename, *cloudpickle.Pickler.dispatch_table[types.CodeType](code))


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
        return NotImplemented  # cloudpickle knows these again
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
        functools.cached_property: _cached_property,
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
