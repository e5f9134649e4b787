"""Messages between a driver and its gateway, over the standard input and output of `ssh`.

    driver -> gateway   OPEN       once: backend, settings, and the place of the cache
                        FUNCTION   a version of a function, under a number, before the first call that names it
                        CALL       a call, under a number; calls that it depends on are named by theirs
                        CONTENT    a large part of calls, asked for by WANT
                        CANCEL     cancel the call of this number
                        FORGET     numbers of calls with a result that no later call will name
                        FORGET_FUNCTIONS   numbers of functions that no later call will name
                        KILL       end all calls, by this signal where they run
                        LEAVE      this process ends; jobs go on
                        CLOSE      end, now that all calls have ended
                        ASK        the status of calls, and perhaps of the executor, at this moment
    gateway -> driver   OPENED     the description of the backend
                        REFUSED    the backend cannot be opened: the error
                        WANT       names of contents that are not there yet
                        NEWS       of calls: running or not, job, number of the run
                        RESULT, ERROR, CANCELLED   the end of a call
                        WARNING    a text for the user
                        ANSWER     to an ASK of the same number
                        ENDED      the last message
    both                ALIVE      nothing else to say for a while

A message is a frame (`transport/frames`), whose body is a pickle of plain values and the lengths of buffers; the
buffers follow in the stream, in pieces, and are read into the memory in which they stay.
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

__all__ = [
    "BEAT",
    "SILENCE",
    "Answer",
    "LinkBroken",
    "Message",
    "MessageReader",
    "MessageWriter",
    "Opening",
    "Question",
    "SentCall",
    "SentInput",
    "SentPickle",
    "SentResult",
    "is_readable",
    "pieces",
]

OPEN, FUNCTION, CALL, CONTENT, CANCEL, FORGET, FORGET_FUNCTIONS, KILL, LEAVE, CLOSE, ASK = range(71, 82)
OPENED, REFUSED, WANT, NEWS, RESULT, ERROR, CANCELLED, WARNING, ENDED = range(91, 100)
ALIVE, ANSWER = 100, 101

BEAT = 10.0  # s between two signs of life
SILENCE = 35.0  # s without any byte after which the other side counts as gone
_PIECE = 1 << 18  # bytes handed to the system at once

Piece = bytes | memoryview


class LinkBroken(Exception):
    """The error if the other side has gone, or is silent."""


class Message(NamedTuple):
    kind: int
    number: int
    content: Any
    buffers: list[bytearray]


class SentPickle(NamedTuple):
    """A pickle, or b"" if that is the first of its large contents, and the names of these."""

    data: bytes
    contents: tuple[str, ...]


class SentInput(NamedTuple):
    """An input of a call: the result of another call, or a part of that; or else a value."""

    number: int  # of the other call; 0 for a value
    path: Sequence[tuple[Any, int | None]] = ()  # to the part: each key, and the length of the whole
    value: SentPickle | None = None


class SentCall(NamedTuple):
    """A call on its way: the pickle of the arguments; or of function and arguments, or one of each."""

    name: str  # of the function
    resources: Any
    named: Any  # a `CallName`, None for a call without a cache
    function: int  # the number of the function; 0 for one among the pickles
    pickles: Sequence[SentPickle]
    inputs: Sequence[SentInput]
    packages: Sequence[tuple[str, str]]  # names and versions of those that no call before has used


class SentResult(NamedTuple):
    """The result of a call; the buffers of the message are its memories."""

    data: bytes | None
    spans: Sequence[tuple[int, int, int]]
    token: bytes | None
    job_id: str | None
    attempts: int


class Question(NamedTuple):
    """A question about this moment."""

    calls: Sequence[int]  # numbers of calls
    whole: bool  # about all calls together, too


class Answer(NamedTuple):
    """The answer: for each call its `CallStatus` as a tuple, None for an unknown one; and what waits for what."""

    calls: Sequence[tuple[Any, ...] | None]
    waiting: dict[str, int]  # the numbers of waiting calls, by reason
    capacity: dict[str, int]
    used: dict[str, int]


class Opening(NamedTuple):
    """What a gateway is told first."""

    backend: bytes  # the pickle of backend and settings
    run: str  # the name of the driver's executor, for a directory that later gateways find
    remembers: bool  # calls have keys by their meaning, and their results stay
    mode: str  # of the cache
    failures: bool


class Readable(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...
    def fileno(self) -> int: ...


class MessageReader:
    """The receiving end. `heard` is the time of the last byte."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.heard = monotonic()

    def read(self) -> Message | None:
        """Return the next message; None at the end of the stream, in the middle of a message too.

        Raises:
            GarbledFrame: other bytes than messages have come.
        """
        head = self._exactly(HEAD.size)
        if head is None:
            return None
        mark, size, kind, number, _, _ = HEAD.unpack(head)
        if mark != MARK or size < HEAD.size:
            raise GarbledFrame(f"something else has written to the stream: {bytes(head[:24])!r}")
        body = self._exactly(size - HEAD.size)
        if body is None:
            return None
        content, lengths = pickle.loads(body) if body else (None, ())
        buffers = []
        for length in lengths:
            buffer = self._exactly(length)
            if buffer is None:
                return None
            buffers.append(buffer)
        return Message(kind, number, content, buffers)

    def is_silent(self) -> bool:
        """Return True if the other side has said nothing for too long.

        Bytes that wait in the stream were said: this process was too busy to read them, or stopped.
        """
        return monotonic() - self.heard >= SILENCE and not is_readable(self._stream.fileno(), 0.0)

    def _exactly(self, size: int) -> bytearray | None:
        buffer = bytearray(size)
        view, place = memoryview(buffer), 0
        while place < size:
            got = self._stream.readinto(view[place : place + _PIECE])
            if not got:
                return None
            place += got
            self.heard = monotonic()
        return buffer


class MessageWriter:
    """The sending end: a queue for any thread, and a thread that empties the queue.

    Buffers are handed over in pieces from the memory in which they are.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        # A queue written in C, because a finalizer, or a thread that is then interrupted, may put something there.
        self._queue: queue.SimpleQueue[Callable[[], Iterator[Piece]] | None] = queue.SimpleQueue()
        self.broken = False

    def put(self, kind: int, number: int = 0, content: Any = None, buffers: Sequence[Any] = ()) -> None:
        """Send a message; never waits. The buffers must not change any more."""
        self.put_later(partial(pieces, kind, number, content, buffers))

    def put_later(self, make: Callable[[], Iterator[Piece]]) -> None:
        """Send what `make` returns, which is called in the sending thread."""
        self._queue.put(make)

    def close(self) -> None:
        """Send what is in the queue, and then nothing more."""
        self._queue.put(None)

    def give_up(self) -> None:
        """Send nothing more."""
        self.broken = True
        self._queue.put(None)

    def run(self, still_there: Callable[[], bool]) -> None:
        """Send until the end. `still_there` is asked now and then; if it says no, this gives up."""
        try:
            while not self.broken and still_there():
                try:
                    make = self._queue.get(timeout=BEAT)
                except queue.Empty:
                    make = partial(pieces, ALIVE)
                if make is None:
                    return
                for piece in make():
                    self._write(piece, still_there)
                del make  # the call's data need not stay until the next message
        except (OSError, LinkBroken):
            pass
        finally:
            self.broken = True

    def _write(self, piece: Piece, still_there: Callable[[], bool]) -> None:
        view = memoryview(piece).cast("B") if len(piece) else memoryview(b"")
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while len(view):
            try:
                view = view[os.write(self._descriptor, view[:_PIECE]) :]
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
    """Yield the bytes of a message."""
    views = [memoryview(buffer).cast("B") if len(buffer) else memoryview(b"") for buffer in buffers]
    body = b"" if content is None and not views else pickle.dumps((content, [len(view) for view in views]), 5)
    yield encode(kind, number, 0, 0, body)
    yield from views
