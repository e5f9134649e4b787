"""The frames of a stream between two processes, and the descriptors beside them.

    driver -> worker    HELLO  once: the settings of the worker, before its first call
                        PATH   the driver's import path, and the key of its multiprocessing managers
                        DEFINE a function, under a number
                        FORGET numbers of dropped functions
                        CALL   run this call
                        FREE   segments of the worker that are no longer in use here
                        FETCH  send the content of these segments: their descriptors were lost on their way
                        CONTENT   a piece of a segment, asked for by FETCH; after the last piece the segment is free
    worker -> driver    RANK   once, from each rank of an MPI call: its number, the number of ranks, the MPI library
                        READY  after the initializer, with the process id
                        RESULT, ERROR   of one call
                        FREE, FETCH, CONTENT   likewise

A frame is a head of fixed size and a body. Each head begins with a mark. So foreign output in the stream is noticed at
once, and its bytes are not taken for a length to wait for. A body that is not plain bytes has `PACKED` among its flags,
and is a `Packed` with its descriptors beside the frame, or the output of one of the `encode_*` functions below.
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
PACKED = 1  # the body is a pickled tuple that describes the descriptors beside the frame
NO_MPI = 2  # the process has never imported mpi4py
STRAY = 4  # the call left a message that no rank received
NOTED = 8  # before the body, with its length, stands a pickled note: about the cached result, or of what was used
MEASURED = 16  # what the call uses is to be measured

ORDER = "order"  # the option of a call whose result goes into the cache

# mark, size of the whole frame, kind, sequence number, a number (function, microseconds, segment), flags
HEAD = Struct("<HIBIIB")
MARK = 0xA55E
LARGEST = 0xFFFFFFFF  # bytes of a frame, the most that the head can say
_LENGTH = Struct("<I")
MOST_DESCRIPTORS = 250  # Linux takes 253 in one message


Frame = tuple[int, int, int, int, bytes]  # kind, sequence number, number, flags, body; a tuple, because frames are many


class GarbledFrame(Exception):
    """The error if the arrived bytes are no frame of the other side."""


class FrameTooLarge(Exception):
    """The error if no frame can hold so many bytes."""


def encode(kind: int, sequence: int = 0, number: int = 0, flags: int = 0, body: bytes = b"") -> bytes:
    """Return a frame.

    Raises:
        FrameTooLarge: the body is larger than any frame.
    """
    size = HEAD.size + len(body)
    if size > LARGEST:
        raise FrameTooLarge(
            f"{size / (1 << 30):.1f} GiB cannot be sent at once, and there is no more shared memory, in which large "
            "buffers travel otherwise; let more files be open (ulimit -n), or keep fewer results"
        )
    return HEAD.pack(MARK, size, kind, sequence, number, flags) + body


class FrameReader:
    """The receiving end of a stream, which cuts the bytes into frames."""

    def __init__(self) -> None:
        self.buffer = bytearray(1 << 17)  # kept: fresh memory from the system costs more than the bytes that arrive
        self._rest = bytearray()  # of an incomplete frame: it grows without being copied each time
        self._needed = 0  # bytes of the rest from which another look is worth the time
        # The descriptors of each message with some, in the order of the frames with these descriptors; True if all
        # arrived.
        self._beside: deque[tuple[list[int], bool]] = deque()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now.

        Raises:
            GarbledFrame: other bytes than frames have come.
        """
        if self._rest:
            self._rest += data
            # Not parsed again for each piece: a large frame arrives in thousands of pieces.
            if len(self._rest) < self._needed:
                return
            data, self._rest = bytes(self._rest), bytearray()
        place, end, head = 0, len(data), HEAD.size
        unpack = HEAD.unpack_from
        self._needed = head
        while end - place >= head:
            mark, size, kind, sequence, number, flags = unpack(data, place)
            # A size below the head's would never advance.
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
        """Note the descriptors that came beside one message."""
        self._beside.append((descriptors, all_of_them))

    def take(self, count: int) -> list[int] | None:
        """Return the `count` descriptors of a frame; None if some were lost, at this process's limit of open files."""
        taken: list[int] = []
        complete = True
        # One entry for each message of a frame that the sender has cut because of the limit.
        for _ in range(-(-count // MOST_DESCRIPTORS)):
            if not self._beside:
                raise GarbledFrame("descriptors that should have come with a frame are not there")
            descriptors, all_of_them = self._beside.popleft()
            taken += descriptors
            complete &= all_of_them
        if complete:
            return taken
        # Without the lost ones the others are of no use.
        for descriptor in taken:
            os.close(descriptor)
        return None

    def close(self) -> None:
        """Close the descriptors that belong to no received frame."""
        while self._beside:
            for descriptor in self._beside.popleft()[0]:
                os.close(descriptor)


def send_with_descriptors(sock: socket.socket, data: bytes | memoryview, descriptors: list[int]) -> int:
    """Send some of `data`, and all `descriptors` with its first byte; return the number of bytes sent."""
    if not descriptors:
        return sock.send(data)
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    return sock.sendmsg([data], beside)


# Errors of a system short of memory, or with too many descriptors on their way; a later attempt may succeed.
SCARCE = frozenset((errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS))

_BESIDE = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
_NOT_INHERITED = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # programs started by a call must not inherit these descriptors


def receive(sock: socket.socket, reader: FrameReader, flags: int = 0) -> bytes:
    """Return some bytes of the stream, b"" at the end; give the descriptors beside the bytes to the reader."""
    size, beside, happened, _ = sock.recvmsg_into((reader.buffer,), _BESIDE, flags | _NOT_INHERITED)
    # Truncated: at the limit of open files the kernel has dropped some, or all.
    if beside or happened & socket.MSG_CTRUNC:
        reader.arrived(_descriptors(beside), not happened & socket.MSG_CTRUNC)
    return bytes(memoryview(reader.buffer)[:size])


def _descriptors(beside: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, content in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            # A truncated message may end in the middle of a number.
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return fds.tolist()


def encode_object(kind: int, value: Any, sequence: int = 0) -> bytes:
    """Return a frame whose body is a pickle of the standard library's own types."""
    return encode(kind, sequence, 0, PACKED, pickle.dumps(value, 5))


def encode_note(note: bytes) -> bytes:
    """Return a note in the form before the body of a `NOTED` frame."""
    return _LENGTH.pack(len(note)) + note


def split_note(body: bytes) -> tuple[bytes, bytes]:
    """Return the note and the rest of a body with a note."""
    (length,) = _LENGTH.unpack_from(body)
    return body[_LENGTH.size : _LENGTH.size + length], body[_LENGTH.size + length :]


def encode_numbers(kind: int, numbers: deque[int]) -> bytes:
    """Return a frame with all the numbers, and remove them from the queue. Finalizers may add more meanwhile."""
    return encode_object(kind, [numbers.popleft() for _ in range(len(numbers))])
