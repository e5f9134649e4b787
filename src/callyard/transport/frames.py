"""The frames of a stream between two processes, descriptors beside them, and who sends which.

    driver -> worker    HELLO  once: what the worker needs to know before its first call
                        PATH   the driver's import path, and the key of its multiprocessing managers
                        DEFINE a function, under a number
                        FORGET numbers of functions that are gone
                        CALL   run it
                        FREE   segments of the worker's that are no longer in use here
                        FETCH  say what is in these segments: their descriptors were lost on their way
                        CONTENT   a piece of what is in a segment, asked for by FETCH; after the last it is free
    worker -> driver    RANK   once, if it is one of several: which, of how many, by which MPI library
                        READY  after the initializer
                        RESULT, ERROR   of one call
                        FREE, FETCH, CONTENT   likewise

A frame is a head of fixed size and a body. Each head begins with a mark: what anybody else has written to the stream
is seen at once, and not taken for the length of something to wait for. A body that is not plain bytes has `PACKED`
among its flags: then it is a `Packed` with its descriptors beside the frame, or what `encode_*` below says.
"""

from __future__ import annotations

import array
import errno
import os
import pickle
import socket
from collections import deque
from collections.abc import Iterator
from struct import Struct
from typing import Any

HELLO, PATH, DEFINE, FORGET, CALL, FREE, RANK, READY, RESULT, ERROR, FETCH, CONTENT = range(1, 13)

# Flags of a frame
PACKED = 1  # the body is a pickled tuple that describes what is beside the frame
NO_MPI = 2  # the process has never imported mpi4py
STRAY = 4  # the call left a message that nobody received
NOTED = 8  # before the body, with its length, stands a pickled note of what was remembered

ORDER = "order"  # the option of a call that is to be remembered

# mark, size of the whole frame, kind, sequence number, a number (function, microseconds, segment), flags
HEAD = Struct("<HIBIIB")
MARK = 0xA55E
LARGEST = 0xFFFFFFFF  # bytes of a frame, as the head can say
_LENGTH = Struct("<I")
MOST_DESCRIPTORS = 250  # Linux takes 253 in one message


Frame = tuple[int, int, int, int, bytes]  # kind, sequence number, number, flags, body; plain, for they are many


class GarbledFrame(Exception):
    """What has arrived is not what the other side says."""


class FrameTooLarge(Exception):
    """There is no way to send this much."""


def encode(kind: int, sequence: int = 0, number: int = 0, flags: int = 0, body: bytes = b"") -> bytes:
    """Raises TooLarge if no frame can be as large."""
    size = HEAD.size + len(body)
    if size > LARGEST:
        raise FrameTooLarge(
            f"{size / (1 << 30):.1f} GiB cannot be sent at once, and there is no more shared memory, in which large "
            "buffers travel otherwise; let more files be open (ulimit -n), or keep fewer results"
        )
    return HEAD.pack(MARK, size, kind, sequence, number, flags) + body


class FrameReader:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self.buffer = bytearray(1 << 17)  # kept: memory fresh from the system costs more than what comes in
        self._rest = bytearray()  # of a frame that is not complete: it grows without being copied each time
        self._needed = 0  # bytes of it from which it is worth looking again
        # The descriptors of each message that had some, in the order of the frames that own them; whether all came.
        self._beside: deque[tuple[list[int], bool]] = deque()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are whole now. Raises GarbledFrame where something else has come."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data, self._rest = bytes(self._rest), bytearray()
        place, end, head = 0, len(data), HEAD.size
        unpack = HEAD.unpack_from
        self._needed = head
        while end - place >= head:
            mark, size, kind, sequence, number, flags = unpack(data, place)
            if mark != MARK or size < head:
                raise GarbledFrame(f"something else has written to the stream: {data[place : place + 24]!r}")
            if end - place < size:
                self._needed = size
                break
            body = data[place + head : place + size]
            place += size
            yield kind, sequence, number, flags, body
        self._rest += data[place:]

    def arrived(self, descriptors: list[int], all_of_them: bool) -> None:
        """What came beside one message."""
        self._beside.append((descriptors, all_of_them))

    def take(self, count: int) -> list[int] | None:
        """Return the descriptors of a frame that has so many; None if some were lost, at the limit of this process."""
        taken: list[int] = []
        complete = True
        for _ in range(-(-count // MOST_DESCRIPTORS)):
            if not self._beside:
                raise GarbledFrame("descriptors that should have come with a frame are not there")
            descriptors, all_of_them = self._beside.popleft()
            taken += descriptors
            complete &= all_of_them
        if complete:
            return taken
        for descriptor in taken:
            os.close(descriptor)
        return None

    def close(self) -> None:
        """Close the descriptors of which no frame has spoken."""
        while self._beside:
            for descriptor in self._beside.popleft()[0]:
                os.close(descriptor)


def send_with_descriptors(sock: socket.socket, data: bytes | memoryview, descriptors: list[int]) -> int:
    """Send some of `data`, and all `descriptors` with its first byte; how many bytes were sent."""
    if not descriptors:
        return sock.send(data)
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    return sock.sendmsg([data], beside)


# What the system says where it lacks memory, or where too many descriptors are on their way: it may be otherwise soon.
SCARCE = frozenset((errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS))

_BESIDE = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
_NOT_INHERITED = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # what arrives is not for programs that a call starts


def receive(sock: socket.socket, reader: FrameReader, flags: int = 0) -> bytes:
    """Return some bytes of the stream, b"" at its end; descriptors that came with them go to the reader."""
    size, beside, happened, _ = sock.recvmsg_into((reader.buffer,), _BESIDE, flags | _NOT_INHERITED)
    if beside or happened & socket.MSG_CTRUNC:
        reader.arrived(_descriptors(beside), not happened & socket.MSG_CTRUNC)
    return bytes(memoryview(reader.buffer)[:size])


def _descriptors(beside: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, content in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return fds.tolist()


def encode_object(kind: int, value: Any, sequence: int = 0) -> bytes:
    """Return a frame whose body is a pickle of the standard library's own types."""
    return encode(kind, sequence, 0, PACKED, pickle.dumps(value, 5))


def encode_note(note: bytes) -> bytes:
    """Return a note as it stands before the body of a frame that is `NOTED`."""
    return _LENGTH.pack(len(note)) + note


def split_note(body: bytes) -> tuple[bytes, bytes]:
    """Return the note and the rest of such a body."""
    (length,) = _LENGTH.unpack_from(body)
    return body[_LENGTH.size : _LENGTH.size + length], body[_LENGTH.size + length :]


def encode_numbers(kind: int, numbers: deque[int]) -> bytes:
    """Return a frame with all the numbers, which are taken out. Finalizers may add more meanwhile."""
    return encode_object(kind, [numbers.popleft() for _ in range(len(numbers))])
