"""Tokens: short byte strings that stand for a meaning, composed to those of larger things.

A token begins with the letter of its kind. One that would be long is replaced by its digest, so that of a list costs
one digest however large its elements are. Digests are longer than what is kept as it is, so the two never meet.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from ..utils.lite_typing import Any

__all__ = ["ATOMS", "blake2b", "combine", "content", "text", "token"]


try:
    from _blake2 import blake2b  # as `hashlib` has it, which loads OpenSSL besides
except ImportError:
    from hashlib import blake2b


LONGEST = 32  # bytes of what is kept as it is, its kind included
_DIGEST = 32  # bytes: 256 bits, so that two meanings never meet
_LARGE = 1 << 14  # bytes from which blake3 is faster than what hashlib has


def token(kind: bytes, content: bytes) -> bytes:
    """The token of a kind with this content; nothing else has it."""
    whole = kind + content
    return whole if len(whole) <= LONGEST else kind + blake2b(whole, digest_size=_DIGEST).digest()


def combine(kind: bytes, parts: Iterable[bytes]) -> bytes:
    """The token of a kind that is made of parts, in this order."""
    pieces = [kind]
    for part in parts:
        pieces.append(b"%d:" % len(part))  # so that the parts' ends are part of the meaning
        pieces.append(part)
    whole = b"".join(pieces)
    return whole if len(whole) <= LONGEST else kind + blake2b(whole, digest_size=_DIGEST).digest()


def text(kind: bytes, *parts: str) -> bytes:
    """The token of a kind that is made of names."""
    return combine(kind, [part.encode("utf-8", "surrogatepass") for part in parts])


def content(kind: bytes, buffer: memoryview) -> bytes:
    """The token of a kind with this, perhaps large, content: as fast as memory can be read."""
    if buffer.nbytes < _LARGE:
        return token(kind, bytes(buffer))
    from blake3 import blake3  # here, because only large contents need it

    return kind + blake3(buffer.cast("B")).digest(_DIGEST)


_DOUBLE = struct.Struct("<d").pack
_COMPLEX = struct.Struct("<dd").pack


def _int(value: int) -> bytes:
    if -(1 << 63) <= value < 1 << 63:
        return b"i%d" % value
    return token(b"j", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _str(value: str) -> bytes:
    return token(b"s", value.encode("utf-8", "surrogatepass"))


ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: _int,
    float: lambda value: b"f" + _DOUBLE(value),
    complex: lambda value: b"c" + _COMPLEX(value.real, value.imag),
    str: _str,
    bytes: lambda value: content(b"b", memoryview(value)),
    type(...): lambda _: b"E",
    type(NotImplemented): lambda _: b"I",
}


class UnkeyableError(Exception):
    """A value has no meaning that can be hashed. `path` leads to it from where the walk began."""

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(reason)
        self.kind = type(value).__qualname__
        self.reason = reason
        self.path = ""

    def inside(self, step: str) -> UnkeyableError:
        """The same, seen from one step further out."""
        self.path = step + self.path
        return self


class PendingFuture(Exception):  # not an error: the key has to wait
    """A future among the arguments is not done."""
