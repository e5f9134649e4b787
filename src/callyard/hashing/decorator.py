"""The decorator `keyed`, for users to choose the ingredients of the keys of a function's calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

from ..errors import CacheError
from ..errors.suggestions import strict

F = TypeVar("F", bound=Callable[..., Any])


class KeyedSettings(NamedTuple):
    """The arguments of `keyed` for one function."""

    version: str | None
    ignore: frozenset[str]


@strict(words="says something of a function: write @keyed(version=...) or @keyed(ignore=[...])")
def keyed(*, version: object = None, ignore: Iterable[str] = ()) -> Callable[[F], F]:
    """Decorate a function to put a version instead of its code into the keys of its calls, or to leave parameters out.

    Args:
        version: a string, a number or a tuple, which counts in the key instead of the code of the function and of
            all its helpers. Calls run again after a change of the version, and only then. None (the default): the
            code counts.
        ignore: the name of a parameter whose value does not change the result, such as `verbose`, or several. None is
            ignored by default.

    Raises:
        CacheError: the version is of another type, the function has no parameter of an ignored name, or has no
            room for a mark (as a builtin).

    >>> @keyed(version=2, ignore=["verbose"])
    ... def relax(structure, verbose=False):
    ...     return len(structure)
    >>> relax("CuAu")
    4
    """
    if isinstance(ignore, str):
        ignore = (ignore,)
    if version is not None and not isinstance(version, (str, int, float, tuple)):
        raise CacheError(f"keyed: a version is a string or a number, not {version!r}")
    chosen = KeyedSettings(None if version is None else f"{type(version).__name__} {version!r}", frozenset(ignore))

    def mark(function: F) -> F:
        if isinstance(function, (staticmethod, classmethod)):  # a call finds only the function inside
            mark(function.__func__)
            return function
        if version is not None and not hasattr(function, "__qualname__"):
            raise CacheError(f"keyed: {function!r} has no name that a version could be of; mark the function in it")
        _check(function, chosen.ignore)
        try:
            function.__callyard_keyed__ = chosen  # type: ignore[attr-defined]
        except AttributeError:
            raise CacheError(f"keyed: {function!r} cannot be marked; mark a function that calls it") from None
        return function

    return mark


def _check(function: Callable[..., Any], ignore: frozenset[str]) -> None:
    if not ignore:
        return
    import inspect  # here, because this import is slow

    known = inspect.signature(function).parameters
    for name in sorted(ignore - set(known)):
        raise CacheError(f"keyed: {name!r} is no parameter of {function!r}; it has {', '.join(known)}")


def choice(function: Any) -> KeyedSettings | None:
    """Return the settings of this function or class; settings of base classes do not hold.

    `functools.wraps` copies the settings to the wrapper. The ignored parameters hold there, because the parameters are
    the same, but the version does not, because the code is another.
    """
    found = _mark(function)
    if found is None or found.version is None or _mark(vars(function).get("__wrapped__")) is not found:
        return found
    return KeyedSettings(None, found.ignore)


def ignored(function: Any) -> frozenset[str]:
    """Return the parameters of a function, a partial or a callable object that do not count in keys."""
    while isinstance(function, partial):
        function = function.func
    chosen = choice(function)
    if chosen is None and type(function) is not FunctionType:
        chosen = choice(type(function).__call__)
    return frozenset() if chosen is None else chosen.ignore


def _mark(function: Any) -> KeyedSettings | None:
    try:
        found = vars(function).get("__callyard_keyed__")
    except TypeError:
        return None
    return found if isinstance(found, KeyedSettings) else None
