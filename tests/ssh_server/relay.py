"""A relay between a client and a server: it delays what it passes on, counts round trips, and can be cut silently."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable


class Relay:
    """Passes on what comes to `port`, each direction `delay` seconds late.

    With `quiet` it passes on one direction at a time, and turns once one side has said nothing for so long (s) while
    something of the other side's waits. So two `turns` are a round trip that somebody has to wait for.
    """

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self._target, self.delay = target, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.up = self.down = 0  # bytes passed on to the server, and to the client
        self.cut = False
        self.limit: int | None = None  # bytes up and down after which it does the following, once
        self.at_limit: Callable[[], object] = self.hang_up
        self.quiet: float | None = None
        self.turns = 0
        self._upwards, self._passed = True, 0.0
        self._ends: dict[socket.socket, _End] = {}
        self._wake, self._woken = socket.socketpair()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="relay")

    def __enter__(self) -> Relay:  # noqa: PYI034
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over = True
        self._wake.send(b"x")
        self._thread.join()
        for each in (self._listener, self._wake, self._woken, *self._ends):
            each.close()

    def hang_up(self) -> None:
        """Close the connections, as a server that restarts does."""
        for sock in list(self._ends):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._over:
                self._turn(time.monotonic())
                due = min((end.due() for end in self._ends.values() if self._has_turn(end)), default=None)
                wait = 0.05 if due is None or due == float("inf") else max(0.0, min(0.05, due - time.monotonic()))
                for key, _ in selector.select(wait):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif key.fileobj is not self._woken:
                        self._receive(key.fileobj, selector)  # type: ignore[arg-type]
                if not self.cut:
                    for sock, end in list(self._ends.items()):
                        if sock in self._ends and self._has_turn(end) and not end.pass_on(self):
                            self._close(sock, selector)
                if self.limit is not None and self.up + self.down >= self.limit:
                    self.limit = None
                    self.at_limit()

    def _has_turn(self, end: _End) -> bool:
        return self.quiet is None or end.up == self._upwards

    def _turn(self, now: float) -> None:
        if self.quiet is None or any(end.queue for end in self._ends.values() if self._has_turn(end)):
            self._passed = now
        elif now - self._passed > self.quiet and any(end.queue for end in self._ends.values()):
            self._upwards, self._passed = not self._upwards, now
            self.turns += 1

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        if self.cut:
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self._target))
        for sock, other, up in ((client, server, True), (server, client, False)):
            sock.setblocking(False)
            self._ends[sock] = _End(other, up)
            selector.register(sock, selectors.EVENT_READ)

    def _receive(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        end = self._ends.get(sock)
        if end is None:
            return
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            selector.unregister(sock)
        end.queue.append((time.monotonic() + self.delay, data))

    def _close(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        other = self._ends[sock].target
        for each in (sock, other):
            if self._ends.pop(each, None) is not None:
                try:
                    selector.unregister(each)
                except KeyError:
                    pass
                each.close()


class _End:
    """What came from one side, for the other."""

    def __init__(self, target: socket.socket, up: bool) -> None:
        self.target, self.up = target, up
        self.queue: deque[tuple[float, bytes]] = deque()

    def due(self) -> float:
        return self.queue[0][0] if self.queue else float("inf")

    def pass_on(self, relay: Relay) -> bool:
        """Send what is due; return False once the other side has ended."""
        while self.queue and self.queue[0][0] <= time.monotonic():
            _, data = self.queue[0]
            if not data:
                return False
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if self.up:
                relay.up += sent
            else:
                relay.down += sent
            if sent < len(data):
                self.queue[0] = (self.queue[0][0], data[sent:])
                return True
            self.queue.popleft()
        return True
