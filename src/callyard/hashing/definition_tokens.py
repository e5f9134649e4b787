"""Tokens of single definitions, as workers find them by their names, and what else is known of a function."""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType
from typing import Any

from .definitions import WalkResult, rooted
from .digest import combine
from .imported_code import definition_at
from .values import LenientValueEncoder, ValueEncoder

__all__ = ["function_ingredients", "has_metadata", "joined", "token_at", "unfollowed"]


def joined(token: bytes, roots: Iterable[WalkResult]) -> bytes:
    """Return a token that includes definitions with their metadata."""
    return combine(b"+", [token, *sorted(root.token for root in roots)])


def _definitions(function: Any) -> list[Any]:
    """Return the functions and classes inside a callable."""
    if type(function) is FunctionType or isinstance(function, type):
        return [function]
    parts = (getattr(function, name, None) for name in ("func", "__func__", "__wrapped__", "py_func"))
    found = [thing for part in parts if part is not None for thing in _definitions(part)]
    return found or [type(function)]


def function_ingredients(function: Any) -> dict[str, bytes]:
    """Return the labelled tokens of all ingredients of a function's token."""
    found: dict[str, bytes] = {}
    for thing in _definitions(function):
        found |= rooted(thing).ingredients
    return found


def unfollowed(function: Any, *arguments: Any) -> list[str]:
    """Return names in a function, its helpers and its arguments' classes beyond the reach of any key, as `eval`."""
    encoder = LenientValueEncoder()
    for value in (function, *arguments):
        encoder.token(value)
    return sorted({name for root in encoder.roots for name in root.unfollowed})


def token_at(
    module: str, name: str, code_only: bool = False, encoder: ValueEncoder | None = None, with_metadata: bool = False
) -> bytes:
    """Return the token of a definition imported by a worker.

    Args:
        module: the module of the definition.
        name: its qualified name there.
        code_only: True to leave out the data, so that only the code counts.
        encoder: the encoder of the call, with most definitions walked already.
        with_metadata: True to include the metadata, see `metadata_tokens`.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such name.
    """
    found = definition_at(module, name)
    if code_only:
        return _code_only(found)
    if with_metadata:
        own = LenientValueEncoder()
        return joined(own.token(found), own.with_metadata())
    if isinstance(found, (FunctionType, type)):
        return (encoder or ValueEncoder()).definition(found)
    return LenientValueEncoder().token(found)  # lenient, like the walk that made the token in the key


def _code_only(found: Any) -> bytes:
    parts = ((label, token) for label, token in function_ingredients(found).items() if not label.startswith("global "))
    return combine(b"c", [part for label, token in sorted(parts) for part in (label.encode(), token)])


def has_metadata(token: bytes) -> bool:
    """Return True for a token with metadata; see `token_at`."""
    return token.startswith(b"+")
