"""Blocked streams: the I/O thread sends later the bytes that the kernel does not take at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..transport.event_loop import EventLoop
from ..transport.stream import FrameStream

if TYPE_CHECKING:
    from ..utils.locks import OwnedLock


class BlockedStreams:
    """The streams to workers and to the zygote with bytes that could not be sent at once.

    Any thread that holds the lock may call `add`. All else belongs to the I/O thread, and must be called without the
    lock: `on_broken` may end a worker, and thereby the futures of its calls, and their callbacks run user code.
    """

    def __init__(
        self,
        lock: OwnedLock,
        loop: EventLoop,
        wake: Callable[[], object],
        on_broken: Callable[[FrameStream], object],
    ) -> None:
        self._lock, self._loop, self._wake, self._on_broken = lock, loop, wake, on_broken
        self._blocked: list[FrameStream] = []  # added, not attended to yet; guarded by the lock
        self.stuck: list[FrameStream] = []  # the system lacks memory or descriptors to send; see FrameStream

    def add(self, stream: FrameStream) -> None:
        self._blocked.append(stream)
        # Only noted here: the caller has the lock, but the selector belongs to the I/O thread.
        self._wake()

    def take(self) -> list[FrameStream]:
        """Return the streams added since the last call. The caller holds the lock."""
        blocked, self._blocked = self._blocked, []
        return blocked

    def attend(self, stream: FrameStream) -> None:
        """Arrange for the waiting bytes to be sent later; end the other side if the stream is broken."""
        if stream.broken:
            self._on_broken(stream)
        elif stream.stuck or not self._loop.also_write(stream.sock, True):
            self.stuck.append(stream)

    def flush(self, stream: FrameStream) -> None:
        """Send the waiting bytes, because the socket takes more."""
        with self._lock:
            done = stream.flush()
        # Without the lock from here on: `attend` may end a worker, and callbacks run.
        if done or stream.stuck:
            self._loop.also_write(stream.sock, False)
        if stream.stuck or stream.broken:
            self.attend(stream)

    def retry(self) -> None:
        """Try again where the system lacked memory or descriptors: no socket tells when these are there."""
        stuck, self.stuck = self.stuck, []
        for stream in stuck:
            with self._lock:
                done = stream.flush()
            if not done or stream.broken:
                self.attend(stream)
