"""The function of a call for several elements of `map` (`chunksize`)."""

from __future__ import annotations

from ..utils.lite_stdlib import Any, Callable


def run_chunk(fn: Callable[..., Any], chunk: tuple[tuple[Any, ...], ...]) -> list[Any]:
    """Return the results of `fn` for each tuple of arguments."""
    return [fn(*args) for args in chunk]
