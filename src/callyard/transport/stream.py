"""One end of a stream of frames that never blocks: bytes that the kernel refuses now wait here."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import deque
from collections.abc import Callable, Iterator

from . import frames
from .frames import MOST_DESCRIPTORS, SCARCE, Frame, FrameReader, send_with_descriptors

_GONE = frozenset((errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN))


class FrameStream:
    """A socket, the bytes that wait to be sent, and the part of a frame that has arrived.

    Senders hold the caller's lock.

    `on_blocked` is called when bytes have to wait, or when no more can be sent. The receiver of this call then looks at
    `broken` and `stuck`, and calls `flush` once the socket takes more bytes or, if the stream is stuck, after a while.
    """

    def __init__(self, sock: socket.socket, on_blocked: Callable[[FrameStream], object]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._on_blocked = on_blocked
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()
        self.reader = FrameReader()
        self.empty = False  # True if the last look found nothing to read
        self.stuck = False  # the system lacks the memory or descriptors to send, even if the socket is ready
        self.broken = ""  # the reason why no more can be sent, although the other end may be there

    def send(self, data: bytes, descriptors: list[int]) -> None:
        """Send now, or when the socket takes more. The descriptors must stay open until the other side has them."""
        while len(descriptors) > MOST_DESCRIPTORS:  # the limit of one message; these arrive before the whole frame
            self._send(data[:1], descriptors[:MOST_DESCRIPTORS])
            data, descriptors = data[1:], descriptors[MOST_DESCRIPTORS:]
        self._send(data, descriptors)

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        # Behind waiting bytes, to keep the order of the stream.
        if self._waiting:
            self._waiting.append((memoryview(data), descriptors))
            return
        sent = self._try(data, descriptors)
        # The descriptors have gone with the first byte, if any was sent.
        if sent < len(data):
            self._waiting.append((memoryview(data)[sent:], [] if sent else descriptors))
            self._on_blocked(self)
        elif self.broken:
            self._on_blocked(self)

    def flush(self) -> bool:
        """Send the waiting bytes; return True if none are left."""
        while self._waiting:
            data, descriptors = self._waiting[0]
            sent = self._try(data, descriptors)
            if not sent:
                return False
            self._waiting[0] = (data[sent:], [])
            if sent == len(data):
                self._waiting.popleft()
        return True

    def _try(self, data: bytes | memoryview, descriptors: list[int]) -> int:
        """Send some bytes, and return their number; after an error without a remedy, the number of all bytes."""
        self.stuck = False
        try:
            return send_with_descriptors(self.sock, data, descriptors)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno in SCARCE:
                self.stuck = True
                return 0
            if error.errno not in _GONE:  # a reader notices by itself that the other end has gone
                self.broken = str(error)  # in words: the error's traceback would keep `data` alive
            return len(data)

    def receive(self) -> Iterator[Frame] | None:
        """Return the arrived frames; None if the other end has gone."""
        try:
            data = frames.receive(self.sock, self.reader)
        except (BlockingIOError, InterruptedError):
            self.empty = True
            return iter(())
        except OSError as error:
            if error.errno not in SCARCE:
                return None
            self.empty = True  # for now: the system may have memory again later
            return iter(())
        return self.reader.feed(data) if data else None

    def close(self) -> None:
        self._waiting.clear()
        self.reader.close()
        with contextlib.suppress(OSError):
            self.sock.close()
