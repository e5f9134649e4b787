"""Connections whose other side has not proved who it is: how many, for how long, and the end of each.

Everybody on the network may connect. A stranger costs the driver a descriptor and some 50 KB for TLS, so there are at
most `MOST` at the same time. The others wait in the kernel's queue, where they cost nothing. While they wait, strangers
have less time, so that an agent behind a crowd of silent ones gets its turn.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Sequence

from .tls_connection import TlsConnection, prepare

__all__ = ["MOST", "PATIENCE", "Handshakes"]

MOST = 256
PATIENCE = 3.0  # s for a handshake
HURRY = 0.5  # s, while others wait
_PAUSE = 1.0  # s without descriptors or memory, until the next try


class Handshakes:
    """The sockets that listen, and the connections that are being proved. The owner tells the time."""

    def __init__(self, context: ssl.SSLContext, listening: Sequence[socket.socket], silence: float) -> None:
        self.listening = listening
        self.strangers: dict[TlsConnection, float] = {}  # with the time of their coming, the oldest first
        self._context, self._silence = context, silence
        self._not_before = 0.0  # no connection is accepted before this time

    def accepts(self, now: float) -> bool:
        """Return True if connections are accepted now."""
        return len(self.strangers) < MOST and now >= self._not_before

    def accept(self, now: float) -> list[TlsConnection]:
        """Return the connections that have come, as far as there is room for them."""
        come: list[TlsConnection] = []
        if now >= self._not_before:
            self._not_before = 0.0  # otherwise `next_look` would name a past time from now on
        for sock in self.listening:
            while self.accepts(now):
                try:
                    accepted, _ = sock.accept()
                except BlockingIOError:
                    break
                except ConnectionError:  # it has gone already
                    continue
                except OSError:  # no descriptors or memory are left
                    self._not_before = now + _PAUSE
                    break
                with contextlib.suppress(OSError):
                    come.append(self._begin(accepted, now))
        return come

    def _begin(self, accepted: socket.socket, now: float) -> TlsConnection:
        try:
            accepted.getpeername()  # fails for one that has gone already, of which `ssl` would leave a socket open
            prepare(accepted, self._silence)
            stranger = TlsConnection(accepted, self._context, driver=True)
        except BaseException:
            accepted.close()
            raise
        self.strangers[stranger] = now
        return stranger

    def go_on(self, stranger: TlsConnection) -> bool | None:
        """Go on with a handshake; return True for an agent, False for anybody else, None as long as it is not known."""
        try:
            proved = stranger.handshake()
        except OSError:
            del self.strangers[stranger]
            return False
        if not proved:
            return None
        del self.strangers[stranger]
        return True

    def too_slow(self, now: float) -> list[TlsConnection]:
        """Take out the strangers whose time is over, and return them."""
        patience = self._patience()
        slow = [stranger for stranger, since in self.strangers.items() if now - since >= patience]
        for stranger in slow:
            del self.strangers[stranger]
        return slow

    def next_look(self) -> float | None:
        """Return the time at which a stranger's time is over or connections are accepted again; None without either."""
        oldest = next(iter(self.strangers.values()), None)
        times = [] if oldest is None else [oldest + self._patience()]
        if self._not_before:
            times.append(self._not_before)
        return min(times, default=None)

    def _patience(self) -> float:
        return PATIENCE if len(self.strangers) < MOST else HURRY
