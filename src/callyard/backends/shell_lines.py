"""Settings that are one text or several, as lines of shell."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ResourceError

__all__ = ["check_texts", "lines"]


def lines(text: str | Sequence[str]) -> tuple[str, ...]:
    """Return the lines of a text, or of several."""
    return tuple(text.splitlines() if isinstance(text, str) else text)


def check_texts(name: str, value: object) -> None:
    """Raise ResourceError unless this is a text, or several."""
    texts = isinstance(value, Sequence) and all(isinstance(each, str) for each in value)
    if not texts or isinstance(value, bytes):
        raise ResourceError(f"{name} must be a string or several of them, not {value!r}")
