"""The channel between the driver and one agent per node: TCP, authenticated both ways and encrypted by CurveZMQ.

    driver: Listener    ROUTER; listens on every address of its machine, on one port
    agent:  Link        DEALER; tries all addresses at once and stays with the first that answers

The driver makes a key pair for itself and one for the agents of this session, and writes the keys into the contact
file. The driver lets in only that key, drops the messages of others, and is alone in being able to decrypt messages to
its public key. No arriving byte is unpickled here: a message is a list of byte frames.

A connection is used once. When a connection breaks, the messages on their way are lost, and libzmq would connect again
and go on as if nothing had happened. So both sides are told of the end, and an agent that connects again is a new peer.
For the same reason an agent sends HELLO on each connection, and the driver ignores a peer without HELLO.

No message is dropped and no call blocks, because there is no limit for messages that wait to be sent. A limit would
also stop reading, and with the reading the signs of life. The placement of calls limits the waiting messages instead.

Calls of a Listener or Link must not overlap, not even by a finalizer that the garbage collector runs in one of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..version import VERSION
from .contact_file import Contact
from .curve_connect import BYE, HELLO, MESSAGE, WELCOME, ConnectAttempt, Unreachable, begin, explain, first_to_answer
from .curve_endpoint import Endpoint, PeerGone
from .curve_listener import make_door, make_keys, make_router, raw
from .curve_sockets import bind, candidates_of, make_context, next_of
from .local_addresses import find_addresses
from .multipart import cut, join, kind_of

__all__ = ["SILENCE", "Link", "Listener", "PeerGone", "Unreachable"]

SILENCE = 60.0  # seconds without a sign of life after which the other side is gone
MOST_AT_ONCE = 100  # messages from one `receive`, so that a busy peer cannot keep the caller for ever


class Listener(Endpoint):
    """The driver's side of the channel."""

    def __init__(
        self, interface: str | None = None, ports: tuple[int, int] | None = None, *, silence: float = SILENCE
    ) -> None:
        """Listen on one port of all addresses, or those of one interface; any port, or one from `ports`, ends included.

        Raises:
            ValueError: the interface or the ports make no sense.
            OSError: no port is free.
        """
        candidates = candidates_of(ports)
        addresses = find_addresses(interface)
        server, client = make_keys(), make_keys()
        with contextlib.ExitStack() as undo:
            context = make_context()  # one for each listener, since a context has one place to ask for keys
            # Registered first, so called last: `term` waits for the ends of all sockets.
            undo.callback(context.term)
            self._allowed = raw(client[0])
            self._door = make_door(context, undo)
            router = make_router(context, undo, server[1], silence)
            bound = bind(router.socket, addresses, candidates)
            super().__init__(router, undo.pop_all(), self._door)
        self.contact = Contact(
            session=os.urandom(8).hex(),
            version=VERSION,
            python=f"{sys.version_info[0]}.{sys.version_info[1]}",
            addresses=bound,
            server_key=server[0].decode(),
            client_key=client[0].decode(),
            client_secret=client[1].decode(),
        )
        self.behind = False  # True if `receive` stopped at the limit, so that more messages may wait
        self._open: set[int] = set()  # descriptors of connections, also of strangers
        self._on: dict[int, bytes] = {}  # the peer of each connection after HELLO
        self._peers: dict[bytes, bool] = {}  # True after the first message that is not HELLO
        self._ended: list[bytes] = []

    def receive(self) -> list[tuple[bytes, list[bytes]]]:
        """Return the arrived messages, each with its peer; never wait.

        A peer is known from its first message on. The pair `(peer, [])` comes last and says that the peer is gone.
        """
        self._check()
        # First: a wake-up from here on is for the next call.
        self._calm()
        self._answer_at_the_door()
        self._take_events()  # before the messages: a peer's messages from before its end still count
        messages: list[tuple[bytes, list[bytes]]] = []
        self.behind = all(self._take(messages) for _ in range(MOST_AT_ONCE))
        # libzmq's descriptor tells of changes only, so the rest needs a wake-up; ends of peers come after their
        # messages.
        if self.behind:
            self._wake()
            return messages
        return messages + self._farewells()

    def send(self, peer: bytes, frames: Sequence[bytes | memoryview]) -> None:
        """Send a message of at least one frame. The caller may change the frames afterwards. Never wait.

        The method may return although the message is never going to arrive, because the end of a peer is noticed late.

        Raises:
            PeerGone: the peer is gone.
        """
        import zmq

        self._check()
        if not frames:
            raise ValueError("a message has at least one frame")
        if peer not in self._peers:
            raise PeerGone("this peer is not connected any more")
        try:
            self._send([peer, *cut(MESSAGE, frames)])
        except zmq.ZMQError as error:
            # By ROUTER_MANDATORY an unknown peer is an error; without the option its messages would silently vanish.
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise PeerGone("this peer is not connected any more") from None

    # ------------------------------------------------------------------ peers

    def _answer_at_the_door(self) -> None:
        """Answer libzmq's questions about connections with a proved key: let in the agents' key and no other."""
        while request := next_of(self._door):
            version, number, _, _, _, mechanism, *keys = request
            welcome = mechanism == b"CURVE" and keys == [self._allowed]
            status = (b"200", b"welcome") if welcome else (b"400", b"unknown key")
            self._door.send_multipart([version, number, *status, b"agent" if welcome else b"", b""])

    def _take_events(self) -> None:
        import zmq

        for event, descriptor in self._watched.events():
            if event == zmq.EVENT_ACCEPTED:
                self._open.add(descriptor)
                continue
            self._open.discard(descriptor)
            peer = self._on.pop(descriptor, None)
            if peer is not None:
                self._ended.append(peer)

    def _farewells(self) -> list[tuple[bytes, list[bytes]]]:
        """Forget the peers that are gone; return the ones known to the caller."""
        ended, self._ended = self._ended, []
        none: list[bytes] = []
        return [(peer, none) for peer in ended if self._peers.pop(peer, False)]

    # ------------------------------------------------------------------ messages

    def _take(self, messages: list[tuple[bytes, list[bytes]]]) -> bool:
        """Take in the next message; return False if there was none."""
        import zmq

        try:
            # The message of a ROUTER begins with the routing id of the peer.
            peer = self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return False
        if peer not in self._peers:
            self._greet(peer)
            return True
        parts = self._socket.recv_multipart()
        kind = kind_of(parts[0])
        if kind == HELLO:  # libzmq connected the agent twice before its first HELLO, so there is a second one
            self._answer(peer, WELCOME)
        elif kind == MESSAGE:
            try:
                frames = join(parts)
            except ValueError:
                self._dismiss(peer)
                return True
            self._peers[peer] = True
            messages.append((peer, frames))
        return True

    def _greet(self, peer: bytes) -> None:
        """Make a peer of the sender of HELLO if its connection is open; drop other messages, left from a broken one."""
        import zmq

        # As a frame object, which knows the descriptor of its connection.
        first = self._socket.recv(copy=False)
        parts = [first.bytes, *(self._socket.recv_multipart() if first.more else ())]
        if kind_of(parts[0]) != HELLO:
            return
        # An earlier connection had the same descriptor. Its events came before this message, and must not end the new
        # peer.
        self._take_events()
        descriptor = first.get(zmq.SRCFD)
        if descriptor in self._open:
            self._on[descriptor] = peer
            self._peers[peer] = False
            self._answer(peer, WELCOME)

    def _dismiss(self, peer: bytes) -> None:
        """End the connection to a peer after a message that cannot be read."""
        self._answer(peer, BYE)
        self._ended.append(peer)

    def _answer(self, peer: bytes, kind: int) -> None:
        import zmq

        with contextlib.suppress(zmq.ZMQError):  # the peer is gone already, and an event is going to say so
            self._send([peer, *cut(kind, ())])


class Link(Endpoint):
    """The agent's side of the channel."""

    def __init__(self, attempt: ConnectAttempt, undo: contextlib.ExitStack) -> None:
        super().__init__(attempt.watched, undo)
        self.address = attempt.address  # the first that answered
        self._gone = False
        self._wake()  # a message may have come before the selector watched the socket

    @classmethod
    def connect(
        cls,
        contact: Contact,
        *,
        timeout: float,
        silence: float = SILENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> Link:
        """Return the link to the driver, over the first of its addresses that answers.

        Raises:
            Unreachable: no address answered within `timeout` seconds; the error has the reason for each, found in
                another second at most.
        """
        with contextlib.ExitStack() as undo:
            attempts = begin(contact, silence, undo)
            chosen = first_to_answer(attempts, clock() + timeout, clock)
            if chosen is None:
                raise Unreachable(timeout, explain(attempts))
            for attempt in attempts:
                if attempt is not chosen:
                    attempt.watched.close()  # otherwise the driver would keep another peer
            return cls(chosen, undo.pop_all())

    def receive(self) -> list[list[bytes]]:
        """Return the arrived messages; never wait.

        Raises:
            PeerGone: the driver is gone, and all its messages have been returned.
        """
        self._check()
        self._calm()
        self._take_events()
        messages: list[list[bytes]] = []
        while len(messages) < MOST_AT_ONCE and (parts := next_of(self._socket)):
            self._take(parts, messages)
        if self._gone and not messages:
            self._fail()
        if self._gone or len(messages) >= MOST_AT_ONCE:
            self._wake()
        return messages

    def send(self, frames: Sequence[bytes | memoryview]) -> None:
        """Send a message of at least one frame. The caller may change the frames afterwards. Never wait.

        The method may return although the message is never going to arrive, because the end of the driver is noticed
        late.

        Raises:
            PeerGone: the driver is known to be gone.
        """
        self._check()
        if not frames:
            raise ValueError("a message has at least one frame")
        if self._gone:
            self._fail()
        self._send(cut(MESSAGE, frames))

    def _take_events(self) -> None:
        import zmq

        if any(event == zmq.EVENT_DISCONNECTED for event, _ in self._watched.events()):
            self._gone = True

    def _take(self, parts: list[bytes], messages: list[list[bytes]]) -> None:
        kind = kind_of(parts[0])
        try:
            if kind == MESSAGE:
                messages.append(join(parts))
        except ValueError:
            kind = BYE
        self._gone |= kind == BYE

    def _fail(self) -> NoReturn:
        self._wake()
        # Each later call has to raise, too, so the descriptor stays readable.
        raise PeerGone(f"the driver at {self.address} is gone, or the network between is interrupted")
