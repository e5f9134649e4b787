"""One end of a stream of frames that never blocks: what the kernel does not take now waits here."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator

from ..wire import frames
from ..wire.frames import MOST_DESCRIPTORS, Frame, FrameReader, send_with_descriptors


class Stream:
    """A socket, what waits to be sent, and what arrived in part. Sending wants the caller's lock.

    `on_blocked` is called when something has to wait: then somebody must call `flush` once the socket takes more.
    """

    def __init__(self, sock: socket.socket, on_blocked: Callable[[Stream], object]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._on_blocked = on_blocked
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()
        self.reader = FrameReader()
        self.empty = False  # whether nothing was there when it was last looked at

    def send(self, data: bytes, descriptors: list[int]) -> None:
        """Send, or remember to. Descriptors are duplicated if they have to wait."""
        while len(descriptors) > MOST_DESCRIPTORS:  # one message takes no more; they arrive before the frame is whole
            self._send(data[:1], descriptors[:MOST_DESCRIPTORS])
            data, descriptors = data[1:], descriptors[MOST_DESCRIPTORS:]
        self._send(data, descriptors)

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        if not self._waiting:
            sent = self._try(data, descriptors)
            if sent == len(data):
                return
            if sent:
                descriptors = []
            data = data[sent:]
            self._on_blocked(self)
        self._waiting.append((memoryview(data), [os.dup(fd) for fd in descriptors]))

    def flush(self) -> bool:
        """Send what waits; whether that was all."""
        while self._waiting:
            data, descriptors = self._waiting[0]
            sent = self._try(data, descriptors)
            if not sent:
                return False
            for fd in descriptors:
                os.close(fd)
            self._waiting[0] = (data[sent:], [])
            if sent == len(data):
                self._waiting.popleft()
        return True

    def _try(self, data: bytes | memoryview, descriptors: list[int]) -> int:
        try:
            return send_with_descriptors(self.sock, data, descriptors)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:  # so many are on their way that some must arrive first
                return 0
            return len(data)  # the other end has gone; whoever reads here will see it

    def receive(self) -> Iterator[Frame] | None:
        """The frames that are there; None when the other end has gone."""
        try:
            data = frames.receive(self.sock, self.reader)
        except (BlockingIOError, InterruptedError):
            self.empty = True
            return iter(())
        except OSError:
            return None
        return self.reader.feed(data) if data else None

    def close(self) -> None:
        for _, descriptors in self._waiting:
            for fd in descriptors:
                os.close(fd)
        self._waiting.clear()
        while self.reader.descriptors:
            os.close(self.reader.descriptors.popleft())
        with contextlib.suppress(OSError):
            self.sock.close()
