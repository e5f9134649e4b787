"""Tokens of values, functions and classes included.

value_token({"b": 2, "a": 1}) == value_token({"a": 1, "b": 2})
"""

from __future__ import annotations

from typing import Any

from ..serialize.importable import by_reference
from .definition_walk import is_users
from .definitions import WalkResult, rooted
from .digest import ATOMS, text
from .encoder import BaseEncoder, LenientEncoder


def value_token(value: Any) -> bytes:
    """Return the token of a value.

    Raises:
        UnkeyableError: the value has no token.
        PendingFuture: a future in the value is not done.
    """
    simple = ATOMS.get(type(value))
    return ValueEncoder().token(value) if simple is None else simple(value)


class ValueEncoder(BaseEncoder):
    """An encoder that walks through each definition for its token, and notes the results of the walks."""

    def __init__(self) -> None:
        super().__init__()
        self._defined: dict[int, tuple[Any, bytes]] = {}
        self.roots: list[WalkResult] = []
        self.references: dict[tuple[str, str], None] = {}  # of all roots, as of a `WalkResult`
        self.modules: set[str] = set()  # likewise
        self.unkeyed: dict[str, str] = {}
        self.reads_metadata = 0  # the maximum over all roots, see `metadata_readers`

    def definition(self, thing: Any) -> bytes:
        known = self._defined.get(id(thing))
        if known is not None:
            return known[1]
        found = rooted(thing)
        self.roots.append(found)
        self.references.update(found.references)
        self.modules |= found.modules
        self.unkeyed.update(found.unkeyed)
        self.reads_metadata = max(self.reads_metadata, found.reads_metadata)
        token = rooted(thing, with_metadata=True).token if found.reads_metadata else found.token
        self._defined[id(thing)] = thing, token
        return token

    def imported(self, thing: Any) -> None:
        if is_users(thing) and by_reference(thing):
            self.references[thing.__module__, thing.__qualname__] = None
            self.modules.add(thing.__module__)

    def with_metadata(self) -> list[WalkResult]:
        """Return the results for the same definitions with their metadata."""
        return [rooted(thing, with_metadata=True) for thing, _ in self._defined.values()]


class LenientValueEncoder(ValueEncoder, LenientEncoder):
    """An encoder that walks through definitions, and takes the type of a value without a token."""


class LinkedEncoder(ValueEncoder):
    """An encoder with the identity of the call for each future, if known."""

    def __init__(self) -> None:
        super().__init__()
        self.links = 0

    def future(self, future: Any) -> bytes:
        identity = getattr(future, "identity", "")
        if not identity:
            return super().future(future)
        self.links += 1
        return text(b"<", identity)

    def result_of(self, future: Any) -> Any:
        return None if getattr(future, "identity", "") else super().result_of(future)
