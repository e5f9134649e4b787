"""The zygote's end of the stream to the driver."""

from __future__ import annotations

import pickle
import selectors
import socket
from collections.abc import Callable, Iterator
from typing import Any

from ..transport import frames

__all__ = ["READ", "WRITE", "DriverStream"]

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class DriverStream:
    """The socket to the driver, which never blocks: the driver may be stopped, and limits are kept meanwhile."""

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector, ready: Callable[[int], None]) -> None:
        """`ready`: called with a mask of the selector when the socket can be read or written."""
        sock.setblocking(False)
        self._sock, self._selector, self._ready = sock, selector, ready
        self._reader = frames.FrameReader()
        self._unsent = b""
        self._heard = 0  # frames of the driver's that were dealt with
        selector.register(sock, READ, ready)

    def receive(self) -> Iterator[tuple[int, tuple[Any, ...]]] | None:
        """Return the kind and content of each frame that has come; None once the driver is gone."""
        try:
            data = frames.receive(self._sock, self._reader)
        except (BlockingIOError, InterruptedError):
            return iter(())
        except OSError as error:
            if error.errno in frames.SCARCE:  # it can be read later
                return iter(())
            return None
        return self._frames(data) if data else None

    def _frames(self, data: bytes) -> Iterator[tuple[int, tuple[Any, ...]]]:
        for kind, _, _, _, body in self._reader.feed(data):
            self._heard += 1
            yield kind, pickle.loads(body)

    def take_descriptors(self, count: int) -> list[int] | None:
        """Return the `count` descriptors of a frame; None if some were lost, at this process's limit of open files."""
        return self._reader.take(count)

    def say(self, kind: int, *content: Any) -> None:
        """Tell the driver, now or when it listens again."""
        self._unsent += frames.encode_object(kind, content, self._heard)
        self.flush()

    def flush(self) -> None:
        """Send as much as the driver takes now; the selector tells when it takes more."""
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            if error.errno not in frames.SCARCE:  # the driver has gone, as the selector is going to tell
                self._unsent = b""
        wanted = READ | WRITE if self._unsent else READ
        if self._selector.get_key(self._sock).events != wanted:
            self._selector.modify(self._sock, wanted, self._ready)

    def close(self) -> None:
        """Close the socket, in the fork that becomes a worker."""
        self._sock.close()
