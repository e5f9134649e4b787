"""Messages on a stream of bytes: a text of the protocol, with large buffers beside.

    kind, number of buffers, size of the head, size of each buffer; the head; the buffers

A large buffer is read from its memory when it is sent, and written into memory of its final size when it comes, so no
copy is made of it on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from ..serialize.shared_memory import Memory, OwnedSegment, PrivateBytes

__all__ = ["MESSAGE", "MOST_BUFFERS", "PING", "PONG", "WELCOME", "GarbledMessage", "Message", "MessageReader", "encode"]

# Kinds: the driver's first message; a question whether the other side is there, and the answer; all others.
WELCOME, PING, PONG, MESSAGE = 1, 2, 3, 4

MOST_BUFFERS = 1 << 20  # beside one message: a call may take the results of very many others
SCRATCH = 1 << 14  # bytes that are read at once, apart from large buffers: TLS gives no more, and each peer has so many
APART = 1 << 16  # bytes from which a buffer is sent and read apart, rather than copied together with its neighbours

_HEAD = Struct("<BIQ")

Reserve = Callable[[int], OwnedSegment | None]
Piece = tuple[bytes | memoryview, object]  # bytes to be sent, and their owner, which is kept until then


class GarbledMessage(ValueError):
    """The error if the arrived bytes are no message."""


class Message(NamedTuple):
    """What one side says to the other.

    Attributes:
        kind: for the channel itself.
        head: frames of the protocol above.
        beside: the buffers that the frames refer to, in their order.
    """

    kind: int
    head: bytes = b""
    beside: Sequence[Memory] = ()


def encode(message: Message) -> Iterator[Piece]:
    """Yield the bytes of a message, small ones together.

    Raises:
        ValueError: there are too many buffers.
    """
    kind, head, beside = message
    if len(beside) > MOST_BUFFERS:
        raise ValueError(f"a message has at most {MOST_BUFFERS} buffers, not {len(beside)}")
    together = [_HEAD.pack(kind, len(beside), len(head)), _sizes(len(beside)).pack(*(each.size for each in beside))]
    together.append(head)
    for memory in beside:
        if memory.size < APART:
            together.append(memory.read())  # type: ignore[arg-type]  # joined below
            continue
        yield b"".join(together), None
        together = []
        yield memory.read(), memory
    if together:
        yield b"".join(together), None


def _sizes(count: int) -> Struct:
    return Struct(f"<{count}Q")


class MessageReader:
    """The receiving end of a stream, which makes messages of the bytes.

    The bytes go where `space` says, and `take` returns the messages that are whole now:

        count = sock.recv_into(reader.space())
        messages = reader.take(count)
    """

    def __init__(self, reserve: Reserve = lambda size: None) -> None:  # noqa: ARG005
        self.reserve = reserve  # returns shared memory for a buffer of this size, or None for private memory
        self._scratch = memoryview(bytearray(SCRATCH))
        self._rest = bytearray()  # bytes that do not make a whole part yet
        self._kind = self._head_size = 0
        self._sizes: tuple[int, ...] | None = None  # of the buffers of the message that is being read
        self._head: bytes | None = None
        self._beside: list[Memory] = []
        self._target: memoryview | None = None  # the part of a large buffer that is still to come

    def space(self) -> memoryview:
        """Return memory for the next bytes of the stream."""
        return self._scratch if self._target is None else self._target

    def take(self, count: int) -> list[Message]:
        """Take in so many bytes that have been written into `space`, and return the messages that are whole now.

        Raises:
            GarbledMessage: no memory can hold what the bytes announce.
        """
        if self._target is None:
            self._rest += self._scratch[:count]
        else:
            self._target = self._target[count:] if count < len(self._target) else None
        return [] if self._target is not None else self._parse()

    def _parse(self) -> list[Message]:
        messages: list[Message] = []
        place = 0
        while True:
            if self._is_whole():
                messages.append(self._whole())
            size = self._step(place)
            if size < 0:
                break
            place += size
        del self._rest[:place]
        return messages

    def _step(self, place: int) -> int:
        """Read the next part from the rest, at this place; return its size there, or -1 if it is not whole."""
        rest, left = self._rest, len(self._rest) - place
        if self._sizes is None:
            if left < _HEAD.size:
                return -1
            kind, count, head_size = _HEAD.unpack_from(rest, place)
            if count > MOST_BUFFERS:
                raise GarbledMessage(f"a message with {count} buffers")
            sizes = _sizes(count)
            if left < _HEAD.size + sizes.size:
                return -1
            self._kind, self._head_size = kind, head_size
            self._sizes = sizes.unpack_from(rest, place + _HEAD.size)
            return _HEAD.size + sizes.size
        if self._head is None:
            if left < self._head_size:
                return -1
            self._head = bytes(memoryview(rest)[place : place + self._head_size])
            return self._head_size
        if self._target is not None:
            return -1
        return self._buffer(self._sizes[len(self._beside)], place, left)

    def _buffer(self, size: int, place: int, left: int) -> int:
        """Read the next buffer; of a large one only the beginning is in the rest."""
        rest = memoryview(self._rest)
        if size < APART:
            if left < size:
                return -1
            self._beside.append(PrivateBytes(bytes(rest[place : place + size])))
            return size
        memory, target = self._memory(size)
        here = min(left, size)
        target[:here] = rest[place : place + here]
        self._beside.append(memory)
        if here < size:
            self._target = target[here:]
        return here

    def _memory(self, size: int) -> tuple[Memory, memoryview]:
        segment = self.reserve(size)
        if segment is not None:
            return segment, segment.read()
        try:
            content = bytearray(size)
        except (MemoryError, OverflowError) as error:
            raise GarbledMessage(f"a message with a buffer of {size} bytes") from error
        return PrivateBytes(content), memoryview(content)

    def _is_whole(self) -> bool:
        return (
            self._head is not None
            and self._sizes is not None
            and len(self._beside) == len(self._sizes)
            and self._target is None
        )

    def _whole(self) -> Message:
        message = Message(self._kind, self._head or b"", self._beside)
        self._sizes = self._head = None
        self._beside = []
        return message
