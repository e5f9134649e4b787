"""The explanation of a hit or a miss: the key of a call beside those of the entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import CacheError
from ...hashing.call_key import NOWHERE, CallKey, KeyContext, call_key, unfollowed
from ...hashing.digest import PendingFuture
from ...hashing.values import meaning
from ...resources import Resources
from ..claims import Claims
from ..directory import CacheDirectory
from ..entry import Entry, open_entry
from .find import nearest
from .key_differences import MISSING, UNBOUND, Explanation, differences, line

__all__ = ["compared", "explain", "explain_entry"]


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
    """Return the names of the needed parameters that a call lacks."""
    import inspect  # here, because it takes long to load

    try:
        bound = inspect.signature(fn).bind_partial(*args, **kwargs)
    except (TypeError, ValueError):  # there is no signature, or the arguments do not fit it
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
        env = meaning(dict(resources.env)) if resources.env else b""
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
