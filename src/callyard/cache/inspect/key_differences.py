"""The comparison of two keys: their ingredients, and the differences between them in words.

An ingredient is named by its label, as "argument x" or "code of lab.helper", and is a short digest; behind a space
there may be a text for people. See `CallKey.ingredients`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["MISSING", "UNBOUND", "Ingredients", "aligned", "arguments_of", "differing", "distance", "look", "words"]

Ingredients = Mapping[str, str]
MISSING = ""  # for a missing argument
UNBOUND = "argument positional"  # the label of arguments in conflict with the signature


def differing(then: Ingredients, now: Ingredients) -> list[str]:
    """Return the labels of the differences between two keys, code first; `then` is aligned with `now`."""
    return sorted((label for label in {**then, **now} if then.get(label) != now.get(label)), key=_rank)


def distance(then: Ingredients, now: Ingredients) -> int:
    """Return the number of different ingredients."""
    then = aligned(then, now)
    return sum(then.get(label) != now.get(label) for label in {**then, **now})


def arguments_of(parts: Ingredients) -> frozenset[tuple[str, str]]:
    """Return the arguments by label and digest, to be compared with those of other calls."""
    return frozenset((label, part.partition(" ")[0]) for label, part in parts.items() if label.startswith("argument "))


def aligned(then: Ingredients, now: Ingredients) -> Ingredients:
    """Return `then` with the names of `now` for moved definitions: a script's module is `__main__` while it runs."""
    moved = {_last(label): label for label in now if label not in then and _kind(label)[0] in _MOVABLE}
    if not moved:
        return then
    return {label if label in now else moved.get(_last(label), label): value for label, value in then.items()}


def _last(label: str) -> tuple[str, str]:
    kind, name = _kind(label)
    return kind, name.rpartition(".")[2]


_MOVABLE = ("version of ", "code of ", "class ", "global ")
_KINDS = (*_MOVABLE, "package ", "argument ")


def _kind(label: str) -> tuple[str, str]:
    for kind in _KINDS:
        if label.startswith(kind):
            return kind, label[len(kind) :]
    return "", label


def _rank(label: str) -> tuple[int, str]:
    kind, name = _kind(label)
    return (_KINDS.index(kind) if kind else len(_KINDS)), name


def look(ingredient: str | None) -> str:
    """Return the text behind the digest of an ingredient, for people."""
    return (ingredient or "").partition(" ")[2]


# ------------------------------------------------------------------ in words

_NAMES = {
    "initializer": "the initializer of the executor",
    "init_function": "the init_function of the executor",
    "python": "Python",
}
_DIGEST_ONLY = {"package": "has another version"}


def words(label: str, then: str | None, now: str | None) -> str:
    """Return the difference of one ingredient in words, as far as both keys tell."""
    name = _NAMES.get(label, label)
    if now == MISSING:
        return f"{name} is missing"
    if label in ("python", "ranks"):
        return f"{name}: {then or 1} -> {now or 1}"
    before, after = look(then), look(now)
    if then is None:
        return f"{name} is new" + (f": {after}" if after else "")
    if now is None:
        if label in ("initializer", "init_function"):
            return f"{name}, which is not known here"
        return f"{name} is not there any more" + (f"; it was {before}" if before else "")
    if before and after and before != after:
        return f"{name}: {_together(before, after)}"
    if label.startswith("argument "):
        return f"{name}: {before or 'it'} with another content"
    return f"{name} {_DIGEST_ONLY.get(label.partition(' ')[0], 'changed')}"


_NUMPY = re.compile(r"((?:u?int|float|complex)\d+) (\S+)")


def _together(before: str, after: str) -> str:
    """Return both texts; of two numpy scalars of one type the numbers alone."""
    scalars = _NUMPY.fullmatch(before), _NUMPY.fullmatch(after)
    if scalars[0] and scalars[1] and scalars[0][1] == scalars[1][1]:
        return f"{scalars[0][2]} -> {scalars[1][2]}"
    return f"{before} -> {after}"
