"""The two ends of a stream of messages: small messages in their order, and large ones in pieces between them.

    small message     one frame (`transport/frames`), whose body is a pickle of plain values and of small buffers
    large message     BEGIN: kind, content, and the sizes of its parts; PIECEs of these; END, with what went wrong, if
                      anything did

One large message is on its way at a time. Its parts are read, from memory or a file, as the link takes them, and
written, to memory or a file, as they come; so none of them need be in memory as a whole. A small message waits for one
piece at most. A large message counts from its END on, and not at all if the stream ends before.
"""

from __future__ import annotations

import os
import pickle
import queue
import select
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol

from ...transport.frames import HEAD, MARK, GarbledFrame, encode
from .protocol import ALIVE, BEAT, BEGIN, END, PIECE, SILENCE, LinkBroken, Message

__all__ = [
    "LARGE",
    "MOST",
    "Announced",
    "BytesSource",
    "LargeMessage",
    "MemorySink",
    "MessageReader",
    "MessageWriter",
    "Piece",
    "Sink",
    "Sinks",
    "Source",
    "SourceLost",
    "in_memory",
    "is_readable",
    "pieces",
]

LARGE = 1 << 20  # bytes of buffers from which a message is sent in pieces
MOST = 1 << 18  # bytes of a piece, and the most that is handed to the system at once

Piece = bytes | memoryview


class SourceLost(Exception):
    """A part of a large message cannot be read any more; the message says why."""


class Source(Protocol):
    """A part of a large message, where it is sent."""

    @property
    def size(self) -> int: ...

    def pieces(self, most: int) -> Iterator[Piece]:
        """Yield all bytes, at most so many at once.

        Raises:
            SourceLost: they are not there any more.
        """


class Sink(Protocol):
    """A part of a large message, where it is received."""

    def room(self, size: int) -> memoryview:
        """Return memory for the next bytes, at most so many."""

    def took(self, size: int) -> None:
        """Take note that so many bytes have come into the memory."""

    def result(self) -> object:
        """Return what the message has in this place."""

    def close(self) -> None:
        """Forget what came, as the rest does not come."""


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: Any, start: int = 0) -> None:
        self._view = memoryview(data).cast("B")[start:] if len(data) else memoryview(b"")
        self.size = len(self._view)

    def pieces(self, most: int) -> Iterator[Piece]:
        for start in range(0, self.size, most):
            yield self._view[start : start + most]


class MemorySink:
    """A part of a large message, received in memory."""

    def __init__(self, size: int, came: Callable[[int], object]) -> None:
        self._buffer, self._place, self._came = bytearray(size), 0, came

    def room(self, size: int) -> memoryview:
        return memoryview(self._buffer)[self._place : self._place + size]

    def took(self, size: int) -> None:
        self._place += size
        self._came(size)

    def result(self) -> bytearray:
        return self._buffer

    def close(self) -> None:
        pass


class Announced(NamedTuple):
    """A large message of which the parts are going to come."""

    kind: int
    number: int
    content: Any
    sizes: Sequence[int]  # of the parts (bytes)


Sinks = Callable[[Announced], Sequence[Sink]]


def in_memory(message: Announced, came: Callable[[int], object] = id) -> Sequence[Sink]:
    """Return sinks in the memory of this process; `came` is told of each number of bytes that has come."""
    return [MemorySink(size, came) for size in message.sizes]


class LargeMessage(NamedTuple):
    """A message to be sent in pieces."""

    kind: int
    number: int
    content: Any
    sources: Sequence[Source]
    sent: Callable[[int], object] = id  # is told of each number of bytes that has gone; by default nobody is


class Readable(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...
    def fileno(self) -> int: ...


class _Arriving:
    """A large message of which pieces come."""

    def __init__(self, message: Announced, sinks: Sequence[Sink]) -> None:
        self._message, self._sinks = message, sinks
        self._left = list(message.sizes)  # bytes still to come, for each part
        self._part = 0

    def expects(self) -> tuple[Sink, int]:
        """Return where the next bytes go, and how many more may go there."""
        while self._part < len(self._left) and not self._left[self._part]:
            self._part += 1
        if self._part == len(self._left):
            raise GarbledFrame("more came of a message than was announced")
        return self._sinks[self._part], self._left[self._part]

    def took(self, size: int) -> None:
        self._sinks[self._part].took(size)
        self._left[self._part] -= size

    def end(self, problem: str) -> Message:
        if problem:
            self.close()
        elif any(self._left):
            raise GarbledFrame("less came of a message than was announced")
        kind, number, content, _ = self._message
        return Message(kind, number, content, [sink.result() for sink in self._sinks], problem)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


class MessageReader:
    """The receiving end. `heard` is the time of the last byte."""

    def __init__(self, stream: Readable, sinks: Sinks = in_memory) -> None:
        self._stream, self.sinks = stream, sinks
        self._arriving: _Arriving | None = None
        self.heard = monotonic()

    def read(self) -> Message | None:
        """Return the next message that is complete; None at the end of the stream, in the middle of a message too.

        Raises:
            GarbledFrame: other bytes than messages have come.
        """
        message = self._next()
        if message is None:
            self.close()
        return message

    def _next(self) -> Message | None:
        while True:
            head = self._exactly(HEAD.size)
            if head is None:
                return None
            mark, size, kind, number, _, _ = HEAD.unpack(head)
            if mark != MARK or size < HEAD.size:
                raise GarbledFrame(f"something else has written to the stream: {bytes(head[:24])!r}")
            size -= HEAD.size
            if kind == PIECE:
                if not self._piece(size):
                    return None
                continue
            body = self._exactly(size)
            if body is None:
                return None
            content: Any
            content, buffers = pickle.loads(body) if body else (None, ())
            if kind == BEGIN:
                self._arriving = _Arriving(content, self.sinks(content))
            elif kind == END:
                return self._end(content)
            else:
                return Message(kind, number, content, list(map(bytearray, buffers)))

    def is_silent(self) -> bool:
        """Return True if the other side has said nothing for too long.

        Bytes that wait in the stream were said: this process was too busy to read them, or stopped.
        """
        return monotonic() - self.heard >= SILENCE and not is_readable(self._stream.fileno(), 0.0)

    def close(self) -> None:
        """Forget the half of a message."""
        if self._arriving is not None:
            self._arriving.close()
            self._arriving = None

    def _piece(self, size: int) -> bool:
        """Take in a piece; return False at the end of the stream."""
        arriving = self._arriving
        if arriving is None:
            raise GarbledFrame("a piece came of no message")
        while size:
            sink, left = arriving.expects()
            view = sink.room(min(size, left))
            if not self._fill(view):
                return False
            arriving.took(len(view))
            size -= len(view)
        return True

    def _end(self, problem: str) -> Message:
        arriving, self._arriving = self._arriving, None
        if arriving is None:
            raise GarbledFrame("a message ended that had not begun")
        return arriving.end(problem)

    def _exactly(self, size: int) -> bytearray | None:
        buffer = bytearray(size)
        return buffer if self._fill(memoryview(buffer)) else None

    def _fill(self, view: memoryview) -> bool:
        place = 0
        while place < len(view):
            got = self._stream.readinto(view[place : place + MOST])
            if not got:
                return False
            place += got
            self.heard = monotonic()
        return True


class MessageWriter:
    """The sending end: queues for any thread, and a thread that empties them.

    Queues written in C, because a finalizer, or a thread that is then interrupted, may put something there.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._small: queue.SimpleQueue[Callable[[], Iterator[Piece]] | None] = queue.SimpleQueue()
        self._large: queue.SimpleQueue[Callable[[], LargeMessage | None]] = queue.SimpleQueue()
        self._sending: Iterator[Sequence[Piece]] | None = None  # a large message
        self._closing = False
        self.broken = False

    def put(self, kind: int, number: int = 0, content: Any = None) -> None:
        """Send a small message; never waits."""
        self.put_later(partial(pieces, kind, number, content))

    def put_later(self, make: Callable[[], Iterator[Piece]]) -> None:
        """Send what `make` returns, which is called in the sending thread."""
        self._small.put(make)

    def put_large(self, make: Callable[[], LargeMessage | None]) -> None:
        """Send what `make` returns when all large messages before it have gone; it is called in the sending thread."""
        self._large.put(make)
        self._small.put(_none)  # to wake it

    def close(self) -> None:
        """Send what is in the queues, and then nothing more."""
        self._small.put(None)

    def give_up(self) -> None:
        """Send nothing more."""
        self.broken = True
        self._small.put(None)

    def run(self, still_there: Callable[[], bool]) -> None:
        """Send until the end. `still_there` is asked now and then; if it says no, this gives up."""
        try:
            while not self.broken and still_there():
                next_ones = self._next()
                if next_ones is None:
                    return
                for piece in next_ones:
                    self._write(piece, still_there)
                del next_ones  # the call's data need not stay until the next message
        except (OSError, LinkBroken):
            pass
        finally:
            self.broken = True
            self._sending = None

    def _next(self) -> Iterator[Piece] | Sequence[Piece] | None:
        """Return what goes next: a small message if there is one, or else a piece of a large one; None at the end."""
        busy = self._sending is not None or not self._large.empty()
        if self._closing and not busy:
            return None
        try:
            make = self._small.get_nowait() if busy or self._closing else self._small.get(timeout=BEAT)
        except queue.Empty:
            return self._next_piece() if busy else pieces(ALIVE)
        if make is None:
            self._closing = True
            return ()
        return make()

    def _next_piece(self) -> Sequence[Piece]:
        if self._sending is None:
            message = self._large.get_nowait()()
            self._sending = None if message is None else _frames(message)
        found = None if self._sending is None else next(self._sending, None)
        if found is None:
            self._sending = None
        return found or ()

    def _write(self, piece: Piece, still_there: Callable[[], bool]) -> None:
        view = memoryview(piece).cast("B") if len(piece) else memoryview(b"")
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while len(view):
            try:
                view = view[os.write(self._descriptor, view[:MOST]) :]
                continue
            except BlockingIOError:
                pass
            poll.poll(1000)
            if self.broken or not still_there():
                raise LinkBroken


def is_readable(descriptor: int, patience: float) -> bool:
    """Return True once there are bytes to read, or an end; False after so many seconds without."""
    poll = select.poll()  # as `select` takes no descriptor above 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, patience) * 1000))


def pieces(kind: int, number: int = 0, content: Any = None, buffers: Sequence[Any] = ()) -> Iterator[Piece]:
    """Yield the bytes of a small message."""
    held = [bytes(memoryview(buffer).cast("B")) if len(buffer) else b"" for buffer in buffers]
    yield encode(kind, number, 0, 0, b"" if content is None and not held else pickle.dumps((content, held), 5))


def _none() -> Iterator[Piece]:
    return iter(())


def _frames(message: LargeMessage) -> Iterator[Sequence[Piece]]:
    """Yield the frames of a large message, each as parts that follow one another."""
    kind, number, content, sources, _ = message
    announced = Announced(kind, number, content, [source.size for source in sources])
    yield (encode(BEGIN, 0, 0, 0, pickle.dumps((announced, ()), 5)),)
    problem = ""
    try:
        for source in sources:
            for piece in source.pieces(MOST):
                yield HEAD.pack(MARK, HEAD.size + len(piece), PIECE, 0, 0, 0), piece
                message.sent(len(piece))
    except (OSError, SourceLost) as error:
        problem = str(error)
    yield (encode(END, 0, 0, 0, pickle.dumps((problem, ()), 5)),)
