"""Suggestions for unknown names: the known name that was probably meant, or the function whose keyword it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["alternatives", "nearest", "strict", "strict_init"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
Place = Callable[[str], str | None]  # from a keyword to the function that has it, in words; None if it is not known
_PACKED = 0x08  # the flag of code that takes **kwargs
_NEAR = 0.7  # the likeness of a likely name; below, chance finds one: "bogus" shares 0.67 with "gpus"


def nearest(wrong: str, known: Iterable[str]) -> list[str]:
    """Return the known names that were probably meant: all that are one slip away, or else the likeliest."""
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
    """Return whether the two differ at most by one character (missing, added, replaced) or by two swapped ones."""
    start = next((place for place, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))  # noqa: B905
    one, other = one[start:], other[start:]
    swapped = len(one) > 1 and one[:2] == other[1::-1] and one[2:] == other[2:]
    return one[1:] == other or one == other[1:] or one[1:] == other[1:] or swapped


def alternatives(names: Iterable[str]) -> str:
    """Return the end of a message, as ": did you mean 'memory'?"; nothing without names.

    A name with its meaning beside it, as "ranks (MPI)", is written as it is.
    """
    quoted = " or ".join(repr(name) if name.isidentifier() else name for name in names)
    return f": did you mean {quoted}?" if quoted else ""


def strict(place: Place | None = None, words: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function refuse unknown keywords with a suggestion, where older versions of Python only refuse.

    Args:
        place: returns the function to which a keyword belongs, in words.
        words: the advice for arguments that are given by position and must be given by name.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        shown = function.__qualname__.removesuffix(".__init__")
        code = function.__code__
        by_position = code.co_argcount
        known = code.co_varnames[: by_position + code.co_kwonlyargcount]
        takes_all = bool(code.co_flags & _PACKED)

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if not (takes_all or kwargs.keys() <= set(known)):
                name = next(name for name in kwargs if name not in known)
                raise TypeError(_unknown(shown, name, known, place and place(name)))
            if words and len(args) > by_position:
                raise TypeError(f"{shown}() {words}")
            return function(*args, **kwargs)

        return checked

    return mark


def _unknown(function: str, name: str, known: Iterable[str], place: str | None) -> str:
    own = [parameter for parameter in known if parameter != "self"]
    head = f"{function}() got an unexpected keyword argument {name!r}"
    if place is not None and not _slips(name, own):
        return f"{head}: {place}"
    return head + (alternatives(nearest(name, own)) or f"; it has {', '.join(own)}")


def strict_init(place: Place | None = None) -> Callable[[type[C]], type[C]]:
    """Make the constructor of a dataclass `strict`."""

    def mark(cls: type[C]) -> type[C]:
        cls.__init__ = strict(place)(cls.__init__)  # type: ignore[method-assign]
        return cls

    return mark
