"""The explanation of a hit or a miss: the key of a call beside the keys of the entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ...errors import CacheError
from ...hashing.call_key import NOWHERE, CallKey, KeyContext, call_key
from ...hashing.definition_tokens import unfollowed
from ...hashing.digest import PendingFuture
from ...hashing.values import value_token
from ...resources import Resources
from ...utils.quantities import duration, moment
from ..claims import Claims
from ..directory import CacheDirectory
from ..entry import Entry, open_entry
from .call_parts import CallParts, Difference, differences, parts_of_call, parts_of_entry
from .key_differences import MISSING, UNBOUND, Ingredients
from .nearest import Noted, nearest

__all__ = ["Explanation", "compared", "explain", "explain_entry", "lines_of"]


# Returns the nearest entry of a function with these ingredients but not this key, and its ingredients.
Search = Callable[[str, Ingredients, str], Noted | tuple[None, Ingredients]]


@dataclass(frozen=True)
class Explanation:
    """An explanation of a hit or a miss: the key of a call, and its differences from the nearest entry.

    For people, `print` the explanation; for programs, there are the attributes.

    Attributes:
        key: the key of the call; "" if the function cannot be called so.
        function: the name of its function.
        hit: True if the cache would answer the call.
        nearest: the entry of the call itself, or else one of the function: with the same arguments, or else with most
            in common; None if there is no entry of the function.
        differences: the differences from the nearest entry to this call, one line for each.
        diffs: of code that has changed, by labels as "code of lab.helper": the unified diff of its text, if known.
        unfollowed: names in the function beyond the reach of any key: `time.time`, `open`, `eval`.
        running: the process of the call at the moment; empty if there is none.
        missing: the arguments without which the function cannot be called.
        refused: how the arguments conflict with the function's parameters, as "got an unexpected keyword argument 'x'";
            "" if they do not.
        ingredients: the parts of the key, by labels such as "argument x".
    """

    key: str
    function: str
    hit: bool
    nearest: Entry | None
    found: Sequence[Difference] = field(default=(), repr=False)
    unfollowed: Sequence[str] = ()
    running: str = ""
    missing: Sequence[str] = ()
    refused: str = ""
    ingredients: Ingredients = field(default_factory=dict, repr=False)

    @property
    def differences(self) -> list[str]:
        return [each.words for each in self.found]

    @property
    def diffs(self) -> dict[str, str]:
        return {each.label: each.diff for each in self.found if each.diff}

    def __str__(self) -> str:
        return "\n".join([*self._verdict(), *self._caveat()])

    def _verdict(self) -> list[str]:
        name, entry = self.function, self.nearest
        if entry is not None and entry.key == self.key:
            return [_of_its_own(entry, self.hit)]
        if self.running:
            return [f"{name!r} is being run by {self.running}; key {self.key}"]
        differences = list(lines_of(self.found))
        where = "" if entry is not None else ", with any arguments"
        head = f"{name!r} is not in the cache{where}; its key would be {self.key}"
        if self.missing:
            head = f"{name!r} cannot be called so: {_listed(self.missing)} missing"
        if self.refused:
            head = f"{name!r} cannot be called so: {self.refused}"
        if entry is None:
            return [head]
        return [head, f"the nearest entry is {entry.key} of {moment(entry.created)}:", *differences]

    def _caveat(self) -> list[str]:
        if not self.unfollowed:
            return []
        return [f"what no key can follow: {', '.join(self.unfollowed)}; if the result depends on it, pass it in"]


def lines_of(found: Iterable[Difference]) -> Iterator[str]:
    """Yield the differences as indented lines, with the changes of code below each."""
    for difference in found:
        yield f"  {difference.words}"
        yield from (f"    {line}" for line in difference.diff.splitlines())


def _listed(names: Sequence[str]) -> str:
    return f"argument {names[0]} is" if len(names) == 1 else f"arguments {', '.join(names)} are"


def _of_its_own(entry: Entry, hit: bool) -> str:
    when, took = moment(entry.created), duration(entry.seconds)
    if entry.state == "failed":
        raised = "which is kept" if hit else "so it would be run again"
        return f"{entry.function!r} failed at {when} after {took}, {raised}; key {entry.key}"
    again = "" if hit else '; it would be run again, as the cache is opened with mode="refresh"'
    return f"{entry.function!r} is cached since {when}, when it took {took}; key {entry.key}{again}"


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
    parts, outside = parts_of_call(call, resources), unfollowed(fn, args, kwargs)
    entry = _entry(directory, key)
    if entry is not None:
        return Explanation(key, name, answers(entry), entry, (), outside, ingredients=parts.ingredients)
    missing, refused = _misfits(fn, args, kwargs)
    if refused:
        return Explanation("", name, False, None, (), outside, refused=refused, ingredients=parts.ingredients)
    if not missing:
        return compared(partial(nearest, directory), key, name, parts, outside, _running(directory, key))
    whole = parts_of_call(_key(fn, args, {**kwargs, **dict.fromkeys(missing)}, resources), resources)
    marked = {**whole.ingredients, **{f"argument {each}": MISSING for each in missing}}
    found = compared(partial(nearest, directory), "", name, replace(whole, ingredients=marked), outside)
    if found.nearest is None or UNBOUND not in found.nearest.ingredients:
        return replace(found, ingredients=parts.ingredients, missing=missing)
    # The call of the nearest entry got its missing arguments from an `init_function`, and so may this one.
    return compared(partial(nearest, directory), key, name, parts, outside)


def _misfits(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the names of the missing arguments of a call, and the conflict of the others with the parameters."""
    import inspect  # here, because this import is slow

    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # it has none
        return [], ""
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        return [], str(error)
    known = bound.signature.parameters.values()
    needed = (p for p in known if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return [parameter.name for parameter in needed if parameter.name not in bound.arguments], ""


def explain_entry(directory: CacheDirectory, entry: Entry) -> Explanation:
    """Compare an entry with the nearest other one."""
    found = compared(partial(nearest, directory), entry.key, entry.function, parts_of_entry(entry))
    return replace(found, hit=entry.state == "finished")


def compared(
    search: Search, key: str, name: str, parts: CallParts, outside: Sequence[str] = (), running: str = ""
) -> Explanation:
    """Compare a call, given by the parts of its key, with the nearest entry of another key."""
    other, noted = search(name, parts.ingredients, key)
    found = () if other is None else differences(parts_of_entry(other, noted), parts)
    return Explanation(key, name, False, other, found, outside, running, ingredients=parts.ingredients)


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
