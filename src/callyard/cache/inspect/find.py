"""The search for entries: by the beginning of a key, by age and size."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TypeVar

from ...errors import CacheError
from ...utils.quantities import FILE_SIZES, SECONDS, measured
from ..directory import CacheDirectory
from ..entry import Entry, open_entry, open_noted
from ..format.record_file import DamagedFile

__all__ = [
    "SHORTEST",
    "NoEntry",
    "age",
    "all_keys",
    "entries",
    "keys_by_age",
    "needed_files",
    "noted_entries",
    "open_any",
    "the_key",
    "volume",
]

T = TypeVar("T")
SHORTEST = 6  # characters of the beginning of a key, at least


class NoEntry(CacheError, KeyError):
    """A key of no stored call, or the beginning of several keys."""

    __str__ = Exception.__str__  # because KeyError would quote the sentence


# ------------------------------------------------------------------ one


def the_key(text: str, keys: Callable[[], Iterable[str]], exists: Callable[[str], bool], where: str) -> str:
    """Return the key with this beginning.

    Raises NoEntry if there is no such key, or there are several.
    """
    if not isinstance(text, str):
        raise TypeError(f"a key is a string, not {text!r}")
    if exists(text):
        return text
    known = list(keys())
    found = [key for key in known if key.startswith(text)] if len(text) >= SHORTEST else []
    if len(found) == 1:
        return found[0]
    if found:
        raise NoEntry(f"{text!r} is the beginning of {len(found)} keys in {where}: {_some(found)}")
    raise NoEntry(f"there is no call {text!r} in {where}{_hint(text, known)}")


def _hint(text: str, known: list[str]) -> str:
    if not known:
        return ", which is empty"
    if any(key.startswith(text) for key in known):
        return f": give at least {SHORTEST} characters of the key"
    near = difflib.get_close_matches(text, {key[: max(len(text), 12)] for key in known}, n=1)
    return f": did you mean {near[0]!r}?" if near else ": `callyard list` shows what is there"


def _some(keys: list[str]) -> str:
    shown = ", ".join(sorted(keys)[:3])
    return shown + (", ..." if len(keys) > 3 else "")


# ------------------------------------------------------------------ all


def keys_by_age(directory: CacheDirectory) -> list[str]:
    """Return the keys of all results, the oldest files first."""
    return [key for _, key in _by_age(directory)]


def all_keys(directory: CacheDirectory) -> list[str]:
    """Return the keys of all results, and of the failures without a later result; the oldest files first."""
    results = _by_age(directory)
    known = {key for _, key in results}
    failures = (found for found in _by_age(directory.failures) if found[1] not in known)
    return [key for _, key in sorted([*results, *failures])]


def _by_age(directory: CacheDirectory) -> list[tuple[int, str]]:
    found = []
    for key, file in directory.entries():
        try:
            found.append((file.stat(follow_symlinks=False).st_mtime_ns, key))
        except OSError:
            continue  # removed in the meantime
    return sorted(found)


def open_any(directory: CacheDirectory, key: str) -> Entry:
    """Return the entry of a key: its result, or else its failure. Raises as `open_entry` does."""
    try:
        return open_entry(directory, key)
    except FileNotFoundError:
        return open_entry(directory.failures, key)


def needed_files(directory: CacheDirectory) -> set[str] | None:
    """Return the names of the contents of files that results name; None if an entry cannot say."""
    found: set[str] = set()
    for key, _ in directory.entries():
        try:
            found.update(open_entry(directory, key)._head.files)
        except (FileNotFoundError, DamagedFile):  # which is no result
            continue
        except (CacheError, OSError):  # of a newer Callyard, for example
            return None
    return found


def entries(directory: CacheDirectory, keys: Iterable[str]) -> Iterator[Entry]:
    """Yield the entries of these keys; leave out removed ones, and unreadable ones with a warning."""
    return _each(directory, keys, open_any)


def noted_entries(directory: CacheDirectory, keys: Iterable[str]) -> Iterator[tuple[Entry, dict[str, str]]]:
    """Yield the entries of these keys as `entries` does, each with the ingredients of its key."""
    return _each(directory, keys, open_noted)


def _each(directory: CacheDirectory, keys: Iterable[str], read: Callable[[CacheDirectory, str], T]) -> Iterator[T]:
    for key in keys:
        try:
            yield read(directory, key)
        except FileNotFoundError:
            continue
        except (CacheError, OSError) as error:
            warnings.warn(f"left out: {error}; `callyard check` says more", stacklevel=3)


# ------------------------------------------------------------------ ages and sizes


def age(value: object) -> float:
    """Return seconds, from a number of them, a timedelta, or a text with a unit, as "30d"."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return _amount(value, SECONDS, "s", 'seconds, a timedelta, or a text as "90min", "12h", "30d" or "2w"')


def volume(value: object) -> float:
    """Return bytes, from a number of them or a text with a unit, as "1GB"."""
    return _amount(value, FILE_SIZES, "b", 'a number of bytes, or a text as "500 kB", "1GB" or "2GiB"')


def _amount(value: object, units: Mapping[str, int], unit: str, wanted: str) -> float:
    """Return a number as it is, and a text by its unit; a text has one, because "30" may mean days, and removes all."""
    number, lacks = math.nan, ""
    if isinstance(value, str):
        number, bare = measured(value, units), measured(value, units, unit)
        if bare == 0:  # in any unit
            number = bare
        elif math.isnan(number) and not math.isnan(bare):
            lacks = "has no unit: it "
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
    if not 0 <= number < math.inf:
        raise CacheError(f"{value!r} {lacks}should be {wanted}")
    return number
