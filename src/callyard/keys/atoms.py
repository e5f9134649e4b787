"""What plain values mean: those that hold nothing else. Few modules are loaded for it."""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..typed import Any
from .tokens import content, token

__all__ = ["ATOMS"]

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
