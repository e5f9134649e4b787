"""The comparison of two keys: their ingredients, and the differences between them."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["differences", "distance"]

Ingredients = Mapping[str, str]  # by their labels: see `CallKey.ingredients`
MISSING = ""  # for a missing argument
UNBOUND = "argument positional"  # the label of arguments in conflict with the signature


def differences(then: Ingredients, now: Ingredients, function: str) -> list[str]:
    """Return the differences between the ingredients of two keys, one line for each, code first."""
    if not then:
        return ["what went into its key is not noted"]
    then = _aligned(then, now)
    changed = (label for label in {**then, **now} if then.get(label) != now.get(label))
    return [line(label, then.get(label), now.get(label), function) for label in sorted(changed, key=_rank)]


def distance(then: Ingredients, now: Ingredients) -> int:
    """Return the number of different ingredients."""
    then = _aligned(then, now)
    return sum(then.get(label) != now.get(label) for label in {**then, **now})


def _aligned(then: Ingredients, now: Ingredients) -> Ingredients:
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


def line(label: str, then: str | None, now: str | None, function: str) -> str:
    kind, name = _kind(label)
    if kind == "argument ":
        return _argument(name, then, now)
    if kind == "package ":
        return _changed(f"package {name!r}", then, now, "has another version")
    if kind == "code of ":
        kind = "the function " if name.rpartition(".")[2] == function else "helper "
    if kind == "version of ":
        kind = "the version given for "
    return _changed(f"{kind}{name!r}", then, now) if kind else _other(name, then, now)


def _argument(name: str, then: str | None, now: str | None) -> str:
    before, after = _look(then), _look(now)
    if now == MISSING:
        return f"missing argument {name!r}"
    if then is None:
        return f"argument {name!r} is new: {after}"
    if now is None:
        return f"argument {name!r} is not there any more; it was {before}"
    if before == after:
        return f"argument {name!r}: {before} with another content"
    return f"argument {name!r}: {before} -> {after}"


def _other(name: str, then: str | None, now: str | None) -> str:
    if name == "python":
        return f"Python {then} -> {now}"
    if name == "ranks":
        return f"ranks: {then or 1} -> {now or 1}"
    if name in ("initializer", "init_function"):
        what = f"the {name} of the executor"
        return _changed(what, then, now) if now else f"{what}, which is not known here"
    return _changed("what was asked for as env" if name == "env" else name, then, now)


def _changed(what: str, then: str | None, now: str | None, word: str = "changed") -> str:
    if then is None:
        return f"{what} is new"
    if now is None:
        return f"{what} is not used any more"
    before, after = _look(then), _look(now)
    return f"{what}: {before} -> {after}" if before and after and before != after else f"{what} {word}"


def _look(ingredient: str | None) -> str:
    """Return the text behind the digest of an ingredient, for people."""
    return (ingredient or "").partition(" ")[2]
