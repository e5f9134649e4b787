"""The protocol between a driver and the agents on its nodes.

The head of a message (`channel_messages.py`) holds frames, as between a driver and its workers (`frames.py`). Beside
the head are large buffers, in the order of the frames that refer to them. Frames with such buffers, or that must come
behind those, are sent as bulk (marked * here): all other frames may pass them.

    driver -> agent    WELCOME   once, after HELLO: the resources to give out, and the settings of the workers
                       REFUSED   instead: the reason (text)
                       SURROUNDINGS   import path, and the key of the driver's multiprocessing managers
                       PLAN      the requirements of calls, under a number
                       DEFINE    a function, under a number, with its name
                       FORGET    numbers of dropped functions
                       FORGET_BUFFERS * numbers of dropped buffers
                       FORGET_PLANS   * of the requirements of calls, all up to this number
                       WORKERS   the number of calls to run at once from now on
                       CALL      run this call; * with large buffers
                       TAKE_BACK return the calls that have not begun; none of them begins here any more
                       ALONE     let idle workers go: their resources are for ranks of a call over several nodes
                       END_CALL * end this call alone, although it runs; the answer is BACK
                       SIGNAL    end the workers by this signal, and run no call any more
                       END     * end when all calls have ended
    agent -> driver    HELLO     the agent's name, its versions, the resources of the machine
                       RESULT, ERROR    of a call: the returned value, the raised exception; * with large buffers
                       LOST      of a call: the worker is gone; the reason in words
                       NOT_STARTED      of a call: no worker could be started
                       BACK      of a call: not begun, and never to begin here
                       TAKEN_BACK       the end of the answer to TAKE_BACK
                       WARNING   a text for the user of the driver
                       STARTED   a call has been given to a worker; only if the driver records events
                       LEAVING   the scheduler ends the agent: calls have their grace; then END is awaited
                       ENDED   * all workers have ended
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Any, NamedTuple

from ..serialize.packed import Packed
from ..serialize.shared_memory import Memory
from . import frames
from .frames import HEAD, Frame
from .sent_buffers import KeptBuffers, SentBuffers

WELCOME, REFUSED, SURROUNDINGS, PLAN, DEFINE, FORGET, WORKERS, CALL, TAKE_BACK, ALONE, SIGNAL, END = range(31, 43)
FORGET_BUFFERS, FORGET_PLANS, END_CALL = range(43, 46)
HELLO, RESULT, ERROR, LOST, NOT_STARTED, BACK, TAKEN_BACK, WARNING, ENDED, LEAVING, STARTED = range(51, 62)

WHOLE = 1  # flag of a frame: the body was made by `wrap`; without the flag the body is a pickle alone
PLAN_NUMBER = Struct("<I")  # before the pickle of a call


def json_frame(kind: int, content: Any = None, number: int = 0) -> bytes:
    """Return a frame whose body is JSON."""
    return frames.encode(kind, 0, number, 0, json.dumps(content).encode())


def split_frames(frames: bytes) -> Iterator[Frame]:
    """Yield the frames in the head of a message."""
    place, end, head, unpack = 0, len(frames), HEAD.size, HEAD.unpack_from
    while place < end:
        _, size, kind, sequence, number, flags = unpack(frames, place)
        yield kind, sequence, number, flags, frames[place + head : place + size]
        place += size


class Outgoing(NamedTuple):
    """A message to be sent: its frames, and the buffers beside; others may pass one that is bulk."""

    head: bytes
    beside: Sequence[Memory] = ()
    bulk: bool = False


class FrameSender:
    """The frames for one receiver, collected until they are sent as few messages."""

    __slots__ = ("_bulk", "_frames", "beside")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._bulk: list[bytes] = []
        self.beside: list[Memory] = []  # large buffers of the frames that are bulk

    def add(self, frame: bytes, bulk: bool = False) -> None:
        (self._bulk if bulk else self._frames).append(frame)

    def __bool__(self) -> bool:
        return bool(self._frames or self._bulk)

    def take(self) -> list[Outgoing]:
        """Return the messages, and begin others."""
        messages = [Outgoing(b"".join(self._frames))] if self._frames else []
        if self._bulk:  # behind the settings that its frames may need
            messages.append(Outgoing(b"".join(self._bulk), self.beside, bulk=True))
        self._frames, self._bulk, self.beside = [], [], []
        return messages


_LENGTH = Struct("<I")
_PARTS = "parts"


def wrap(head: dict[str, Any], parts: Iterable[Packed], beside: list[Memory], sent: SentBuffers | None = None) -> bytes:
    """Return a body for `parts` with `head` in front, and append large buffers to `beside` unless the peer has them."""
    places: list[Any] = []
    inline = bytearray()
    for packed in parts:
        numbers = [0 if sent is None else sent.add(memory) for memory in packed.memories]
        places.append((None if packed.data is None else len(packed.data), numbers, packed.spans))
        inline += packed.data or b""
        beside += [memory for memory, number in zip(packed.memories, numbers, strict=True) if number >= 0]
    said = json.dumps({**head, _PARTS: places}, separators=(",", ":")).encode()
    return _LENGTH.pack(len(said)) + said + bytes(inline)


def unwrap(
    body: bytes, beside: Iterator[Memory], kept: KeptBuffers | None = None
) -> tuple[dict[str, Any], list[Packed]]:
    """Return the head and the parts of a body, and take their large buffers from `beside`, or from those kept."""
    (length,) = _LENGTH.unpack_from(body)
    place = _LENGTH.size + length
    head: dict[str, Any] = json.loads(body[_LENGTH.size : place])
    parts: list[Packed] = []
    buffers_of = (kept or KeptBuffers()).take
    for size, numbers, spans in head.pop(_PARTS):
        data = None if size is None else body[place : place + size]
        place += size or 0
        # In the order in which `wrap` has appended them.
        buffers = buffers_of(numbers, beside)
        parts.append(Packed(data, buffers, tuple((which, start, length) for which, start, length in spans)))
    return head, parts
