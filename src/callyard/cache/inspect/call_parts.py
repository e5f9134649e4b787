"""The parts of a call's key with what is behind them: values of arguments, and the texts of code."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...dependencies.replace_futures import replace_futures
from ...errors import CacheError
from ...hashing.call_key import CallKey, short_token
from ...hashing.values import value_token
from ...resources import Resources
from ...utils.quantities import moment
from ..entry import Entry
from .key_differences import MISSING, Ingredients, aligned, differing, words
from .value_differences import value_difference

__all__ = ["CallParts", "Difference", "differences", "parts_of_call", "parts_of_entry"]


def _unknown(name: str) -> Any:
    raise KeyError(name)


@dataclass(frozen=True)
class CallParts:
    """The parts of a call's key.

    Attributes:
        when: the time of this version, for people: "now", "2025-11-22 19:03:12, entry 9fe5a5d7dc94".
        ingredients: the digests.
        sources: returns the texts of the functions, by the labels of the ingredients.
        value: returns the value of a parameter. Raises KeyError if it is not known.
        env: the variables asked for, as a text.
    """

    when: str
    ingredients: Ingredients
    sources: Callable[[], Mapping[str, str]] = dict
    value: Callable[[str], Any] = _unknown
    env: str = ""


class Difference(NamedTuple):
    """A difference between two keys."""

    label: str  # of the ingredient
    words: str
    diff: str = ""  # of code: the unified diff of the texts, if both are known


def differences(then: CallParts, now: CallParts) -> list[Difference]:
    """Return the differences between two keys, code first, with values and texts as far as they are known."""
    if not then.ingredients:
        return [Difference("", "what went into its key is not noted")]
    before = aligned(then.ingredients, now.ingredients)
    names = dict(zip(before, then.ingredients, strict=True))  # labels as aligned -> labels as they were
    found = []
    labels = differing(before, now.ingredients)
    for label in labels:
        if label.startswith("class ") and any(each.startswith(f"code of {label[6:]}.") for each in labels):
            continue  # it has changed by these methods
        old, new = before.get(label), now.ingredients.get(label)
        if label.startswith("argument ") and old is not None and new not in (None, MISSING):
            said = _of_values(label, then, now) or words(label, old, new)
        elif label == "env" and then.env != now.env:
            said = f"env: {then.env or 'none'} -> {now.env or 'none'}"
        else:
            said = words(label, old, new)
        found.append(Difference(label, said, _diff(label, names.get(label, label), then, now)))
    return found


def _of_values(label: str, then: CallParts, now: CallParts) -> str:
    """Return the difference of an argument by its values; "" if one of them is not known."""
    name = label.removeprefix("argument ")
    try:
        found = value_difference(then.value(name), now.value(name))
    except Exception:  # not known, or of a class that cannot be loaded here, or that does anything
        return ""
    return found and f"{label}{found}"


def _diff(label: str, old_label: str, then: CallParts, now: CallParts) -> str:
    if not label.startswith("code of "):
        return ""
    old, new = then.sources().get(old_label, ""), now.sources().get(label, "")
    if not old or not new:
        return ""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), then.when, now.when, lineterm="")
    return "\n".join(lines)


# ------------------------------------------------------------------ of a call


def parts_of_call(call: CallKey, resources: Resources) -> CallParts:
    """Return the parts of a call that is made now."""
    return CallParts(
        "now", call.ingredients(), lambda: dict(call.sources), _Values(call).find, str(resources.asked().get("env", ""))
    )


class _Values:
    """The arguments of a call, with results in the place of futures."""

    def __init__(self, call: CallKey) -> None:
        self._call = call

    def find(self, name: str) -> Any:
        value = dict(zip(self._call.names, self._call.values, strict=True))[name]
        return replace_futures(value, lambda future: future.result())


# ------------------------------------------------------------------ of an entry


def parts_of_entry(entry: Entry, ingredients: Ingredients | None = None) -> CallParts:
    """Return the parts of a stored call, which are read when they are asked for."""
    known = entry.ingredients if ingredients is None else ingredients
    env = str(entry.resources.get("env", "")) if "env" in known else ""
    when = f"entry {entry.key[:12]} of {moment(entry.created)}"
    return CallParts(when, known, _Sources(entry).get, _Stored(entry, known).find, env)


class _Sources:
    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._known: Mapping[str, str] | None = None

    def get(self) -> Mapping[str, str]:
        if self._known is None:
            try:
                self._known = self._entry.sources
            except (CacheError, OSError):  # removed or damaged in the meantime
                self._known = {}
        return self._known


class _Stored:
    """The stored arguments of a call by the names of its parameters.

    The file has no names of those that were passed by position, and may have only a description of a value. So a value
    counts only if its digest is that of the ingredient.
    """

    def __init__(self, entry: Entry, ingredients: Ingredients) -> None:
        self._entry, self._ingredients = entry, ingredients
        self._known: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def find(self, name: str) -> Any:
        if self._known is None:
            self._known = self._entry.args, self._entry.kwargs
        digest = self._ingredients[f"argument {name}"].partition(" ")[0]
        for value in self._candidates(name, *self._known):
            if short_token(value_token(value)) == digest:
                return value
        raise KeyError(name)

    def _candidates(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        names = [label.removeprefix("argument ") for label in self._ingredients if label.startswith("argument ")]
        place = names.index(name)
        if name in kwargs:
            yield kwargs[name]
        if place < len(args):
            yield args[place]
        yield args[place:]  # of *args
        yield {key: value for key, value in kwargs.items() if key not in names}  # of **kwargs
