"""The stored calls that a script leads to no more, as the code of their functions has changed since."""

from __future__ import annotations

from collections.abc import Iterator

from ..directory import CacheDirectory
from .find import keys_by_age, noted_entries
from .script_code import ScriptCode

__all__ = ["unreached_keys"]


def unreached_keys(directory: CacheDirectory, script: str) -> Iterator[str]:
    """Return the keys of results of functions in a script, or in modules of the user's, whose code has changed since.

    The files are read, and nothing of them runs. Calls of functions that are not found are left out.

    Raises:
        CacheError: the script cannot be read, or is no Python.
    """
    code = ScriptCode(script)
    return (
        entry.key
        for entry, noted in noted_entries(directory, keys_by_age(directory))
        if code.knows(entry.function, noted) and not code.leads_to(noted)
    )
