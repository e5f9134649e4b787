"""One connection over TLS that never blocks: the handshake, messages on their way out, and messages that arrive."""

from __future__ import annotations

import contextlib
import socket
import ssl

from .channel_messages import Message, SendQueue
from .message_reader import MessageReader

__all__ = ["AT_ONCE", "TlsConnection", "prepare"]

AT_ONCE = 1 << 22  # bytes in one go, so that a busy peer cannot keep the caller for ever


class TlsConnection:
    """A socket with TLS, from the handshake to the end.

    The owner waits for the socket to be readable, and, while `wants_write`, to be writable, and then calls `handshake`
    until it returns True, afterwards `flush` and `receive`.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, driver: bool) -> None:
        """Take over a connected socket."""
        self.sock = context.wrap_socket(
            sock, server_side=driver, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        self.moved = False  # the other side has sent bytes, or taken some, since the owner last looked
        self.peer = 0  # the number of the other side, for the owner; 0 before it is known
        self.gone = False  # no more bytes will come
        self.error: OSError | None = None  # the reason, if there was one
        self.behind = False  # `receive` stopped although more bytes may be there
        self.reader = MessageReader()
        self._waiting = SendQueue()
        self._in_handshake_write = False

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """True if the connection has bytes that the socket does not take now."""
        return bool(self._waiting) or self._in_handshake_write

    def handshake(self) -> bool:
        """Go on with the handshake; return True once both sides have proved who they are.

        Raises:
            OSError: the other side is gone, or is not who it should be.
        """
        self._in_handshake_write = False
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self._in_handshake_write = True
            return False
        return True

    def send(self, message: Message, bulk: bool = False) -> None:
        """Send a message, now or when the socket takes it. Its buffers must stay as they are until then."""
        idle = not self._waiting
        self._waiting.add(message, bulk)
        if idle:
            self.flush()

    def flush(self) -> int:
        """Send waiting bytes, as far as the socket takes them; return their number."""
        left = AT_ONCE
        waiting = self._waiting
        data = waiting.head()
        while data is not None and left > 0:
            try:
                # Of a record that did not fit, TLS wants the same bytes again: they are at the head of the queue.
                sent = self.sock.send(data)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                break
            except OSError:
                waiting.clear()  # the other side is gone, which `receive` says
                break
            left -= sent
            waiting.sent(sent)
            data = waiting.head()
        return AT_ONCE - left

    def receive(self) -> list[Message]:
        """Return the messages that are whole now; with the last one `gone` is set."""
        messages: list[Message] = []
        left, more = AT_ONCE, True
        while more and (left > 0 or self.sock.pending()):  # nobody is woken for a record that TLS has opened already
            count, more = self._read(self.reader.space(), left)
            if count:
                self.moved = True
                left -= count
                messages += self.reader.take(count)
                if self.reader.fault:
                    self.gone, self.error, more = True, ConnectionError(self.reader.fault), False
        self.behind = more
        return messages

    def _read(self, space: memoryview, left: int) -> tuple[int, bool]:
        """Fill the memory as far as bytes have come; return their number, and True if more may be there."""
        place, size = 0, len(space)
        read = self.sock.recv_into  # TLS gives one record at a time: thousands of these calls for a large buffer
        try:
            while place < size and (place < left or self.sock.pending()):
                count = read(space[place:] if place else space)
                if not count:
                    self.gone = True
                    return place, False
                place += count
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return place, False
        except OSError as error:
            # Without the frames, one of which has this connection: in a circle, its memory would stay for long.
            self.gone, self.error = True, error.with_traceback(None)
            return place, False
        return place, True

    def close(self) -> None:
        """End the connection, and drop what has not been sent."""
        self._waiting.clear()
        with contextlib.suppress(OSError):
            self.sock.close()


def prepare(sock: socket.socket, silence: float) -> None:
    """Set up a socket: small messages go at once, and the kernel ends an idle connection that is silent so long (s).

    The kernels of the two machines answer each other, so a process that is stopped, or busy, is not taken for dead.
    Therefore no TCP_USER_TIMEOUT is set: Linux would also end a connection whose other side is there, but does not read
    for so long. Bytes that nobody acknowledges are given up by the kernel after a quarter of an hour.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    third = max(1, round(silence / 3))
    for name, value in {
        "TCP_KEEPIDLE": third,
        "TCP_KEEPALIVE": third,  # the same, as macOS calls it
        "TCP_KEEPINTVL": max(1, third // 2),
        "TCP_KEEPCNT": 4,
    }.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
