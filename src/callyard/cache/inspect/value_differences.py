"""The difference of two values in words: numbers, texts, arrays, and what is inside containers and objects."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ..format.encode import Described, Omitted

__all__ = ["value_difference"]

_MOST = 3  # places inside of a value that are shown
_DEEPEST = 6
_PLAIN = (int, float, complex, bool, str, bytes, type(None))

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


class _Unclear(Exception):
    """One of the values is not there to be compared."""


def value_difference(then: Any, now: Any) -> str:
    """Return words for the difference, to follow the name of the value: ": 300.0 -> 310.0"; "" if none is found.

    Comparing runs code of the values' classes as little as possible: only arrays are compared by their own library.
    """
    try:
        found = list(islice(_differences(then, now, "", 0), _MOST + 1))
    except Exception:  # a value of a library's, or the user's, may do anything
        return ""
    more = ", and more" if len(found) > _MOST else ""
    return "; ".join(found[:_MOST]) + more


def _differences(then: Any, now: Any, path: str, depth: int) -> Iterator[str]:
    """Yield the differences with their places: "['cutoff']: 500 -> 520"."""
    if then is now:
        return
    if isinstance(then, (Described, Omitted)) or isinstance(now, (Described, Omitted)):
        raise _Unclear
    if _is_array(then) and _is_array(now):
        words = _of_arrays(then, now)
        if words:
            yield f"{path}: {words}"
        return
    pairs = None if type(then) is not type(now) or depth >= _DEEPEST else _parts(then, now)
    if pairs is None:
        if not _same(then, now):
            yield f"{path}: {_shown(then, now)}"
        return
    for step, before, after in pairs:
        if before is _NOTHING:
            yield f"{path}{step} is new: {_short.repr(after)}"
        elif after is _NOTHING:
            yield f"{path}{step} is not there any more; it was {_short.repr(before)}"
        else:
            yield from _differences(before, after, path + step, depth + 1)


_NOTHING = object()
Parts = Iterator[tuple[str, Any, Any]]


def _parts(then: Any, now: Any) -> Parts | None:
    """Return the parts of two values of one type, with their places; None for values without parts."""
    if isinstance(then, Mapping):
        return _named(then, now, "[{!r}]")
    if isinstance(then, (list, tuple)):
        return _numbered(then, now) if len(then) == len(now) else None
    if type(then).__flags__ & _MADE_AT_RUN_TIME and hasattr(then, "__dict__"):
        return _named(vars(then), vars(now), ".{}")
    return None


def _numbered(then: Sequence[Any], now: Sequence[Any]) -> Parts:
    for i, (before, after) in enumerate(zip(then, now, strict=True)):
        yield f"[{i}]", before, after


_MADE_AT_RUN_TIME = 1 << 9  # a flag of classes written in Python


def _named(then: Mapping[Any, Any], now: Mapping[Any, Any], form: str) -> Parts:
    for name in {**then, **now}:
        yield form.format(name), then.get(name, _NOTHING), now.get(name, _NOTHING)


def _same(then: Any, now: Any) -> bool:
    """Return True for plain values that are equal, and values of which nothing is known."""
    if isinstance(then, _PLAIN) and isinstance(now, _PLAIN):
        return type(then) is type(now) and (then == now or (then != then and now != now))  # noqa: PLR0124  # NaN
    before, after = _short.repr(then), _short.repr(now)
    return type(then) is type(now) and (before == after or " at 0x" in before)  # an address is no difference


def _shown(then: Any, now: Any) -> str:
    """Return both values, with their types where only these tell them apart."""
    before, after = _look(then), _look(now)
    if before != after and (_kind(then) == _kind(now) or not _is_number(then) or not _is_number(now)):
        return f"{before} -> {after}"
    return f"{before} ({_kind(then)}) -> {after} ({_kind(now)})"


def _look(value: Any) -> str:
    if _is_array(value):
        return f"array {value.dtype} {value.shape}"
    return str(value.item()) if _is_numpy(value) and _is_number(value) else _short.repr(value)


def _kind(value: Any) -> str:
    return type(value).__qualname__


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, complex)) or (_is_numpy(value) and value.dtype.kind in "biufc")


# ------------------------------------------------------------------ numpy


def _is_numpy(value: Any) -> bool:
    """Return True for an array or scalar of numpy's own."""
    return type(value).__module__ == "numpy" and hasattr(value, "dtype") and hasattr(value, "shape")


def _is_array(value: Any) -> bool:
    return _is_numpy(value) and type(value).__name__ == "ndarray"


def _of_arrays(then: Any, now: Any) -> str:
    """Return dtype and shape if they differ, else how many elements do, the first of them and the largest step."""
    import numpy as np

    if (then.dtype, then.shape) != (now.dtype, now.shape):
        return f"array {then.dtype} {then.shape} -> array {now.dtype} {now.shape}"
    differing = np.atleast_1d(then != now)
    if then.dtype.kind in "fc":
        differing &= ~np.atleast_1d(np.isnan(then) & np.isnan(now))
    places = np.argwhere(differing)
    if not len(places):
        return ""
    first = tuple(map(int, places[0]))
    at = f" {list(first)}" if then.shape else ""
    before, after = (np.atleast_1d(array)[first] for array in (then, now))
    largest = ""
    if then.dtype.kind in "iufc" and len(places) > 1:
        step = np.abs(np.subtract(now, then, dtype=np.result_type(then, np.float64)))
        largest = f", the largest difference is {np.nanmax(step):.3g}"
    count = f"{len(places):,} of {then.size:,} elements {'differs' if len(places) == 1 else 'differ'}"
    return f"array {then.dtype} {then.shape}, {count}: the first{at} {before} -> {after}{largest}"
