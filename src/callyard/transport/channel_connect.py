"""The connection of an agent to the driver: an attempt at each address, all at once; the first to answer is taken."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from .certificates import Identity, agent_context
from .channel_messages import WELCOME
from .contact_file import Address, Contact
from .tls_connection import TlsConnection, prepare

__all__ = ["Unreachable", "connect_to_first"]

_PAUSES = (0.1, 2.0)  # s between two attempts at an address: the first, and the longest
_NO_ANSWER = "no answer; a firewall or missing route?"
_NO_PROOF = "something accepts connections there, but does not prove to be the driver"
_UNKNOWN = "the driver does not know our key"
_BUSY = "the driver is there, but too busy to answer"


class Unreachable(ConnectionError):
    """The error if no address of the driver answered; `tried` has the reason for each."""

    def __init__(self, timeout: float, tried: Sequence[tuple[Address, str]]) -> None:
        words = "; ".join(f"{address}: {what}" for address, what in tried) or "it has no address"
        super().__init__(
            f"the driver did not answer in {timeout:g} s; tried {words}; "
            "choose an address that nodes can reach by `interface=`, or a port that is open by `ports=(low, high)`"
        )
        self.tried = tuple(tried)


def connect_to_first(
    contact: Contact, timeout: float, silence: float, clock: Callable[[], float]
) -> tuple[TlsConnection, Address]:
    """Return a connection to the driver that has been welcomed, and its address.

    Raises:
        Unreachable: no address answered within `timeout` seconds.
    """
    until = clock() + timeout
    own = Identity(contact.agent_certificate, contact.agent_key)
    context = agent_context(own, contact.driver_certificate)
    with selectors.DefaultSelector() as selector, ExitStack() as undo:
        attempts = [ConnectAttempt(address, context, silence, selector) for address in contact.addresses]
        for attempt in attempts:
            undo.callback(attempt.close)
        while (now := clock()) < until:
            for attempt in attempts:
                attempt.begin(now)
            next_event = min([until, *(attempt.next_try for attempt in attempts if attempt.idle)])
            for key, _ in selector.select(max(0.0, next_event - now)):
                if connection := key.data.step(clock()):
                    return connection, key.data.address
        raise Unreachable(timeout, [(attempt.address, attempt.seen) for attempt in attempts])


class ConnectAttempt:
    """The attempts to reach the driver at one of its addresses, one after the other."""

    def __init__(
        self, address: Address, context: ssl.SSLContext, silence: float, selector: selectors.BaseSelector
    ) -> None:
        self.address = address
        self.seen = _NO_ANSWER  # the furthest step, in words
        self.next_try = 0.0  # the time of the next attempt
        self._context, self._silence, self._selector = context, silence, selector
        self._pause, self._longest = _PAUSES
        self._socket: socket.socket | None = None  # while it is being connected
        self._connection: TlsConnection | None = None  # afterwards
        self._proved = False

    @property
    def idle(self) -> bool:
        """True between two attempts."""
        return self._socket is None and self._connection is None

    def begin(self, now: float) -> None:
        """Begin another attempt if it is time."""
        if not self.idle or now < self.next_try:
            return
        try:
            self._socket = sock = socket.socket(socket.AF_INET6 if self.address.is_ipv6 else socket.AF_INET)
            prepare(sock, self._silence)
            code = sock.connect_ex((self.address.host, self.address.port))
        except OSError as error:  # the protocol is switched off on this node, or no descriptors are left
            self._fail(_words(error.errno), now)
            return
        if code in (0, errno.EINPROGRESS):
            self._selector.register(sock, selectors.EVENT_WRITE, self)
        else:
            self._fail(_words(code), now)

    def step(self, now: float) -> TlsConnection | None:
        """Go on without waiting; return the connection once the driver has answered."""
        try:
            if self._connection is None:
                self._begin_tls()
            return self._go_on()
        except ssl.SSLError as error:
            self._fail(_UNKNOWN if "ALERT" in (error.reason or "") else _NO_PROOF, now)
        except OSError as error:
            self._fail(_words(error.errno) if self._connection is None else self.seen, now)
        return None

    def _begin_tls(self) -> None:
        sock = self._socket
        assert sock is not None, "an event of a socket"
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self._selector.unregister(sock)
        self._connection = TlsConnection(sock, self._context, driver=False)
        self._socket = None
        self._selector.register(self._connection, selectors.EVENT_READ, self)
        self.seen = _NO_PROOF

    def _go_on(self) -> TlsConnection | None:
        connection = self._connection
        assert connection is not None, "made by `_begin_tls`"
        if not self._proved:
            self._proved = connection.handshake()
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
            self._selector.modify(connection, events, self)
            if not self._proved:
                return None
            self.seen = _BUSY
        # The driver says nothing more before it has heard something.
        if any(message.kind == WELCOME for message in connection.receive()):
            self._selector.unregister(connection)
            self._connection = None
            return connection
        if connection.gone:
            raise connection.error or ConnectionResetError(errno.ECONNRESET, "closed")
        return None

    def _fail(self, seen: str, now: float) -> None:
        """End this attempt; the next one comes after a pause."""
        self.seen = seen
        self.close()
        self.next_try, self._pause = now + self._pause, min(2 * self._pause, self._longest)

    def close(self) -> None:
        """End the attempt under way."""
        for each in (self._socket, self._connection):
            if each is not None:
                with suppress(KeyError, ValueError):
                    self._selector.unregister(each)
                each.close()
        self._socket = self._connection = None
        self._proved = False


def _words(code: int | None) -> str:
    return os.strerror(code).lower() if code else _NO_ANSWER
