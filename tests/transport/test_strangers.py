"""Whoever connects without a key of the session is not heard and does no harm.

All the time a real agent talks to the driver; at the end it has not been interrupted, nobody else has been heard,
and nothing is left of the strangers.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace

import psutil
import pytest
from curve_peers import LOOPBACK, PATIENCE, Driver, Proxy, ask, receive, wait_until

from callyard.transport import curve_sockets, multipart
from callyard.transport.contact_file import Address, Contact
from callyard.transport.curve import Link, Listener, PeerGone
from callyard.transport.curve_connect import HELLO, MESSAGE
from callyard.transport.multipart import cut

pytestmark = pytest.mark.needs("zmq")

# What a CurveZMQ client says first: signature, version 3.1, mechanism, client, filler.
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)
LARGE_COMMAND, SMALL_COMMAND, LARGE_MESSAGE = b"\x06", b"\x04", b"\x02"


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
                assert ask(self._link, b"%d" % self.said) == [b"%d" % self.said]
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
        wait_until(lambda: len(listener._open) == 1)
        assert list(self.driver.heard) == list(listener._peers) == [self.agent]
        assert not self.driver.gone
        assert not self.driver.failures
        wait_until(lambda: len(os.listdir("/dev/fd")) <= self.descriptors)

    def sees_others_go(self) -> None:
        """Wait until those who had the key have left, and the driver knows."""
        driver = self.driver
        wait_until(lambda: len(driver.listener._open) == 1)
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
    monkeypatch.setattr(curve_sockets, "HANDSHAKE", 600.0)  # whoever is shown out is so for what he did
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


def frame(kind: bytes, length: int) -> bytes:
    return kind + length.to_bytes(8, "big")


# ------------------------------------------------------------------ bytes


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(talk: Talk, seed: int):
    with talk.connect() as sock:
        send(sock, random.Random(seed).randbytes(10_000))
        talk.goes_on()


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_after_a_proper_greeting(talk: Talk, seed: int):
    with talk.connect() as sock:
        send(sock, GREETING + SMALL_COMMAND + random.Random(seed).randbytes(10_000))
        read_to_end(sock)


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS
        b"\x01\x00",  # ZMTP 1.0, which knows no security
        b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x01\0",  # ZMTP 2.0, neither
        GREETING.replace(b"CURVE", b"NULL\0") + SMALL_COMMAND + b"\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER",
        GREETING.replace(b"CURVE", b"PLAIN") + SMALL_COMMAND + b"\x0a\x05HELLO\x01a\x01b",
    ],
)
def test_other_protocols(talk: Talk, text: bytes):
    with talk.connect() as sock:
        send(sock, text)
        with suppress(OSError):  # closed already
            sock.shutdown(socket.SHUT_WR)
        read_to_end(sock)


@pytest.mark.parametrize("text", [b"", GREETING[:1], GREETING[:11], GREETING[:40], GREETING])
def test_who_says_half_and_then_nothing_is_shown_out(monkeypatch: pytest.MonkeyPatch, text: bytes):
    monkeypatch.setattr(curve_sockets, "HANDSHAKE", 0.3)
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


def test_many_connections_at_the_same_time(talk: Talk):
    strangers = [talk.connect() for _ in range(200)]
    for number, sock in enumerate(strangers):
        send(sock, GREETING[: number % 64])
    talk.goes_on()
    for sock in strangers:
        sock.close()


def test_many_while_nobody_looks():
    """More than libzmq's usual limit of news, beyond which its thread would stop for all."""
    with closing(Listener(LOOPBACK)) as listener:
        [address] = listener.contact.addresses
        for _ in range(1300):
            socket.create_connection((address.host, address.port)).close()
        driver = Driver(listener)
        with closing(Link.connect(listener.contact, timeout=PATIENCE)) as link:
            assert ask(link, b"x") == [b"x"]
        driver.close()


# ------------------------------------------------------------------ memory


@pytest.mark.parametrize("kind", [LARGE_COMMAND, LARGE_MESSAGE])
@pytest.mark.parametrize("length", [multipart.LARGEST_PART + 1, 1 << 30, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_a_large_frame_is_refused_by_its_length(talk: Talk, kind: bytes, length: int):
    with talk.connect() as sock:
        send(sock, GREETING + frame(kind, length))
        assert len(read_to_end(sock)) <= len(GREETING)


def test_what_strangers_send_is_not_kept(talk: Talk):
    """Even if each announces the largest part that is let in, and sends most of it."""
    before = psutil.Process().memory_info().rss
    strangers = [talk.connect() for _ in range(50)]
    for sock in strangers:
        send(sock, GREETING + frame(LARGE_COMMAND, multipart.LARGEST_PART) + bytes(multipart.LARGEST_PART - 1))
    talk.goes_on()
    most = len(strangers) * (multipart.LARGEST_PART + (1 << 17))
    assert psutil.Process().memory_info().rss - before < most + (16 << 20)
    for sock in strangers:
        sock.close()


def test_who_goes_on_sending_is_shown_out(talk: Talk):
    with talk.connect() as sock:
        send(sock, GREETING)
        part = frame(LARGE_COMMAND, 1 << 16) + bytes(1 << 16)
        for _ in range(100):
            send(sock, part)
        read_to_end(sock)


# ------------------------------------------------------------------ ZeroMQ

TYPES = ["PAIR", "PUB", "SUB", "REQ", "REP", "DEALER", "ROUTER", "PULL", "PUSH", "XPUB", "XSUB", "STREAM"]


class Stranger:
    """A socket of libzmq's, with the news about its connections."""

    def __init__(self, kind: str) -> None:
        import zmq

        self.context = zmq.Context()
        self.socket = self.context.socket(getattr(zmq, kind))
        self.socket.linger = 0
        self.news = self.context.socket(zmq.PAIR)
        self.news.rcvtimeo = int(PATIENCE * 1000)
        self.socket.monitor("inproc://news", zmq.EVENT_ALL)
        self.news.connect("inproc://news")

    def use_key(self, server_key: str, client: tuple[bytes, bytes]) -> None:
        self.socket.curve_serverkey = server_key.encode()
        self.socket.curve_publickey, self.socket.curve_secretkey = client

    def wait_for(self, event: str) -> None:
        import zmq

        happened: list[str] = []
        while event not in happened:
            number = int.from_bytes(self.news.recv_multipart()[0][:2], sys.byteorder)
            happened.append(zmq.Event(number).name)
            assert len(happened) < 50, f"no {event} in {happened}"

    def say(self, parts: list[bytes]) -> None:
        import zmq

        try:
            self.socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError:
            pass  # some types cannot

    def close(self) -> None:
        self.socket.disable_monitor()
        self.socket.close()
        self.news.close()
        self.context.term()


def everything() -> list[list[bytes]]:
    return [[b"x"], [bytes(part) for part in cut(HELLO, ())], [bytes(part) for part in cut(MESSAGE, [b"x"])]]


@pytest.mark.parametrize("kind", TYPES)
def test_every_kind_of_socket_without_a_key(talk: Talk, kind: str):
    with closing(Stranger(kind)) as stranger:
        if kind == "SUB":
            stranger.socket.subscribe(b"")
        stranger.socket.connect(talk.address.endpoint)
        for parts in everything():
            stranger.say(parts)
        if kind == "STREAM":
            stranger.wait_for("CONNECTED")
            routing, _ = stranger.socket.recv_multipart()
            for parts in everything():
                stranger.say([routing, b"".join(parts)])
            return
        stranger.wait_for("DISCONNECTED")


@pytest.mark.parametrize("kind", TYPES[:-1])
@pytest.mark.parametrize("wrong", ["server", "client"])
def test_every_kind_of_socket_with_a_wrong_key(talk: Talk, kind: str, wrong: str):
    import zmq

    with closing(Stranger(kind)) as stranger:
        server = talk.contact.server_key if wrong == "client" else zmq.curve_keypair()[0].decode()
        stranger.use_key(server, zmq.curve_keypair())
        stranger.socket.connect(talk.address.endpoint)
        for parts in everything():
            stranger.say(parts)
        stranger.wait_for("DISCONNECTED")


def test_the_public_half_of_the_right_key_is_not_enough(talk: Talk):
    import zmq

    with closing(Stranger("DEALER")) as stranger:
        _, other = zmq.curve_keypair()
        stranger.use_key(talk.contact.server_key, (talk.contact.client_key.encode(), other))
        stranger.socket.connect(talk.address.endpoint)
        stranger.wait_for("DISCONNECTED")


def test_a_stranger_who_connects_again_and_again(talk: Talk):
    import zmq

    with closing(Stranger("DEALER")) as stranger:
        stranger.socket.reconnect_ivl = 1
        stranger.use_key(zmq.curve_keypair()[0].decode(), zmq.curve_keypair())
        stranger.socket.connect(talk.address.endpoint)
        for _ in range(20):
            stranger.wait_for("DISCONNECTED")


@pytest.mark.parametrize("kind", ["REQ", "DEALER", "ROUTER", "PUB"])
def test_who_has_the_key_but_speaks_nonsense_harms_only_himself(talk: Talk, kind: str):
    with closing(Stranger(kind)) as stranger:
        stranger.use_key(
            talk.contact.server_key, (talk.contact.client_key.encode(), talk.contact.client_secret.encode())
        )
        stranger.socket.connect(talk.address.endpoint)
        if kind == "PUB":
            stranger.wait_for("DISCONNECTED")
            return
        stranger.wait_for("HANDSHAKE_SUCCEEDED")
        for parts in (*everything()[:2], [bytes([MESSAGE]) + b"\xff" * 3], *everything()):
            stranger.say(parts)
        talk.goes_on()
    talk.sees_others_go()
    talk.forget_others()


# ------------------------------------------------------------------ what was recorded


@pytest.fixture
def recorded(talk: Talk) -> list[bytes]:
    """Return what a real agent sent to this driver, as it came."""
    with closing(Proxy(talk.address)) as proxy:
        contact = replace(talk.contact, addresses=(proxy.address,))
        with closing(Link.connect(contact, timeout=PATIENCE)) as link:
            assert ask(link, b"pay 100") == [b"pay 100"]
            assert ask(link, b"pay 200") == [b"pay 200"]
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
    """Each step after the driver has answered the one before, as the agent did."""
    stream = b"".join(recorded)
    with talk.connect() as sock:
        send(sock, stream[:64])  # the greeting
        assert read_exactly(sock, 64)[12:17] == b"CURVE"
        send(sock, stream[64:266])  # HELLO, which anybody may say
        assert read_exactly(sock, 170)[2:].startswith(b"\x07WELCOME")
        send(sock, stream[266:])
        assert read_to_end(sock) == b""


def test_replayed_without_its_beginning(talk: Talk, recorded: list[bytes]):
    stream = b"".join(recorded)
    for start in range(64, len(stream), 97):
        with talk.connect() as sock:
            send(sock, stream[start:])
            talk.goes_on()


def test_what_is_sent_cannot_be_read_on_the_way(talk: Talk, recorded: list[bytes]):
    stream = b"".join(recorded)
    assert b"pay" not in stream
    assert talk.contact.client_secret.encode() not in stream


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
                link.send([b"pay %d" % number])
            heard: list[list[bytes]] = []
            with pytest.raises(PeerGone):
                while True:
                    heard += receive(link, 1)
        assert heard == [[b"pay %d" % number] for number in range(len(heard))]
        assert len(heard) < 100
    wait_until(lambda: len(talk.driver.listener._open) == 1)
    talk.goes_on()
    talk.forget_others()
