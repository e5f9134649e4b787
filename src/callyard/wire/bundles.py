"""Packed objects between machines: as part of a frame, with large buffers as further parts of the message.

What says where the bytes are is JSON; the bytes themselves are opened by nobody on the way.

    body = length of the JSON | JSON | the small pickles, one after the other
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any

from .memory import Private
from .packed import Packed

_LENGTH = Struct("<I")
_PARTS = "parts"


def wrap(head: dict[str, Any], parts: Iterable[Packed], beside: list[memoryview]) -> bytes:
    """The body for `parts`, with `head` in front; what is large is appended to `beside`."""
    places: list[Any] = []
    inline = bytearray()
    for packed in parts:
        places.append((None if packed.data is None else len(packed.data), len(packed.memories), packed.spans))
        inline += packed.data or b""
        beside.extend(memory.read() for memory in packed.memories)
    said = json.dumps({**head, _PARTS: places}, separators=(",", ":")).encode()
    return _LENGTH.pack(len(said)) + said + bytes(inline)


def unwrap(body: bytes, beside: Iterator[bytes]) -> tuple[dict[str, Any], list[Packed]]:
    """The head and the parts again; their large buffers are the next of `beside`."""
    (length,) = _LENGTH.unpack_from(body)
    place = _LENGTH.size + length
    head: dict[str, Any] = json.loads(body[_LENGTH.size : place])
    parts: list[Packed] = []
    for size, memories, spans in head.pop(_PARTS):
        data = None if size is None else body[place : place + size]
        place += size or 0
        buffers = tuple(Private(next(beside)) for _ in range(memories))
        parts.append(Packed(data, buffers, tuple((which, start, length) for which, start, length in spans)))
    return head, parts
