"""Why a call is remembered, or why not: what went into two keys, and how that differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ...errors import CacheError
from ...hashing.call_key import NOWHERE, CallKey, KeyContext, call_key, unfollowed
from ...hashing.digest import PendingFuture
from ...hashing.values import meaning
from ...resources import Resources
from ...utils.quantities import duration
from ..entry import Entry, open_entry
from .find import nearest

__all__ = ["Explanation", "differences", "distance", "explain", "explain_entry"]


Ingredients = Mapping[str, str]  # by labels: see `CallKey.ingredients`
MISSING = ""  # in the place of an argument without which the function cannot be called
UNBOUND = "argument positional"  # is among those of a call whose arguments did not fit the signature


@dataclass(frozen=True)
class Explanation:
    """Whether a call is remembered, and if not, what it differs in from the one that comes nearest.

    `print` it, or look at its parts.

    Attributes:
        key: of the call.
        function: its name.
        hit: whether it would be answered from the cache.
        nearest: the entry of the call itself; otherwise the one that has most in common with it; None if the
            function was never remembered.
        differences: from the nearest entry to this call, one line for each.
        unfollowed: what the function uses that no key can follow: `time.time`, `open`, `eval`.
        running: where the call is being run at the moment; empty if nowhere.
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
            return [f"{name!r} is not remembered, with any arguments; its key would be {self.key}", *differences]
        head = f"{name!r} is not remembered; its key would be {self.key}"
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
    return f"{entry.function!r} is remembered since {when}, when it took {took}; key {entry.key}{again}"


def _when(entry: Entry) -> str:
    created = entry.created
    same_day = created.date() == datetime.now(created.tzinfo).date()
    return created.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S")


# ------------------------------------------------------------------ differences


def differences(then: Ingredients, now: Ingredients, function: str) -> list[str]:
    """What differs between the ingredients of two keys, one line for each; code first."""
    if not then:
        return ["what went into its key is not noted"]
    then = _aligned(then, now)
    changed = (label for label in {**then, **now} if then.get(label) != now.get(label))
    return [line(label, then.get(label), now.get(label), function) for label in sorted(changed, key=_rank)]


def distance(then: Ingredients, now: Ingredients) -> int:
    """In how many ingredients they differ."""
    then = _aligned(then, now)
    return sum(then.get(label) != now.get(label) for label in {**then, **now})


def _aligned(then: Ingredients, now: Ingredients) -> Ingredients:
    """`then`, with the names of `now` for what lives in another module: a script's is `__main__` while it runs."""
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
    """What follows the digest, for people."""
    return (ingredient or "").partition(" ")[2]


if TYPE_CHECKING:
    from ..cache import Cache


def explain(
    cache: Cache, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], resources: Resources
) -> Explanation:
    """Compare a call with what is there."""
    call = _key(fn, args, kwargs, resources)
    name = getattr(fn, "__name__", None) or type(fn).__name__
    key = resources.cache_key or call.hex
    parts, outside = call.ingredients(), unfollowed(fn, args, kwargs)
    entry = _entry(cache, key)
    if entry is not None:
        hit = (entry.state == "finished" or cache.failures) and cache.mode != "refresh"
        return Explanation(key, name, hit, entry, (), outside, "", parts)
    running = _running(cache, key)
    missing = _missing(fn, args, kwargs)
    if not missing:
        return _compared(cache, key, name, parts, outside, running)
    whole = _key(fn, args, {**kwargs, **dict.fromkeys(missing)}, resources).ingredients()
    found = _compared(cache, key, name, whole | {f"argument {each}": MISSING for each in missing}, outside, running)
    if found.nearest is None or UNBOUND not in found.nearest.ingredients:
        return replace(found, ingredients=parts)
    return _compared(cache, key, name, parts, outside, running)  # its executor's init_function gave the rest


def _missing(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Return the parameters that the call lacks."""
    import inspect  # here, because it takes long to load

    try:
        bound = inspect.signature(fn).bind_partial(*args, **kwargs)
    except (TypeError, ValueError):  # no signature, or more than one of them is wrong
        return []
    known = bound.signature.parameters.values()
    needed = (p for p in known if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return [parameter.name for parameter in needed if parameter.name not in bound.arguments]


def explain_entry(cache: Cache, entry: Entry) -> Explanation:
    """Compare an entry with the other one that comes nearest."""
    found = _compared(cache, entry.key, entry.function, entry.ingredients, (), "")
    return replace(found, hit=entry.state == "finished" or cache.failures)


def _compared(cache: Cache, key: str, name: str, parts: Mapping[str, str], outside: Any, running: str) -> Explanation:
    other, its_parts = nearest(cache.home, name, parts, key)
    found: Sequence[str] = tuple(line(label, None, part, name) for label, part in parts.items() if part == MISSING)
    if other is not None:
        found = differences(its_parts, parts, name)
    return Explanation(key, name, False, other, found, outside, running, parts)


def _key(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], resources: Resources) -> CallKey:
    around = NOWHERE
    if resources.env or resources.ranks != 1:
        env = meaning(dict(resources.env)) if resources.env else b""
        around = KeyContext(ranks=resources.ranks, env=env)
    try:
        return call_key(fn, args, kwargs, around)
    except PendingFuture:
        raise CacheError("an argument is a future that is not done, so its key is not known yet: wait for it") from None


def _entry(cache: Cache, key: str) -> Entry | None:
    try:
        return open_entry(cache.home, key)
    except FileNotFoundError:
        return None


def _running(cache: Cache, key: str) -> str:
    holder = cache.claims.holder(key)
    return "" if holder is None or holder.state() == "gone" else holder.where()
