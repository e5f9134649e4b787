"""The reader of one connection: it makes messages of the bytes, those of the bulk from their pieces."""

from __future__ import annotations

from collections.abc import Callable

from ..serialize.shared_memory import Memory, OwnedSegment, PrivateBytes
from .channel_messages import APART, HEAD, MOST_BUFFERS, PIECE, Message, sizes_of

__all__ = ["MessageReader", "Reserve"]

_SCRATCH = (
    1 << 14
)  # bytes that are read at once, apart from large buffers: TLS gives no more, and each peer has so many

Reserve = Callable[[int], OwnedSegment | None]


class _Garbled(ValueError):
    """The error if the arrived bytes are no message."""


class MessageReader:
    """The receiving end of a stream, which makes messages of the bytes.

    The bytes go where `space` says, and `take` returns the messages that are whole now:

        count = sock.recv_into(reader.space())
        messages = reader.take(count)
    """

    def __init__(self, reserve: Reserve = lambda size: None, scratch: memoryview | None = None) -> None:  # noqa: ARG005
        self.reserve = reserve  # returns shared memory for a buffer of this size, or None for private memory
        self.fault = ""  # in words, if the bytes are no message: then no more may be taken in
        self._is_bulk = scratch is not None
        self._scratch = memoryview(bytearray(_SCRATCH)) if scratch is None else scratch
        self._bulk: MessageReader | None = None  # of the stream in the pieces, once there is one
        self._piece = 0  # bytes of a piece that are still to come
        self._rest = bytearray()  # bytes that do not make a whole part yet
        self._kind = self._head_size = 0
        self._sizes: tuple[int, ...] | None = None  # of the buffers of the message that is being read
        self._head: bytes | None = None
        self._beside: list[Memory] = []
        self._target: memoryview | None = None  # the part of a large buffer that is still to come

    def space(self) -> memoryview:
        """Return memory for the next bytes of the stream."""
        if self._piece and self._bulk is not None:
            return self._bulk.space()[: self._piece]
        return self._scratch if self._target is None else self._target

    def take(self, count: int) -> list[Message]:
        """Take in so many bytes that have been written into `space`, and return the messages that are whole now.

        Bytes that are no message set `fault`, and end the stream.
        """
        if self._piece and self._bulk is not None:
            self._piece -= count
            return self._taken_in_bulk(count)
        if self._target is None:
            self._rest += self._scratch[:count]
        else:
            self._target = self._target[count:] if count < len(self._target) else None
        return [] if self._target is not None else self._parse()

    def _parse(self) -> list[Message]:
        messages: list[Message] = []
        place = size = 0
        while True:
            if self._head is not None and self._is_whole():
                messages.append(self._whole())
            try:
                size = self._take_piece(place, messages) if self._piece else self._step(place)
            except _Garbled as error:  # the messages before it count
                self.fault = str(error)
            if size < 0 or self.fault:
                break
            place += size
        del self._rest[:place]
        return messages

    def _take_piece(self, place: int, messages: list[Message]) -> int:
        """Pass on the part of a piece that is in the rest, at this place; return its size, or -1 if there is none."""
        assert self._bulk is not None, "made at the head of the piece"
        size = min(self._piece, len(self._rest) - place)
        end = place + size
        self._piece -= size
        while place < end and not self.fault:
            space = self._bulk.space()
            count = min(len(space), end - place)
            space[:count] = self._rest[place : place + count]
            messages += self._taken_in_bulk(count)
            place += count
        return size or -1

    def _taken_in_bulk(self, count: int) -> list[Message]:
        assert self._bulk is not None
        messages = self._bulk.take(count)
        self.fault = self._bulk.fault
        return messages

    def _step(self, place: int) -> int:
        """Read the next part from the rest, at this place; return its size there, or -1 if it is not whole."""
        rest, left = self._rest, len(self._rest) - place
        if self._sizes is None:
            if left < HEAD.size:
                return -1
            kind, count, head_size = HEAD.unpack_from(rest, place)
            if count > MOST_BUFFERS:
                raise _Garbled(f"a message with {count} buffers came")
            if kind == PIECE:
                return self._begin_piece(head_size)
            sizes = sizes_of(count)
            if left < HEAD.size + sizes.size:
                return -1
            self._kind, self._head_size = kind, head_size
            self._sizes = sizes.unpack_from(rest, place + HEAD.size)
            return HEAD.size + sizes.size
        if self._head is None:
            if left < self._head_size:
                return -1
            self._head = bytes(memoryview(rest)[place : place + self._head_size])
            return self._head_size
        if self._target is not None:
            return -1
        return self._buffer(self._sizes[len(self._beside)], place, left)

    def _begin_piece(self, size: int) -> int:
        if self._is_bulk:
            raise _Garbled("a piece came within a piece")
        if self._bulk is None:
            self._bulk = MessageReader(scratch=self._scratch)
        self._bulk.reserve = self.reserve  # set later than the first bytes have come
        self._piece = size
        return HEAD.size

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
            raise _Garbled(f"no memory is left here for a buffer of {size} bytes") from error
        return PrivateBytes(content), memoryview(content)

    def _is_whole(self) -> bool:
        return self._sizes is not None and len(self._beside) == len(self._sizes) and self._target is None

    def _whole(self) -> Message:
        message = Message(self._kind, self._head or b"", self._beside)
        self._sizes = self._head = None
        self._beside = []
        return message
