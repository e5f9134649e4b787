"""The binding of a call's arguments to the parameters of its function, defaults included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from types import FunctionType, MethodType
from typing import Any

from ..dependencies.map_chunks import run_chunk
from .decorator import ignored
from .packages import module_of, owner

# Callables around functions, and the attributes with these functions.
TRANSPARENT: dict[type, str] = {partial: "func", MethodType: "__func__", type(lru_cache(len)): "__wrapped__"}
_PACKED = 0x0C  # *args or **kwargs
Bound = list[tuple[str, Any]]  # in the order of the parameters


def bind(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Bound, bool]:
    """Return the parameters with their values, and True if any has its default value.

    Arguments in conflict with the signature are numbered, as for a function without a signature. The call itself will
    fail.
    """
    if type(function) is FunctionType and not function.__dict__ and not function.__code__.co_flags & _PACKED:
        found = _simple(function, args, kwargs)
        if found is not None:
            return found
    return _by_signature(function, args, kwargs)


def counted(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Bound, bool]:
    """Return the same as `bind`, without the parameters that `keyed` leaves out."""
    bound, left = bind(function, args, kwargs)
    if function is run_chunk and ignored(args[0]):
        bound = [("fn", args[0]), ("chunk", [counted(args[0], element, {})[0] for element in args[1]])]
    left_out = ignored(function)
    return ([pair for pair in bound if pair[0] not in left_out] if left_out else bound), left


def _simple(function: FunctionType, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Bound, bool] | None:
    """Do the same as `inspect.Signature.bind` in a tenth of the time; None if the call is not simple enough."""
    code = function.__code__
    count, given = code.co_argcount, len(args)
    if given > count or (kwargs and code.co_posonlyargcount):
        return None
    names = code.co_varnames[: count + code.co_kwonlyargcount]
    if given == len(names) and not kwargs:
        return list(zip(names, args, strict=True)), False
    values = dict(zip(names, args))  # noqa: B905  # the other parameters follow
    for name, value in kwargs.items():
        if name in values or name not in names:
            return None
        values[name] = value
    if len(values) == len(names):
        return [(name, values[name]) for name in names], False
    defaults = function.__defaults__ or ()
    for name, value in zip(names[count - len(defaults) : count], defaults, strict=True):
        values.setdefault(name, value)
    for name, value in (function.__kwdefaults__ or {}).items():
        values.setdefault(name, value)
    return ([(name, values[name]) for name in names], True) if all(name in values for name in names) else None


def _by_signature(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Bound, bool]:
    import inspect  # here, because this import is slow

    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        # With the number of positional arguments, so that a keyword named `0` is not taken for a positional argument.
        numbered = [(str(i), value) for i, value in enumerate(args)]
        return [*numbered, ("positional", len(args)), *sorted(kwargs.items())], True
    missing = len(bound.arguments) < len(bound.signature.parameters)
    wrappers = list(_wrappers(function))
    if not wrappers:
        bound.apply_defaults()
    found = list(bound.arguments.items())
    return (found if all(map(_takes_anything, wrappers)) else [*found, ("positional", len(args))]), missing


def _wrappers(function: Any) -> Iterator[Any]:
    """Yield the wrappers around a function, which show the signature of the function inside.

    A wrapper may have defaults of its own, and another order of parameters.
    """
    while True:
        if type(function) in TRANSPARENT:
            function = getattr(function, TRANSPARENT[type(function)])
            continue
        own: dict[str, Any] = getattr(function, "__dict__", {})
        if isinstance(function, type) or not ("__wrapped__" in own or "__signature__" in own):
            return
        if owner(module_of(type(function))) is None or type(function) is FunctionType:
            yield function
        if "__wrapped__" not in own:
            return
        function = own["__wrapped__"]


def _takes_anything(function: Any) -> bool:
    """Return True if a function has only the parameters `(*args, **kwargs)`."""
    code = getattr(function if type(function) is FunctionType else type(function).__call__, "__code__", None)
    if code is None:
        return False
    count = code.co_argcount - (type(function) is not FunctionType or code.co_varnames[:1] == ("self",))
    return count <= 0 and not code.co_kwonlyargcount and code.co_flags & _PACKED == _PACKED
