"""Whoever connects without a key of the session is not heard and does no harm.

All the time a real agent talks to the driver; at the end it has not been interrupted, nobody else has been heard,
and nothing is left of the strangers.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import hypothesis.strategies as st
import psutil
import pytest
from channel_peers import LOOPBACK, PATIENCE, Driver, Proxy, ask, heads, wait_until
from hypothesis import given

from callyard.transport import handshakes
from callyard.transport.certificates import Identity, agent_context, driver_context, make_identity
from callyard.transport.channel import Link, Listener, PeerGone
from callyard.transport.channel_messages import MESSAGE, MOST_BUFFERS, Message, encode
from callyard.transport.contact_file import Address, Contact
from callyard.transport.handshakes import Handshakes


class Talk:
    """A driver, and an agent that talks to it all the time."""

    def __init__(self) -> None:
        self.driver = Driver(Listener(LOOPBACK))
        self.contact: Contact = self.driver.contact
        [self.address] = self.contact.addresses
        self._link = Link.connect(self.contact, timeout=PATIENCE)
        self._done = threading.Event()
        self._failures: list[BaseException] = []
        self.said = 0
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()
        wait_until(lambda: self.said)
        [self.agent] = self.driver.heard
        self.descriptors = len(os.listdir("/dev/fd"))

    def _talk(self) -> None:
        try:
            while not self._done.is_set():
                assert ask(self._link, b"%d" % self.said) == b"%d" % self.said
                self.said += 1
                self._done.wait(0.001)
        except BaseException as error:  # for the test to see
            self._failures.append(error)

    def goes_on(self) -> None:
        """Wait until both sides have said something more."""
        before = self.said
        wait_until(lambda: self.said > before + 3 or self._failures)
        assert not self._failures

    def nobody_else_was_heard(self) -> None:
        self.goes_on()
        listener = self.driver.listener
        wait_until(lambda: not listener._handshakes.strangers and len(listener._peers) == 1)
        assert list(self.driver.heard) == list(listener._peers) == [self.agent]
        assert not self.driver.gone
        assert not self.driver.failures
        wait_until(lambda: len(os.listdir("/dev/fd")) <= self.descriptors)

    def sees_others_go(self) -> None:
        """Wait until those who had the key have left, and the driver knows."""
        driver = self.driver
        wait_until(lambda: len(driver.listener._peers) == 1)
        wait_until(lambda: {*driver.heard} - {self.agent} <= {*driver.gone})

    def forget_others(self) -> None:
        """Let those go who had the key."""
        self.driver.heard = {peer: count for peer, count in self.driver.heard.items() if peer == self.agent}
        self.driver.gone = [peer for peer in self.driver.gone if peer == self.agent]

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self._link.close()
        self.driver.close()

    def connect(self) -> socket.socket:
        """Return a plain connection to the driver."""
        sock = socket.create_connection((self.address.host, self.address.port), timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    """Start both; at the end, see that nothing came between them."""
    monkeypatch.setattr(handshakes, "PATIENCE", 600.0)  # whoever is shown out is so for what he did
    started = Talk()
    try:
        yield started
        started.nobody_else_was_heard()
    finally:
        started.close()


def read_to_end(sock: socket.socket) -> bytes:
    """Return what comes until the driver closes the connection."""
    got = b""
    try:
        while data := sock.recv(1 << 16):
            got += data
    except ConnectionError:
        pass
    return got


def read_exactly(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = sock.recv(size - len(got))
        assert data, "closed too early"
        got += data
    return got


def send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except ConnectionError:
        pass  # closed in the middle


def client_hello() -> bytes:
    """Return what a TLS client says first."""
    said = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="driver")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return said.read()


HELLO = client_hello()


# ------------------------------------------------------------------ bytes


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(talk: Talk, seed: int):
    with talk.connect() as sock:
        send(sock, random.Random(seed).randbytes(10_000))
        read_to_end(sock)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_after_a_proper_beginning(talk: Talk, seed: int):
    with talk.connect() as sock:
        send(sock, HELLO + random.Random(seed).randbytes(10_000))
        read_to_end(sock)


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x01\0",  # ZMTP 2.0
        HELLO[:200],
        b"".join(bytes(data) for data, _ in encode(Message(MESSAGE, b"x"))),
    ],
)
def test_other_protocols(talk: Talk, text: bytes):
    with talk.connect() as sock:
        send(sock, text)
        with suppress(OSError):  # closed already
            sock.shutdown(socket.SHUT_WR)
        read_to_end(sock)


@pytest.mark.parametrize("text", [b"", HELLO[:1], HELLO[:11], HELLO[:-1], HELLO])
def test_who_says_half_and_then_nothing_is_shown_out(monkeypatch: pytest.MonkeyPatch, text: bytes):
    monkeypatch.setattr(handshakes, "PATIENCE", 0.3)
    talk = Talk()
    try:
        with talk.connect() as sock:
            send(sock, text)
            read_to_end(sock)  # they close it
        talk.nobody_else_was_heard()
    finally:
        talk.close()


def test_connections_that_are_closed_at_once(talk: Talk):
    for _ in range(300):
        talk.connect().close()


def test_many_while_nobody_looks():
    with closing(Listener(LOOPBACK)) as listener:
        [address] = listener.contact.addresses
        for _ in range(900):
            socket.create_connection((address.host, address.port)).close()
        driver = Driver(listener)
        with closing(Link.connect(listener.contact, timeout=PATIENCE)) as link:
            assert ask(link, b"x") == b"x"
        driver.close()


@pytest.mark.parametrize("text", [b"", HELLO[:100], HELLO])
def test_connections_that_are_reset(text: bytes):
    with closing(Listener(LOOPBACK)) as listener:
        [address] = listener.contact.addresses
        for _ in range(100):
            sock = socket.create_connection((address.host, address.port))
            send(sock, text)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        driver = Driver(listener)
        with closing(Link.connect(listener.contact, timeout=PATIENCE)) as link:
            assert ask(link, b"x") == b"x"
        driver.close()


# ------------------------------------------------------------------ crowds


@contextmanager
def crowd(talk: Talk, count: int, text: bytes) -> Iterator[None]:
    """Open so many connections, each of which says this and then nothing."""
    strangers = []
    try:
        for _ in range(count):
            strangers.append(talk.connect())
            send(strangers[-1], text)
        yield
    finally:
        for sock in strangers:
            sock.close()


@pytest.mark.parametrize("text", [b"", HELLO[:100], HELLO])
def test_a_crowd_is_bounded_and_an_agent_gets_through(monkeypatch: pytest.MonkeyPatch, talk: Talk, text: bytes):
    monkeypatch.setattr(handshakes, "MOST", 8)
    monkeypatch.setattr(handshakes, "HURRY", 0.01)
    open_files = len(os.listdir("/dev/fd"))
    most = 0
    listener = talk.driver.listener
    with crowd(talk, 200, text):
        most = max(most, len(listener._handshakes.strangers))
        with closing(Link.connect(talk.contact, timeout=PATIENCE)) as link:
            assert ask(link, b"x") == b"x"
        assert most <= 8
        # 200 ends of our own, and what the driver keeps of theirs.
        assert len(os.listdir("/dev/fd")) <= open_files + 200 + 8 + 8
        talk.goes_on()
    talk.sees_others_go()
    talk.forget_others()


def test_a_shortage_of_descriptors_is_over_when_it_is_over():
    """The driver looks again after a pause, and then has nothing to look for."""
    with closing(Exhausted()) as listening:
        door = Handshakes(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), [listening], silence=10.0)
        assert not door.accept(5.0)
        again = door.next_look()
        assert again is not None
        assert again > 5.0
        assert not door.accepts(5.5)
        listening.left = 1
        assert not door.accept(again)  # nobody is there any more
        assert door.accepts(again)
        assert door.next_look() is None


class Exhausted(socket.socket):
    """A listening socket in a process without descriptors, or with some."""

    left = 0

    def accept(self) -> tuple[socket.socket, object]:
        raise BlockingIOError if self.left else OSError(errno.EMFILE, "too many open files")


@pytest.mark.parametrize("text", [HELLO[:-1], HELLO, HELLO + bytes([22, 3, 3, 0x40, 0]) + bytes(0x3FFF)])
def test_what_strangers_send_is_not_kept(talk: Talk, text: bytes):
    """Even if each announces the largest record of TLS, and sends most of it."""
    before = psutil.Process().memory_info().rss
    with crowd(talk, 100, text):
        talk.goes_on()
        assert psutil.Process().memory_info().rss - before < 100 * (100 << 10) + (4 << 20)


def test_who_goes_on_sending_is_shown_out(talk: Talk):
    with talk.connect() as sock:
        for _ in range(100):
            send(sock, HELLO + bytes(1 << 16))
        read_to_end(sock)


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 5))
def test_no_stranger_stays_longer_than_it_may(arrivals, most):
    """Whatever the times of their coming are, and however often somebody looks."""
    clients: list[socket.socket] = []
    with pytest.MonkeyPatch.context() as patch, socket.create_server((LOOPBACK, 0), backlog=100) as server:
        patch.setattr(handshakes, "MOST", most)
        server.setblocking(False)
        own, agent = make_identity("driver"), make_identity("agent")
        at_the_door = Handshakes(driver_context(own, agent.certificate), [server], 60.0)
        now = 100.0
        for later in arrivals:
            clients.append(socket.create_connection(server.getsockname()))
            for slow in at_the_door.too_slow(now):
                slow.close()
            at_the_door.accept(now)
            assert len(at_the_door.strangers) <= most
            assert all(now - since < handshakes.PATIENCE for since in at_the_door.strangers.values())
            when = at_the_door.next_look()
            assert when is not None
            assert when <= now + handshakes.PATIENCE
            now += later
        for each in [*clients, *at_the_door.strangers]:
            each.close()


# ------------------------------------------------------------------ TLS with other keys


def shake_hands(talk: Talk, context: ssl.SSLContext) -> bytes:
    """Connect as a TLS client and say something; return what the driver says before it closes the connection."""
    with talk.connect() as sock:
        try:
            with context.wrap_socket(sock, server_hostname="driver") as tls:
                tls.sendall(b"".join(bytes(data) for data, _ in encode(Message(MESSAGE, b"x"))))
                return read_to_end(tls)
        except (ssl.SSLError, ConnectionError):
            return b""


def without_a_certificate(contact: Contact) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def with_another_certificate(contact: Contact) -> ssl.SSLContext:
    return agent_context(make_identity("agent"), contact.driver_certificate)


def with_older_tls(contact: Contact) -> ssl.SSLContext:
    context = agent_context(Identity(contact.agent_certificate, contact.agent_key), contact.driver_certificate)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize("make", [without_a_certificate, with_another_certificate, with_older_tls])
def test_a_client_that_is_no_agent_is_not_heard(talk: Talk, make: Callable[[Contact], ssl.SSLContext]):
    assert shake_hands(talk, make(talk.contact)) == b""


def test_an_agent_of_another_executor_is_not_heard(talk: Talk):
    with closing(Listener(LOOPBACK)) as other:
        context = agent_context(
            Identity(other.contact.agent_certificate, other.contact.agent_key), talk.contact.driver_certificate
        )
        assert shake_hands(talk, context) == b""


@pytest.mark.parametrize("count", [MOST_BUFFERS + 1, 1 << 31])
def test_who_has_the_key_but_speaks_nonsense_harms_only_himself(talk: Talk, count: int):
    context = agent_context(
        Identity(talk.contact.agent_certificate, talk.contact.agent_key), talk.contact.driver_certificate
    )
    with talk.connect() as sock, context.wrap_socket(sock) as tls:
        tls.sendall(struct.pack("<BIQ", MESSAGE, count, 0))
        read_to_end(tls)
    talk.goes_on()
    talk.sees_others_go()


@pytest.mark.parametrize("size", [1 << 50, (1 << 64) - 1])
def test_a_buffer_that_no_memory_holds_ends_the_connection(talk: Talk, size: int):
    context = agent_context(
        Identity(talk.contact.agent_certificate, talk.contact.agent_key), talk.contact.driver_certificate
    )
    with talk.connect() as sock, context.wrap_socket(sock) as tls:
        tls.sendall(struct.pack("<BIQQ", MESSAGE, 1, 0, size))
        read_to_end(tls)
    talk.goes_on()
    talk.sees_others_go()


# ------------------------------------------------------------------ what was recorded


@pytest.fixture
def recorded(talk: Talk) -> list[bytes]:
    """Return what a real agent sent to this driver, as it came."""
    with closing(Proxy(talk.address)) as proxy:
        contact = replace(talk.contact, addresses=(proxy.address,))
        with closing(Link.connect(contact, timeout=PATIENCE)) as link:
            assert ask(link, b"pay 100") == b"pay 100"
            assert ask(link, b"pay 200") == b"pay 200"
        [sent] = proxy.sent
    wait_until(lambda: len(talk.driver.gone) == 1)
    [real] = talk.driver.gone
    assert talk.driver.heard.pop(real) == 2
    talk.driver.gone.clear()
    talk.descriptors = len(os.listdir("/dev/fd"))
    return sent


def test_replayed_at_once(talk: Talk, recorded: list[bytes]):
    with talk.connect() as sock:
        send(sock, b"".join(recorded))
        read_to_end(sock)


def test_replayed_step_by_step(talk: Talk, recorded: list[bytes]):
    """Each piece after the driver has answered the one before, as the agent did."""
    with talk.connect() as sock:
        send(sock, recorded[0])  # the greeting, which anybody may say
        assert sock.recv(1)
        for data in recorded[1:]:
            send(sock, data)
        read_to_end(sock)


def test_replayed_without_its_beginning(talk: Talk, recorded: list[bytes]):
    stream = b"".join(recorded)
    for start in range(64, len(stream), 97):
        with talk.connect() as sock:
            send(sock, stream[start:])
            talk.goes_on()


def test_what_is_sent_cannot_be_read_on_the_way(talk: Talk, recorded: list[bytes]):
    stream = b"".join(recorded)
    assert b"pay" not in stream
    assert talk.contact.agent_key.encode() not in stream


def test_what_was_recorded_is_of_no_use_to_another_driver(talk: Talk, recorded: list[bytes]):
    other = Driver(Listener(LOOPBACK))
    [address] = other.contact.addresses
    with socket.create_connection((address.host, address.port), timeout=PATIENCE) as sock:
        send(sock, b"".join(recorded))
        read_to_end(sock)
    assert not other.heard
    other.close()


# ------------------------------------------------------------------ changed on the way


class Meddler(Proxy):
    """Changes one bit of what the agent sends, some way into the connection."""

    def __init__(self, target: Address, place: int) -> None:
        self._place = place
        super().__init__(target)

    def change(self, note: list[bytes], data: bytes) -> bytes:
        place = self._place - sum(map(len, note))
        if note is self.sent[0] and 0 <= place < len(data):
            return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        return data


@pytest.mark.parametrize("beyond", [10, 60, 200, 333])
def test_a_bit_that_was_changed_ends_the_connection(talk: Talk, recorded: list[bytes], beyond: int):
    """Whatever is changed in a message is not delivered."""
    with closing(Meddler(talk.address, len(b"".join(recorded)) + beyond)) as proxy:
        contact = replace(talk.contact, addresses=(proxy.address,))
        with closing(Link.connect(contact, timeout=PATIENCE)) as link:
            for number in range(100):
                link.send(b"pay %d" % number)
            heard: list[bytes] = []
            with pytest.raises(PeerGone):
                while True:
                    heard += heads(link, 1)
        assert heard == [b"pay %d" % number for number in range(len(heard))]
        assert len(heard) < 100
    wait_until(lambda: len(talk.driver.listener._peers) == 1)
    talk.goes_on()
    talk.forget_others()
