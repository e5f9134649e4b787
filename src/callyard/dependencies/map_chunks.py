"""Several elements of `map` as one call."""

from __future__ import annotations

from collections.abc import Callable

from ..utils.lite_typing import Any


def run_chunk(fn: Callable[..., Any], chunk: tuple[tuple[Any, ...], ...]) -> list[Any]:
    """The results of `fn` for each tuple of arguments. A worker knows this function: see `Server.apply`."""
    return [fn(*args) for args in chunk]
