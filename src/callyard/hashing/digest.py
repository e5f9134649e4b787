"""Tokens: digests of values as short byte strings, composed to the tokens of larger values.

A token begins with the letter of its kind. A long token is replaced by its digest, so that a list costs
one digest however large its elements are. A digest is longer than any token kept undigested, so the two never collide.
"""

from __future__ import annotations

from ..utils.lite_stdlib import Any, Callable, Iterable, Protocol, struct

__all__ = ["ATOMS", "Encoder", "Handler", "blake2b", "combine", "content", "new_hash", "readable", "text", "token"]


try:
    from _blake2 import blake2b  # `hashlib` has the same function, but loads OpenSSL too
except ImportError:
    from hashlib import blake2b


LONGEST = 32  # the most bytes of a token kept undigested, its kind included
_DIGEST = 32  # bytes: with 256 bits, no two meanings collide
_LARGE = 1 << 14  # bytes from which BLAKE3 is faster than BLAKE2


def token(kind: bytes, content: bytes) -> bytes:
    """Return the token of a kind with this content; no other kind or content has the same."""
    whole = kind + content
    return whole if len(whole) <= LONGEST else kind + blake2b(whole, digest_size=_DIGEST).digest()


def combine(kind: bytes, parts: Iterable[bytes]) -> bytes:
    """Return the token of a kind with these parts, in this order."""
    pieces = [kind]
    for part in parts:
        pieces.append(b"%d:" % len(part))  # the length, because ("ab", "c") and ("a", "bc") must differ
        pieces.append(part)
    whole = b"".join(pieces)
    return whole if len(whole) <= LONGEST else kind + blake2b(whole, digest_size=_DIGEST).digest()


def text(kind: bytes, *parts: str) -> bytes:
    """Return the token of a kind with names as parts."""
    return combine(kind, [part.encode("utf-8", "surrogatepass") for part in parts])


def content(kind: bytes, buffer: memoryview) -> bytes:
    """Return the token of a kind with this content; a large one is hashed about as fast as memory is read."""
    if buffer.nbytes < _LARGE:
        return token(kind, bytes(buffer))
    from blake3 import blake3  # here, because only large contents need it

    return kind + blake3(buffer.cast("B")).digest(_DIGEST)


def new_hash(length: int) -> Any:
    """Return an object that hashes so many bytes: by BLAKE2, which the interpreter has, or if there are many by BLAKE3.

    To load BLAKE3 takes a tenth of the time of a job whose result is a number.
    """
    if length < _LARGE:
        return blake2b(digest_size=_DIGEST)
    from blake3 import blake3

    return blake3()


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


_SINGLE = {b"N": "None", b"T": "True", b"F": "False"}


def readable(token: bytes) -> str:
    """Return the text of the number, short text or constant in a token, for people; "" for any other token."""
    kind, inside = token[:1], token[1:]
    if token in _SINGLE:
        return _SINGLE[token]
    if kind == b"i" and inside.lstrip(b"-").isdigit():
        return inside.decode()
    if kind == b"f" and len(inside) == 8:
        return repr(struct.unpack("<d", inside)[0])
    if kind == b"s" and len(token) <= LONGEST:
        return repr(inside.decode("utf-8", "replace"))
    return ""


class Encoder(Protocol):
    """The part of an encoder for the handlers of single types.

    Handlers use nothing else of encoders, so their modules import none.
    """

    def token(self, value: object) -> bytes:
        """Return the token of a value."""

    def outline(self, value: object) -> bytes:
        """Return the bytes for sorting a key or an element of a set."""

    def definition(self, thing: object) -> bytes:
        """Return the token of a function, a class or a module."""

    def sentinel(self, value: object) -> bytes:
        """Return the token of an `object()`, which has no content."""

    def future(self, future: object) -> bytes:
        """Return the token of a future."""


Handler = Callable[[Encoder, Any], bytes]  # makes the token of a value of one type


class UnkeyableError(Exception):
    """A value has no token. `path` leads to it from the value to be encoded."""

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(reason)
        self.kind = type(value).__qualname__
        self.reason = reason
        self.path = ""

    def inside(self, step: str) -> UnkeyableError:
        """Prepend a step to the path, and return the same error."""
        self.path = step + self.path
        return self


class PendingFuture(Exception):  # not an error: the key has to wait
    """A future among the arguments is not done."""
