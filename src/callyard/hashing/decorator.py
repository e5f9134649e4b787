"""The decorator `keyed`, by which a user decides what counts in the keys of a function's calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    """Let a version, not the code, say what a function means; and leave parameters out of the keys of its calls.

    Args:
        version: counts instead of the function's code and of all that it reaches; a string or a number. Calls are
            made again when it changes, and only then. None: the code counts.
        ignore: names of parameters whose values do not change the result, as `verbose`.

    Raises:
        CacheError: a parameter to be ignored is none of the function's.

    >>> @keyed(version=2, ignore=["verbose"])
    ... def relax(structure, verbose=False): ...
    """
    if isinstance(ignore, str):
        ignore = (ignore,)
    if version is not None and not isinstance(version, (str, int, float, tuple)):
        raise CacheError(f"keyed: a version is a string or a number, not {version!r}")
    chosen = KeyedSettings(None if version is None else f"{type(version).__name__} {version!r}", frozenset(ignore))

    def mark(function: F) -> F:
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
    import inspect  # here, because it takes long to load

    known = inspect.signature(function).parameters
    for name in sorted(ignore - set(known)):
        raise CacheError(f"keyed: {name!r} is no parameter of {function!r}; it has {', '.join(known)}")


def choice(function: Any) -> KeyedSettings | None:
    """Return the settings of this function or class, not those of a class from which it derives.

    `functools.wraps` copies them to the wrapper. There the ignored parameters hold, as they are the same, but the
    version does not, as the code is another.
    """
    found = _mark(function)
    if found is None or found.version is None or _mark(vars(function).get("__wrapped__")) is not found:
        return found
    return KeyedSettings(None, found.ignore)


def _mark(function: Any) -> KeyedSettings | None:
    try:
        found = vars(function).get("__callyard_keyed__")
    except TypeError:
        return None
    return found if isinstance(found, KeyedSettings) else None
