"""The protocol between a driver and the agents on its nodes.

A message is a list of byte strings. The first holds frames, as between a driver and its workers (`frames.py`); the
others are large buffers, in the order of the frames that refer to them.

    driver -> agent    WELCOME   once, after HELLO: what it may give out, and what its workers must know
                       REFUSED   instead: why not (text)
                       SURROUNDINGS   import path, and the key of the driver's multiprocessing managers
                       PLAN      what calls ask for, under a number
                       DEFINE    a function, under a number, with its name
                       FORGET    numbers of functions that are gone
                       WORKERS   how many calls may run at once from now on
                       CALL      run it
                       TAKE_BACK return the calls that have not begun; they are not going to begin here
                       ALONE     let idle workers go: what they hold is for ranks of a call over several nodes
                       SIGNAL    end the workers by this signal, and then yourself
                       END       end when all calls have ended
    agent -> driver    HELLO     who it is, versions, what the machine has
                       RESULT, ERROR    of a call: what the function returned or raised
                       LOST      of a call: its worker is gone, in words
                       NOT_STARTED      of a call: no worker could be started for it
                       BACK      of a call: it has not begun and never will here
                       TAKEN_BACK       that was all
                       WARNING   something that the user of the driver should read
                       LEAVING   its part of the job is to end: it ends its calls, takes no others, and waits for END
                       ENDED     all workers have ended
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any

from ..serialize.packed import Packed
from ..serialize.shared_memory import PrivateBytes
from . import frames
from .frames import HEAD, Frame

WELCOME, REFUSED, SURROUNDINGS, PLAN, DEFINE, FORGET, WORKERS, CALL, TAKE_BACK, ALONE, SIGNAL, END = range(31, 43)
HELLO, RESULT, ERROR, LOST, NOT_STARTED, BACK, TAKEN_BACK, WARNING, ENDED, LEAVING = range(51, 61)

WHOLE = 1  # flag of a frame: its body was made by `wrap`; otherwise it is the pickle alone
PLAN_NUMBER = Struct("<I")  # before the pickle of a call


def json_frame(kind: int, content: Any = None, number: int = 0) -> bytes:
    """Return a frame whose body is JSON."""
    return frames.encode(kind, 0, number, 0, json.dumps(content).encode())


def split_frames(message: bytes) -> Iterator[Frame]:
    """Return the frames of the first part of a message."""
    place, end, head, unpack = 0, len(message), HEAD.size, HEAD.unpack_from
    while place < end:
        _, size, kind, sequence, number, flags = unpack(message, place)
        yield kind, sequence, number, flags, message[place + head : place + size]
        place += size


class FrameSender:
    """The frames for one receiver, collected until they are sent as one message."""

    __slots__ = ("_frames", "beside")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self.beside: list[memoryview] = []

    def add(self, frame: bytes) -> None:
        self._frames.append(frame)

    def __bool__(self) -> bool:
        return bool(self._frames)

    def take(self) -> list[bytes | memoryview]:
        """Return the message, and begin another one."""
        message: list[bytes | memoryview] = [b"".join(self._frames), *self.beside]
        self._frames, self.beside = [], []
        return message


_LENGTH = Struct("<I")
_PARTS = "parts"


def wrap(head: dict[str, Any], parts: Iterable[Packed], beside: list[memoryview]) -> bytes:
    """Return the body for `parts`, with `head` in front; append large buffers to `beside`."""
    places: list[Any] = []
    inline = bytearray()
    for packed in parts:
        places.append((None if packed.data is None else len(packed.data), len(packed.memories), packed.spans))
        inline += packed.data or b""
        beside.extend(memory.read() for memory in packed.memories)
    said = json.dumps({**head, _PARTS: places}, separators=(",", ":")).encode()
    return _LENGTH.pack(len(said)) + said + bytes(inline)


def unwrap(body: bytes, beside: Iterator[bytes]) -> tuple[dict[str, Any], list[Packed]]:
    """Return the head and the parts of a body; their large buffers are the next of `beside`."""
    (length,) = _LENGTH.unpack_from(body)
    place = _LENGTH.size + length
    head: dict[str, Any] = json.loads(body[_LENGTH.size : place])
    parts: list[Packed] = []
    for size, memories, spans in head.pop(_PARTS):
        data = None if size is None else body[place : place + size]
        place += size or 0
        buffers = tuple(PrivateBytes(next(beside)) for _ in range(memories))
        parts.append(Packed(data, buffers, tuple((which, start, length) for which, start, length in spans)))
    return head, parts
