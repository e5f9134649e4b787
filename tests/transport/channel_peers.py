"""A driver's end of a channel that sends everything back, and what tests do with the other end."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable

from callyard.transport.channel import Link, Listener, PeerGone
from callyard.transport.channel_messages import Message
from callyard.transport.contact_file import Address

LOOPBACK = "127.0.0.1"
PATIENCE = 30.0  # seconds; spent only where something is wrong


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


class Driver:
    """Echoes in a thread, and notes what it heard."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.contact = listener.contact
        self.heard: dict[int, int] = {}  # messages of each peer
        self.gone: list[int] = []
        self.failures: list[BaseException] = []
        self._reader, self._writer = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="echo")
        self._thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            selector.register(self.listener, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(self._patience())}
                if self._reader in ready:
                    return
                try:
                    self._echo()
                except BaseException as error:  # for the test to see
                    self.failures.append(error)
                    return

    def _patience(self) -> float | None:
        when = self.listener.next_look(True)
        return None if when is None else max(0.0, when - time.monotonic())

    def _echo(self) -> None:
        for peer, message in self.listener.receive():
            if message is None:
                self.gone.append(peer)
                continue
            self.heard[peer] = self.heard.get(peer, 0) + 1
            try:
                self.listener.send(peer, message.head, message.beside)
            except PeerGone:
                pass

    def close(self) -> None:
        self._writer.send(b"x")
        self._thread.join()
        self.listener.close()
        self._reader.close()
        self._writer.close()
        assert not self.failures


def wait_for(link: Link | Listener) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        assert selector.select(PATIENCE), "nothing to receive"


def receive(link: Link, count: int) -> list[Message]:
    """Return so many messages."""
    got = link.receive()
    while len(got) < count:
        wait_for(link)
        got += link.receive()
    return got


def heads(link: Link, count: int) -> list[bytes]:
    """Return the heads of so many messages."""
    return [message.head for message in receive(link, count)]


def ask(link: Link, head: bytes) -> bytes:
    link.send(head)
    [answer] = heads(link, 1)
    return answer


def wait_for_end(link: Link) -> PeerGone:
    """Return what is raised when the driver is gone."""
    while True:
        wait_for(link)
        try:
            link.receive()
        except PeerGone as gone:
            return gone


class Proxy:
    """Passes on what comes, until it is cut; then it lets new connections through again."""

    def __init__(self, target: Address) -> None:
        self._target = (target.host, target.port)
        self._server = socket.create_server((LOOPBACK, 0))
        self.address = Address("proxy", LOOPBACK, self._server.getsockname()[1])
        self.sent: list[list[bytes]] = []  # to the target, by connection
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            target = socket.create_connection(self._target)
            self._pairs.append((client, target))
            self.sent.append([])
            for source, sink, note in ((client, target, self.sent[-1]), (target, client, [])):
                self._threads.append(threading.Thread(target=self._pass_on, args=(source, sink, note)))
                self._threads[-1].start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, note: list[bytes]) -> None:
        try:
            while data := source.recv(1 << 16):
                changed = self.change(note, data)
                note.append(data)
                sink.sendall(changed)
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def change(self, note: list[bytes], data: bytes) -> bytes:
        """Return what is passed on, after what was noted before, in the place of the data."""
        return data

    def cut(self) -> None:
        for pair in self._pairs:
            for sock in pair:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for pair in self._pairs:
            for sock in pair:
                sock.close()
