"""The channel between the driver and one agent per node: TCP with TLS 1.3, where both sides prove who they are.

    driver: Listener    listens on every address of its machine, on one port
    agent:  Link        tries all addresses at once and stays with the first that answers

The driver makes a key for itself and one for the agents of this session, and writes into the contact file what agents
need. Each side accepts exactly the certificate of the other. No arriving byte is unpickled here: a message is bytes,
with buffers beside.

A connection is used once: an agent that connects again is a new peer. No message is dropped and no call blocks, because
there is no limit for messages that wait to be sent. A limit would also stop reading. The placement of calls limits the
waiting messages instead.

Calls of a Listener or Link must not overlap, not even by a finalizer that the garbage collector runs in one of them.
"""

from __future__ import annotations

import os
import selectors
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import NoReturn

from ..serialize.shared_memory import Memory
from ..version import VERSION
from .certificates import driver_context, make_identity
from .channel_connect import Unreachable, connect_to_first
from .channel_endpoint import Closable, Endpoint, PeerGone
from .channel_messages import MESSAGE, PING, PONG, WELCOME, Message
from .contact_file import Address, Contact
from .handshakes import Handshakes
from .listening_sockets import candidates_of, listen
from .local_addresses import find_addresses
from .message_reader import Reserve
from .signs_of_life import SignsOfLife
from .tls_connection import TlsConnection

__all__ = ["SILENCE", "Link", "Listener", "PeerGone", "Unreachable"]

SILENCE = 60.0  # s without a sign of life after which the other machine is gone


class Listener(Endpoint):
    """The driver's side of the channel."""

    def __init__(
        self,
        interface: str | None = None,
        ports: tuple[int, int] | None = None,
        *,
        silence: float = SILENCE,
        reserve: Reserve | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen on one port of all addresses, or those of one interface; any port, or one from `ports`, ends included.

        Args:
            interface: the name of a network interface, or an address.
            ports: (lowest, highest).
            silence: seconds without a sign of life after which an agent's machine is gone; a process that hangs has
                three times as long.
            reserve: returns shared memory for large buffers of agents, or None for private memory.
            clock: tells the time (s).

        Raises:
            ValueError: the interface or the ports make no sense.
            OSError: no port is free.
        """
        candidates = candidates_of(ports)
        addresses = find_addresses(interface)
        own, agents = make_identity("driver"), make_identity("agent")
        listening = listen(addresses, candidates)
        super().__init__()
        self._clock, self._reserve = clock, reserve
        self._handshakes = Handshakes(driver_context(own, agents.certificate), list(listening.values()), silence)
        self.contact = Contact(
            session=os.urandom(8).hex(),
            version=VERSION,
            python=f"{sys.version_info[0]}.{sys.version_info[1]}",
            addresses=tuple(listening),
            driver_certificate=own.certificate,
            agent_certificate=agents.certificate,
            agent_key=agents.key,
        )
        self.behind = False  # True if `receive` stopped although more messages may wait
        self._peers: dict[int, TlsConnection] = {}
        self._known: set[int] = set()  # the peers that have said something
        self._numbers = count(1)
        self._accepts = False
        self._signs = SignsOfLife(silence)
        self._looked = clock()
        self._look_at_door(self._looked, knocked=False)

    def receive(self) -> list[tuple[int, Message | None]]:
        """Return the arrived messages, each with its peer; never wait.

        A peer is known from its first message on. The pair `(peer, None)` comes behind its last message.
        """
        self._check()
        self._calm()
        arrived: list[tuple[int, Message | None]] = []
        self.behind = knocked = False
        for key, events in self._selector.select(0):
            if not isinstance(key.data, TlsConnection):
                knocked |= key.data is not None
            elif key.data.peer:
                self._serve(key.data, events, arrived)
            else:
                self._go_on_with(key.data)
        now = self._clock()
        self._look_for_signs(arrived, now)
        self._look_at_door(now, knocked)
        return arrived

    def send(self, peer: int, head: bytes, beside: Sequence[Memory] = (), bulk: bool = False) -> None:
        """Send a message; never wait. The buffers beside must stay as they are until they have gone.

        Messages that are `bulk` arrive in their order, and other messages may pass them on the way. The method may
        return although the message is never going to arrive, because the end of a peer is noticed late.

        Raises:
            PeerGone: the peer is gone.
        """
        self._check()
        connection = self._peers.get(peer)
        if connection is None:
            raise PeerGone("this peer is not connected any more")
        connection.send(Message(MESSAGE, head, beside), bulk)
        self._watch(connection)

    def finish(self, peer: int) -> list[Message]:
        """Return the messages that have come from a peer and were not read yet, and end its connection."""
        self._check()
        connection = self._peers.pop(peer, None)
        if connection is None:
            return []
        messages = connection.receive()
        while connection.behind:
            messages += connection.receive()
        self._known.discard(peer)
        self._drop(connection)
        return [message for message in messages if message.kind == MESSAGE]

    def next_look(self, waiting: bool) -> float | None:
        """Return the time at which `receive` is to be called though nothing is readable; None if there is none.

        Only a caller that is `waiting` for peers needs to know that they are there: an idle one sleeps on.
        """
        times = [self._handshakes.next_look(), self._signs.next_look() if waiting and self._peers else None]
        return min((when for when in times if when is not None), default=None)

    # ------------------------------------------------------------------ peers

    def _serve(self, connection: TlsConnection, events: int, arrived: list[tuple[int, Message | None]]) -> None:
        """Send and receive the bytes of a peer."""
        peer = connection.peer
        if events & selectors.EVENT_WRITE:
            connection.flush()
            connection.moved = True  # there is room again, so the other side has taken bytes
        messages = connection.receive()
        said = [(peer, message) for message in messages if message.kind == MESSAGE]
        if said:
            arrived += said
            self._known.add(peer)
        self.behind |= connection.behind
        if connection.gone:
            self._end(connection, arrived)
        else:
            self._watch(connection)

    def _end(self, connection: TlsConnection, arrived: list[tuple[int, Message | None]]) -> None:
        """Forget a peer, and tell its end if it has said something."""
        peer = connection.peer
        del self._peers[peer]
        self._drop(connection)
        if peer in self._known:
            self._known.remove(peer)
            arrived.append((peer, None))

    def _look_for_signs(self, arrived: list[tuple[int, Message | None]], now: float) -> None:
        """Ask peers that have long been silent whether they are there, and end those that do not answer."""
        silent = self._signs.look(self._peers.values(), now)
        for connection in silent.ask:
            connection.send(Message(PING))
            self._watch(connection)
        for connection in silent.gone:
            self._end(connection, arrived)

    def _go_on_with(self, stranger: TlsConnection) -> None:
        """Go on with a handshake; a stranger who has proved to be an agent becomes a peer."""
        proved = self._handshakes.go_on(stranger)
        if proved:
            stranger.peer = next(self._numbers)
            if self._reserve is not None:
                stranger.reader.reserve = self._reserve
            self._peers[stranger.peer] = stranger
            stranger.moved = True
            stranger.send(Message(WELCOME))
        if proved is False:
            self._drop(stranger)
        else:
            self._watch(stranger)

    def _look_at_door(self, now: float, knocked: bool) -> None:
        """Accept connections if some have come, as many as may be unproved; close those that take too long."""
        # By the time of the last look, as this driver may have been busy since, and not the stranger.
        for stranger in self._handshakes.too_slow(self._looked):
            self._drop(stranger)
        self._looked = now
        if knocked or not self._accepts:  # else there is nobody, and each look would cost a system call for each socket
            for stranger in self._handshakes.accept(now):
                self._watch(stranger)
        # Else the descriptor would stay readable for connections that are not accepted now.
        accepts = self._handshakes.accepts(now)
        if self._accepts != accepts:
            self._accepts = accepts
            for sock in self._handshakes.listening:
                if accepts:
                    self._selector.register(sock, selectors.EVENT_READ, sock)
                else:
                    self._selector.unregister(sock)

    def _sockets(self) -> Iterable[Closable]:
        return [*self._handshakes.listening, *self._handshakes.strangers, *self._peers.values()]


class Link(Endpoint):
    """The agent's side of the channel."""

    def __init__(self, connection: TlsConnection, address: Address) -> None:
        super().__init__()
        self.address = address  # the first that answered
        self.moved = 0  # bytes that have gone after a wait, because the driver has taken others
        self._connection = connection
        self._watch(connection)
        self._wake()  # more than the welcome may have come

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
            Unreachable: no address answered within `timeout` seconds; the error has the reason for each.
        """
        return cls(*connect_to_first(contact, timeout, silence, clock))

    def keep_in(self, reserve: Reserve) -> None:
        """Put large buffers of the driver into this memory from now on."""
        self._connection.reader.reserve = reserve

    def receive(self) -> list[Message]:
        """Return the arrived messages; never wait.

        Raises:
            PeerGone: the driver is gone, and all its messages have been returned.
        """
        self._check()
        self._calm()
        if self._connection.wants_write:
            self.moved += self._connection.flush()
        messages = [] if self._connection.gone else self._connection.receive()
        for message in messages:
            if message.kind == PING:
                self._connection.send(Message(PONG))
        messages = [message for message in messages if message.kind == MESSAGE]
        if not self._connection.gone:
            self._watch(self._connection)
        elif not messages:
            self._fail()
        else:
            self._wake()  # the next call raises
        return messages

    def send(self, head: bytes, beside: Sequence[Memory] = (), bulk: bool = False) -> None:
        """Send a message; never wait. The buffers beside must stay as they are until they have gone.

        Messages that are `bulk` arrive in their order, and other messages may pass them on the way. The method may
        return although the message is never going to arrive, because the end of the driver is noticed
        late.

        Raises:
            PeerGone: the driver is known to be gone.
        """
        self._check()
        if self._connection.gone:
            self._fail()
        self._connection.send(Message(MESSAGE, head, beside), bulk)
        self._watch(self._connection)

    def _fail(self) -> NoReturn:
        self._wake()  # each later call has to raise, too, so the descriptor stays readable
        error = self._connection.error
        why = "" if error is None else f" ({error.strerror or error})"
        raise PeerGone(f"the driver at {self.address} is gone, or the network between is interrupted{why}")

    def _sockets(self) -> Iterable[Closable]:
        return [self._connection]
