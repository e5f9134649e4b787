"""Messages on a stream of bytes: a text of the protocol, with large buffers beside.

    kind, number of buffers, size of the head, size of each buffer; the head; the buffers

A large buffer is read from its memory when it is sent, and written into memory of its final size when it comes, so no
copy is made of it on the way.

Messages with large buffers are *bulk*: they go in pieces, and other messages pass between two pieces. A piece is a
message of the kind PIECE, whose head is a part of a second stream of messages. In both streams the order is that of
sending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from ..serialize.shared_memory import Memory

__all__ = [
    "APART",
    "HEAD",
    "LARGEST_PIECE",
    "MESSAGE",
    "MOST_BUFFERS",
    "PIECE",
    "PING",
    "PONG",
    "WELCOME",
    "Message",
    "SendQueue",
    "encode",
    "sizes_of",
]

# Kinds: the driver's first message; a question whether the other side is there, and the answer; all others; a part of
# the bulk.
WELCOME, PING, PONG, MESSAGE, PIECE = 1, 2, 3, 4, 5

MOST_BUFFERS = 1 << 20  # beside one message: a call may take the results of very many others
APART = 1 << 16  # bytes from which a buffer is sent and read apart, rather than copied together with its neighbours
LARGEST_PIECE = 1 << 20  # bytes that other messages wait for; each piece costs a record of TLS more

HEAD = Struct("<BIQ")

Piece = tuple[bytes | memoryview, object]  # bytes to be sent, and their owner, which is kept until then


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


class SendQueue:
    """The bytes that wait to be sent over one connection."""

    def __init__(self) -> None:
        self._next: deque[Piece] = deque()  # messages, and the piece of the bulk that has its turn
        self._bulk: deque[Piece] = deque()

    def __bool__(self) -> bool:
        return bool(self._next or self._bulk)

    def add(self, message: Message, bulk: bool) -> None:
        """Add a message, which may pass those that are bulk.

        Raises:
            ValueError: there are too many buffers.
        """
        (self._bulk if bulk else self._next).extend(encode(message))

    def head(self) -> bytes | memoryview | None:
        """Return the bytes to be sent next, the same ones until they are `sent`; None if none wait."""
        if not self._next:
            if not self._bulk:
                return None
            self._cut()
        return self._next[0][0]

    def sent(self, count: int) -> None:
        """Note that so many bytes of the head have gone."""
        data, owner = self._next[0]
        if count < len(data):
            self._next[0] = memoryview(data)[count:], owner
        else:
            self._next.popleft()

    def clear(self) -> None:
        self._next.clear()
        self._bulk.clear()

    def _cut(self) -> None:
        """Give the next piece of the bulk its turn."""
        data, owner = self._bulk[0]
        piece = memoryview(data)[:LARGEST_PIECE]
        head = HEAD.pack(PIECE, 0, len(piece))
        self._next.extend([(head, None), (piece, owner)] if len(piece) >= APART else [(head + bytes(piece), None)])
        if len(piece) < len(data):
            self._bulk[0] = memoryview(data)[len(piece) :], owner
        else:
            self._bulk.popleft()


def encode(message: Message) -> Iterator[Piece]:
    """Yield the bytes of a message, small ones together.

    Raises:
        ValueError: there are too many buffers.
    """
    kind, head, beside = message
    if len(beside) > MOST_BUFFERS:
        raise ValueError(f"a message has at most {MOST_BUFFERS} buffers, not {len(beside)}")
    together = [HEAD.pack(kind, len(beside), len(head)), sizes_of(len(beside)).pack(*(each.size for each in beside))]
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


def sizes_of(count: int) -> Struct:
    return Struct(f"<{count}Q")
