"""The frames of a stream between two processes, descriptors beside them, and who sends which.

    driver -> worker    HELLO  once: what the worker needs to know before its first call
                        PATH   the driver's import path, and the key of its multiprocessing managers
                        DEFINE a function, under a number
                        FORGET numbers of functions that are gone
                        CALL   run it
                        FREE   segments of the worker's that are no longer in use here
    worker -> driver    RANK   once, if it is one of several: which, of how many, by which MPI library
                        READY  after the initializer
                        RESULT, ERROR   of one call
                        FREE   likewise

A frame is a head of fixed size and a body. A body that is not plain bytes has `PACKED` among its flags: then
it is a `Packed` with its descriptors beside the frame, or what `encode_*` below says.
"""

from __future__ import annotations

import array
import errno
import pickle
import socket
from collections import deque
from collections.abc import Iterator
from struct import Struct
from typing import Any

HELLO, PATH, DEFINE, FORGET, CALL, FREE, RANK, READY, RESULT, ERROR = range(1, 11)

# Flags of a frame
PACKED = 1  # the body is a pickled tuple that describes what is beside the frame
NO_MPI = 2  # the process has never imported mpi4py
STRAY = 4  # the call left a message that nobody received
NOTED = 8  # before the body, with its length, stands a pickled note of what was remembered

ORDER = "order"  # the option of a call that is to be remembered

# size of the whole frame, kind, sequence number, a number (function, microseconds), flags
HEAD = Struct("<IBIIB")
_LENGTH = Struct("<I")
MOST_DESCRIPTORS = 250  # Linux takes 253 in one message


Frame = tuple[int, int, int, int, bytes]  # kind, sequence number, number, flags, body; plain, for they are many


def encode(kind: int, sequence: int = 0, number: int = 0, flags: int = 0, body: bytes = b"") -> bytes:
    return HEAD.pack(HEAD.size + len(body), kind, sequence, number, flags) + body


class FrameReader:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self.buffer = bytearray(1 << 17)  # kept: memory fresh from the system costs more than what comes in
        self._rest = bytearray()  # of a frame that is not complete: it grows without being copied each time
        self._needed = 0  # bytes of it from which it is worth looking again
        self.descriptors: deque[int] = deque()  # those that arrived, in the order of the frames that own them

    def feed(self, data: bytes) -> Iterator[Frame]:
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data, self._rest = bytes(self._rest), bytearray()
        place, end, head = 0, len(data), HEAD.size
        unpack = HEAD.unpack_from
        self._needed = head
        while end - place >= head:
            size, kind, sequence, number, flags = unpack(data, place)
            if end - place < size:
                self._needed = size
                break
            body = data[place + head : place + size]
            place += size
            yield kind, sequence, number, flags, body
        self._rest += data[place:]


def send_with_descriptors(sock: socket.socket, data: bytes | memoryview, descriptors: list[int]) -> int:
    """Send some of `data`, and all `descriptors` with its first byte; how many bytes were sent."""
    if not descriptors:
        return sock.send(data)
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    return sock.sendmsg([data], beside)


_BESIDE = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
_NOT_INHERITED = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # what arrives is not for programs that a call starts


def receive(sock: socket.socket, reader: FrameReader, flags: int = 0) -> bytes:
    """Some bytes of the stream; descriptors that came with them go to the reader. b"" at its end."""
    size, beside, happened, _ = sock.recvmsg_into((reader.buffer,), _BESIDE, flags | _NOT_INHERITED)
    if happened & socket.MSG_CTRUNC:
        raise OSError(errno.EMFILE, "descriptors that arrived were lost, because this process may have no more")
    for level, kind, content in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
            reader.descriptors.extend(fds)
    return bytes(memoryview(reader.buffer)[:size])


def encode_object(kind: int, value: Any, sequence: int = 0) -> bytes:
    """A frame whose body is a pickle of the standard library's own types."""
    return encode(kind, sequence, 0, PACKED, pickle.dumps(value, 5))


def encode_note(note: bytes) -> bytes:
    """A note as it stands before the body of a frame that is `NOTED`."""
    return _LENGTH.pack(len(note)) + note


def split_note(body: bytes) -> tuple[bytes, bytes]:
    """The note and the rest of such a body."""
    (length,) = _LENGTH.unpack_from(body)
    return body[_LENGTH.size : _LENGTH.size + length], body[_LENGTH.size + length :]


def encode_numbers(kind: int, numbers: deque[int]) -> bytes:
    """A frame with all the numbers, which are taken out. Finalizers may add more meanwhile."""
    return encode_object(kind, [numbers.popleft() for _ in range(len(numbers))])
