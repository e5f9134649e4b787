"""Suggestions for unknown names: the probable known name, or the function with the keyword.

The sentences around them belong to `resources`, `argument_checks` and `backends.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["alternatives", "nearest", "strict", "strict_init"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
OwnerOf = Callable[[str], str | None]  # from a keyword to words for the function with this keyword; None if unknown
_VARKEYWORDS = 0x08  # inspect.CO_VARKEYWORDS: the code takes **kwargs
_NEAR = 0.7  # the likeness of a likely name; below, chance finds one: "bogus" shares 0.67 with "gpus"


def nearest(wrong: str, known: Iterable[str]) -> list[str]:
    """Return the probable known names: all at the distance of one slip, or else the likeliest."""
    names = list(known)
    slips = _slips(wrong, names)
    if slips:
        return slips
    plain = _plain(wrong)
    longer = [name for name in names if len(plain) > 2 and plain in name]  # "mem"
    if longer:
        return [min(longer, key=len)]
    import difflib  # here, because few programs need it

    return difflib.get_close_matches(plain, names, n=1, cutoff=_NEAR)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _slips(wrong: str, names: list[str]) -> list[str]:
    plain = _plain(wrong)
    return [plain] if plain in names else [name for name in names if _one_slip(plain, name)]


def _one_slip(one: str, other: str) -> bool:
    """Return True if the two differ at most by one character (missing, added, replaced) or by two swapped ones."""
    start = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))  # noqa: B905
    one, other = one[start:], other[start:]
    swapped = len(one) > 1 and one[:2] == other[1::-1] and one[2:] == other[2:]
    return one[1:] == other or one == other[1:] or one[1:] == other[1:] or swapped


def alternatives(names: Iterable[str]) -> str:
    """Return the end of a message, as ": did you mean 'memory'?"; nothing without names.

    A name with an explanation, as "ranks (MPI)", is written without quotes.
    """
    quoted = " or ".join(repr(name) if name.isidentifier() else name for name in names)
    return f": did you mean {quoted}?" if quoted else ""


def strict(owner_of: OwnerOf | None = None, words: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function refuse unknown keywords with a suggestion, where older versions of Python only refuse.

    Args:
        owner_of: returns words for the function to which a keyword belongs.
        words: the advice for keyword-only arguments given by position.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        shown = function.__qualname__.removesuffix(".__init__")
        code = function.__code__
        by_position = code.co_argcount
        known = code.co_varnames[: by_position + code.co_kwonlyargcount]
        takes_all = bool(code.co_flags & _VARKEYWORDS)

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if not (takes_all or kwargs.keys() <= set(known)):
                name = next(name for name in kwargs if name not in known)
                raise TypeError(_unknown(shown, name, known, owner_of and owner_of(name)))
            if words and len(args) > by_position:
                raise TypeError(f"{shown}() {words}")
            return function(*args, **kwargs)

        return checked

    return mark


def _unknown(function: str, name: str, known: Iterable[str], owner: str | None) -> str:
    own = [parameter for parameter in known if parameter != "self"]
    head = f"{function}() got an unexpected keyword argument {name!r}"
    if owner is not None and not _slips(name, own):
        return f"{head}: {owner}"
    return head + (alternatives(nearest(name, own)) or f"; it has {', '.join(own)}")


def strict_init(owner_of: OwnerOf | None = None) -> Callable[[type[C]], type[C]]:
    """Make the constructor of a dataclass `strict`."""

    def mark(cls: type[C]) -> type[C]:
        cls.__init__ = strict(owner_of)(cls.__init__)  # type: ignore[method-assign]
        return cls

    return mark
