"""Streams that are blocked: what the kernel does not take at once is sent later, by the I/O thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..transport.event_loop import EventLoop
from ..transport.stream import FrameStream

if TYPE_CHECKING:
    from ..utils.locks import OwnedLock


class BlockedStreams:
    """The streams to workers and to the zygote to which something could not be sent at once.

    `add` may be called by any thread that holds the lock. All else belongs to the I/O thread, which does not hold it:
    `on_broken` may end a worker, and with that the futures of its calls.
    """

    def __init__(
        self,
        lock: OwnedLock,
        loop: EventLoop,
        wake: Callable[[], object],
        on_broken: Callable[[FrameStream], object],
    ) -> None:
        self._lock, self._loop, self._wake, self._on_broken = lock, loop, wake, on_broken
        self._blocked: list[FrameStream] = []  # not attended to yet
        self.stuck: list[FrameStream] = []  # the system lacks memory or descriptors to send: see FrameStream

    def add(self, stream: FrameStream) -> None:
        self._blocked.append(stream)
        self._wake()

    def take(self) -> list[FrameStream]:
        """Return the streams that were added since this was last asked. Wants the lock."""
        blocked, self._blocked = self._blocked, []
        return blocked

    def attend(self, stream: FrameStream) -> None:
        """See to it that what waits is sent once that is possible, or that the other side ends if it never will be."""
        if stream.broken:
            self._on_broken(stream)
        elif stream.stuck or not self._loop.also_write(stream.sock, True):
            self.stuck.append(stream)

    def flush(self, stream: FrameStream) -> None:
        """Send what waits, because the socket takes more."""
        with self._lock:
            done = stream.flush()
        if done or stream.stuck:
            self._loop.also_write(stream.sock, False)
        if stream.stuck or stream.broken:
            self.attend(stream)

    def retry(self) -> None:
        """Try again where the system lacked something: no socket tells when that is there."""
        stuck, self.stuck = self.stuck, []
        for stream in stuck:
            with self._lock:
                done = stream.flush()
            if not done or stream.broken:
                self.attend(stream)
