"""One end of a stream of frames that never blocks: what the kernel does not take now waits here."""

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
    """A socket, what waits to be sent, and what arrived in part. Sending wants the caller's lock.

    `on_blocked` is called when something has to wait, or nothing can be sent any more: then somebody must look at
    `broken` and `stuck`, and call `flush` once the socket takes more, or, if it is stuck, after a while.
    """

    def __init__(self, sock: socket.socket, on_blocked: Callable[[FrameStream], object]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._on_blocked = on_blocked
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()
        self.reader = FrameReader()
        self.empty = False  # whether nothing was there when it was last looked at
        self.stuck = False  # the system lacks the memory or descriptors to send, whether or not the socket takes more
        self.broken = ""  # why nothing can be sent any more, although the other end may be there

    def send(self, data: bytes, descriptors: list[int]) -> None:
        """Send, or remember to. Descriptors must stay open until the other side has them."""
        while len(descriptors) > MOST_DESCRIPTORS:  # one message takes no more; they arrive before the frame is whole
            self._send(data[:1], descriptors[:MOST_DESCRIPTORS])
            data, descriptors = data[1:], descriptors[MOST_DESCRIPTORS:]
        self._send(data, descriptors)

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        if self._waiting:
            self._waiting.append((memoryview(data), descriptors))
            return
        sent = self._try(data, descriptors)
        if sent < len(data):
            self._waiting.append((memoryview(data)[sent:], [] if sent else descriptors))
            self._on_blocked(self)
        elif self.broken:
            self._on_blocked(self)

    def flush(self) -> bool:
        """Send what waits; whether that was all."""
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
        self.stuck = False
        try:
            return send_with_descriptors(self.sock, data, descriptors)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno in SCARCE:
                self.stuck = True
                return 0
            if error.errno not in _GONE:  # of those who have gone whoever reads here will see it
                self.broken = str(error)  # in words: the error would keep alive what this sends
            return len(data)

    def receive(self) -> Iterator[Frame] | None:
        """Return the frames that are there; None when the other end has gone."""
        try:
            data = frames.receive(self.sock, self.reader)
        except (BlockingIOError, InterruptedError):
            self.empty = True
            return iter(())
        except OSError as error:
            if error.errno not in SCARCE:
                return None
            self.empty = True  # for now
            return iter(())
        return self.reader.feed(data) if data else None

    def close(self) -> None:
        self._waiting.clear()
        self.reader.close()
        with contextlib.suppress(OSError):
            self.sock.close()
