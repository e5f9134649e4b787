"""The explanation of a hit or a miss: the key of a call beside the keys of the entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ...errors import CacheError
from ...hashing.call_key import NOWHERE, CallKey, KeyContext, call_key, unfollowed
from ...hashing.digest import PendingFuture
from ...hashing.values import value_token
from ...resources import Resources
from ...utils.quantities import duration
from ..claims import Claims
from ..directory import CacheDirectory
from ..entry import Entry, open_entry
from .find import nearest
from .key_differences import MISSING, UNBOUND, Ingredients, differences, line

__all__ = ["Explanation", "compared", "explain", "explain_entry"]


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


def explain(
    directory: CacheDirectory,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    resources: Resources,
    answers: Callable[[Entry], bool],
) -> Explanation:
    """Compare a call with the entries in a directory; `answers(entry)` is True for an entry that would be a hit."""
    call = _key(fn, args, kwargs, resources)
    name = getattr(fn, "__name__", None) or type(fn).__name__
    key = resources.cache_key or call.hex
    parts, outside = call.ingredients(), unfollowed(fn, args, kwargs)
    entry = _entry(directory, key)
    if entry is not None:
        return Explanation(key, name, answers(entry), entry, (), outside, "", parts)
    running = _running(directory, key)
    missing = _missing(fn, args, kwargs)
    if not missing:
        return compared(directory, key, name, parts, outside, running)
    whole = _key(fn, args, {**kwargs, **dict.fromkeys(missing)}, resources).ingredients()
    found = compared(directory, key, name, whole | {f"argument {each}": MISSING for each in missing}, outside, running)
    if found.nearest is None or UNBOUND not in found.nearest.ingredients:
        return replace(found, ingredients=parts)
    # The call of the nearest entry got its missing arguments from an `init_function`, and so may this one.
    return compared(directory, key, name, parts, outside, running)


def _missing(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Return the names of the missing arguments of a call."""
    import inspect  # here, because this import is slow

    try:
        bound = inspect.signature(fn).bind_partial(*args, **kwargs)
    except (TypeError, ValueError):  # no signature, or arguments in conflict with it
        return []
    known = bound.signature.parameters.values()
    needed = (p for p in known if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return [parameter.name for parameter in needed if parameter.name not in bound.arguments]


def explain_entry(directory: CacheDirectory, entry: Entry) -> Explanation:
    """Compare an entry with the nearest other one."""
    found = compared(directory, entry.key, entry.function, entry.ingredients)
    return replace(found, hit=entry.state == "finished")


def compared(
    directory: CacheDirectory,
    key: str,
    name: str,
    parts: Mapping[str, str],
    outside: Sequence[str] = (),
    running: str = "",
) -> Explanation:
    """Compare a call without an entry, given by the ingredients of its key, with the nearest entry."""
    other, its_parts = nearest(directory, name, parts, key)
    found: Sequence[str] = tuple(line(label, None, part, name) for label, part in parts.items() if part == MISSING)
    if other is not None:
        found = differences(its_parts, parts, name)
    return Explanation(key, name, False, other, found, outside, running, parts)


def _key(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], resources: Resources) -> CallKey:
    around = NOWHERE
    if resources.env or resources.ranks != 1:
        env = value_token(dict(resources.env)) if resources.env else b""
        around = KeyContext(ranks=resources.ranks, env=env)
    try:
        return call_key(fn, args, kwargs, around)
    except PendingFuture:
        raise CacheError("an argument is a future that is not done, so its key is not known yet: wait for it") from None


def _entry(directory: CacheDirectory, key: str) -> Entry | None:
    try:
        return open_entry(directory, key)
    except FileNotFoundError:
        return None


def _running(directory: CacheDirectory, key: str) -> str:
    holder = Claims(directory).holder(key)
    return "" if holder is None or holder.state() == "gone" else holder.where()
