"""The comparison of two keys: their ingredients, and the differences between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ...utils.quantities import duration
from ..entry import Entry

__all__ = ["Explanation", "differences", "distance"]


Ingredients = Mapping[str, str]  # by their labels: see `CallKey.ingredients`
MISSING = ""  # for a missing argument
UNBOUND = "argument positional"  # the label of arguments in conflict with the signature


@dataclass(frozen=True)
class Explanation:
    """An explanation of a hit or a miss: the key of a call, and its differences from the nearest entry.

    For people, `print` the explanation; for programs, there are the attributes.

    Attributes:
        key: the key of the call.
        function: the name of its function.
        hit: True if the cache would answer the call.
        nearest: the entry of the call itself, or else the entry of the function with most in common; None
            if there is no entry of the function.
        differences: the differences from the nearest entry to this call, one line for each.
        unfollowed: names in the function beyond the reach of any key: `time.time`, `open`, `eval`.
        running: the process of the call at the moment; empty if there is none.
        ingredients: the parts of the key, by labels such as "argument x".
    """

    key: str
    function: str
    hit: bool
    nearest: Entry | None
    differences: Sequence[str]
    unfollowed: Sequence[str] = ()
    running: str = ""
    ingredients: Ingredients = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return "\n".join([*self._verdict(), *self._caveat()])

    def _verdict(self) -> list[str]:
        name, entry = self.function, self.nearest
        if entry is not None and entry.key == self.key:
            return [_of_its_own(entry, self.hit)]
        if self.running:
            return [f"{name!r} is being run by {self.running}; key {self.key}"]
        differences = [f"  {difference}" for difference in self.differences]
        if entry is None:
            return [f"{name!r} is not in the cache, with any arguments; its key would be {self.key}", *differences]
        head = f"{name!r} is not in the cache; its key would be {self.key}"
        return [head, f"the nearest entry is {entry.key} of {_when(entry)}:", *differences]

    def _caveat(self) -> list[str]:
        if not self.unfollowed:
            return []
        return [f"what no key can follow: {', '.join(self.unfollowed)}; if the result depends on it, pass it in"]


def _of_its_own(entry: Entry, hit: bool) -> str:
    when, took = _when(entry), duration(entry.seconds)
    if entry.state == "failed":
        raised = "which is kept" if hit else "so it would be run again"
        return f"{entry.function!r} failed at {when} after {took}, {raised}; key {entry.key}"
    again = "" if hit else '; it would be run again, as the cache is opened with mode="refresh"'
    return f"{entry.function!r} is cached since {when}, when it took {took}; key {entry.key}{again}"


def _when(entry: Entry) -> str:
    created = entry.created
    same_day = created.date() == datetime.now(created.tzinfo).date()
    return created.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S")


# ------------------------------------------------------------------ differences


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
