"""An event loop, in which one thread waits for sockets and other threads wake it; and such a thread."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from functools import partial

from ..utils.threads import LazyThread

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Handler = Callable[[int], object]


class EventLoop:
    """A selector that calls a handler with READ, WRITE or both when a socket is ready.

    All but `wake` is for one thread.
    """

    def __init__(self, woken: Callable[[], object]) -> None:
        """Make the loop, with `woken` as the function to call in its thread after `wake`.

        Raises:
            OSError: no descriptors are left.
        """
        self._woken = woken
        with contextlib.ExitStack() as undo:
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._reader, self._writer = map(undo.enter_context, socket.socketpair())
            # A full pipe must not block the waking thread, nor an empty one the loop.
            for end in (self._reader, self._writer):
                end.setblocking(False)
            self.watch(self._reader, self._wake_up)
            undo.pop_all()

    def wake(self) -> None:
        """Let the thread look for news. Any thread may call this, also after the end of the loop."""
        with contextlib.suppress(OSError):  # full: the thread is going to wake anyway; closed: the loop has ended
            self._writer.send(b"x")

    def _wake_up(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(1 << 10)
        self._woken()

    def watch(self, sock: socket.socket | int, handler: Handler) -> None:
        self._selector.register(sock, READ, handler)

    def also_write(self, sock: socket.socket, wanted: bool) -> bool:
        """Wait, or wait no longer, until the socket can be written to; return False if the system refused.

        A socket that is not watched any more needs nothing.
        """
        with contextlib.suppress(KeyError, ValueError):
            data = self._selector.get_key(sock).data
            try:
                self._selector.modify(sock, READ | WRITE if wanted else READ, data)
            except OSError:
                return False
        return True

    def forget(self, sock: socket.socket | int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def step(self, timeout: float | None) -> None:
        """Wait for an event, at most `timeout` seconds, and call the handlers."""
        # An earlier handler may have closed the socket of a later one, so handlers check for this.
        for key, mask in self._selector.select(timeout):
            key.data(mask)

    def sockets(self) -> list[socket.socket]:
        return [self._reader, self._writer]

    def close(self) -> None:
        self._selector.close()
        self._reader.close()
        self._writer.close()


class IoThread(LazyThread):
    """A lazy thread with an event loop, through which other threads wake the thread."""

    def __init__(self) -> None:
        super().__init__("callyard")
        self.loop: EventLoop | None = None
        self._loops: list[EventLoop] = []  # threads may make several at once; the first counts

    def start_with(self, run: Callable[[EventLoop], object], make_loop: Callable[[], EventLoop]) -> None:
        """Start the thread as `start` does.

        Raises:
            RuntimeError: the system refused the thread.
            OSError: no descriptors are left.
        """
        self._once(partial(self._start_with, run, make_loop))

    def _start_with(self, run: Callable[[EventLoop], object], make_loop: Callable[[], EventLoop]) -> None:
        loop = self._loop_of(make_loop)  # before the thread runs: threads with work for it use the loop to wake it
        try:
            self._start(partial(run, loop))
        except RuntimeError:
            if not self._threads:  # no thread of a parallel start has the loop
                self.loop = None
                self._loops.clear()
                loop.close()
            raise
        loop.wake()  # other threads may have left work when there was no loop to wake

    def _loop_of(self, make_loop: Callable[[], EventLoop]) -> EventLoop:
        """Return the loop of this object. To append to a list is atomic, so all threads agree on the first entry."""
        if not self._loops:
            # Several threads may come here at once; all but the first close their own loop.
            made = make_loop()
            self._loops.append(made)
            if self._loops[0] is not made:
                made.close()
        self.loop = loop = self._loops[0]
        return loop

    def wake(self) -> None:
        """Let the thread look for news."""
        loop = self.loop
        if loop is not None:
            loop.wake()
