"""The function of a call for several elements of `map` (`chunksize`)."""

from __future__ import annotations

from collections.abc import Callable

from ..utils.lite_typing import Any


def run_chunk(fn: Callable[..., Any], chunk: tuple[tuple[Any, ...], ...]) -> list[Any]:
    """Return the results of `fn` for each tuple of arguments."""
    return [fn(*args) for args in chunk]
