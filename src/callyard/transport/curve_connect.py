"""The connection of an agent to the driver: an attempt at each address, all at once; the first to answer is taken."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence

from .contact_file import Address, Contact
from .curve_sockets import MonitoredSocket, make_context, next_of
from .multipart import cut, kind_of

HELLO, WELCOME, MESSAGE, BYE = range(1, 5)


class Unreachable(ConnectionError):
    """The error if no address of the driver answered; `tried` has the reason for each."""

    def __init__(self, timeout: float, tried: Sequence[tuple[Address, str]]) -> None:
        words = "; ".join(f"{address}: {what}" for address, what in tried) or "it has no address"
        super().__init__(
            f"the driver did not answer in {timeout:g} s; tried {words}; "
            "choose an address that nodes can reach by `interface=`, or a port that is open by `ports=(low, high)`"
        )
        self.tried = tuple(tried)


class ConnectAttempt:
    """An attempt to reach the driver at one of its addresses."""

    def __init__(self, watched: MonitoredSocket, contact: Contact, address: Address) -> None:
        import zmq

        self.watched, self.address = watched, address
        self.connected = False
        self.seen = ""  # the furthest step of the attempt, in words
        watched.set(
            {
                zmq.CURVE_SERVERKEY: contact.server_key.encode(),
                zmq.CURVE_PUBLICKEY: contact.client_key.encode(),
                zmq.CURVE_SECRETKEY: contact.client_secret.encode(),
                zmq.IPV6: address.is_ipv6,
                # The driver may be busy, or a packet lost, so libzmq tries again until the time is over.
                zmq.RECONNECT_IVL: 100,
                zmq.RECONNECT_IVL_MAX: 2000,
                zmq.CONNECT_TIMEOUT: 5000,
            }
        )
        # Before the connection, so that no event is missed.
        wanted = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        watched.watch(wanted | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        watched.socket.connect(address.endpoint)

    def step(self) -> bool:
        """Handle the events of the socket; return True if the driver has answered."""
        for event, _ in self.watched.events():
            self._take_event(event)
        answered = False
        # All messages at once: libzmq's descriptor tells of changes only.
        while parts := next_of(self.watched.socket):
            answered |= kind_of(parts[0]) == WELCOME
        return answered and self.connected  # without a connection the answer comes from an earlier one

    def _take_event(self, event: int) -> None:
        import zmq

        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connected = True
            self.seen = "the driver is there, but too busy to answer"
            self.watched.socket.send_multipart(cut(HELLO, ()), zmq.NOBLOCK)
        elif event == zmq.EVENT_DISCONNECTED:
            self.connected = False
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.seen = "the driver does not know our key"
        elif not self.seen:
            self.seen = "something accepts connections there, but does not prove to be the driver"


def begin(contact: Contact, silence: float, undo: contextlib.ExitStack) -> list[ConnectAttempt]:
    """Try all addresses of the driver at once."""
    import zmq

    context = make_context()
    # Registered first, so that it runs last: `term` waits for the `close` of all sockets.
    undo.callback(context.term)
    attempts = []
    for address in contact.addresses:
        watched = MonitoredSocket(context, zmq.DEALER, silence)
        undo.callback(watched.close)
        attempts.append(ConnectAttempt(watched, contact, address))
    return attempts


def first_to_answer(
    attempts: Sequence[ConnectAttempt], deadline: float, clock: Callable[[], float]
) -> ConnectAttempt | None:
    """Return the first attempt with an answer; None if the time is over."""
    import zmq

    poller = zmq.Poller()
    for attempt in attempts:
        poller.register(attempt.watched.socket, zmq.POLLIN)
        poller.register(attempt.watched.news, zmq.POLLIN)
    while (left := deadline - clock()) > 0:
        # Rounded up: a time-out of 0 would spin through the last millisecond.
        poller.poll(math.ceil(left * 1000))
        for attempt in attempts:
            if attempt.step():
                return attempt
    return None


def explain(attempts: Sequence[ConnectAttempt]) -> list[tuple[Address, str]]:
    """Return the reason for each address; a failed connection is tried once more, because libzmq hides the error."""
    mute = [attempt.address for attempt in attempts if not attempt.seen]
    reasons = dict(zip(mute, _try_plainly(mute), strict=True))
    return [(attempt.address, attempt.seen or reasons[attempt.address]) for attempt in attempts]


def _try_plainly(addresses: Sequence[Address], timeout: float = 1.0) -> list[str]:
    """Return the system's reason for each address, after at most `timeout` s of trying to connect."""
    said = dict.fromkeys(range(len(addresses)), "no answer; a firewall or missing route?")
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for number, address in enumerate(addresses):
            try:
                sock = stack.enter_context(socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET))
                # All addresses are tried together, in one second.
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect((address.host, address.port))
                selector.register(sock, selectors.EVENT_WRITE, number)
            except OSError as error:
                said[number] = _words(error.errno)
        deadline = time.monotonic() + timeout
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                said[key.data] = _words(key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    return list(said.values())


def _words(code: int | None) -> str:
    return os.strerror(code).lower() if code else "it accepts connections only now"
