"""The channel between a driver and its agents: what is sent arrives, and both learn when the other is gone."""

from __future__ import annotations

import errno
import os
import random
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from channel_peers import LOOPBACK, PATIENCE, Driver, Proxy, ask, heads, receive, wait_for, wait_for_end, wait_until
from hypothesis import given

import callyard
from callyard.serialize.shared_memory import OwnedSegment, PrivateBytes, SegmentPool
from callyard.transport import channel_connect
from callyard.transport.certificates import make_identity
from callyard.transport.channel import Link, Listener, PeerGone, Unreachable
from callyard.transport.channel_messages import MESSAGE, Message, encode
from callyard.transport.contact_file import Address, Contact
from callyard.transport.signs_of_life import SignsOfLife
from callyard.transport.tls_connection import prepare


@pytest.fixture
def driver() -> Iterator[Driver]:
    """Start an echo on all addresses."""
    started = Driver(Listener())
    yield started
    started.close()


@pytest.fixture
def link(driver: Driver) -> Iterator[Link]:
    """Connect to it."""
    with closing(Link.connect(driver.contact, timeout=PATIENCE)) as connected:
        yield connected


# ------------------------------------------------------------------ to and fro


def buffers(message: Message) -> list[bytes]:
    """Return the content of the buffers beside a message."""
    return [bytes(memory.read()) for memory in message.beside]


def test_a_message_and_its_answer(link: Link):
    link.send(b"one", [PrivateBytes(b""), PrivateBytes(b"three")])
    [answer] = receive(link, 1)
    assert (answer.head, buffers(answer)) == (b"one", [b"", b"three"])
    assert ask(link, b"") == b""


def test_many_small_messages_arrive_in_order(link: Link):
    for number in range(20_000):
        link.send(b"%d" % number)
    assert heads(link, 20_000) == [b"%d" % number for number in range(20_000)]


@pytest.mark.parametrize("shared", [True, False])
def test_large_messages(link: Link, shared: bool):
    """There and back, more than the kernel keeps on the way."""
    with closing(SegmentPool()) as segments:
        if shared:
            link.keep_in(segments.reserve)
        large = random.Random(1).randbytes(1 << 20) * 64
        link.send(b"head", [PrivateBytes(large), PrivateBytes(large[:300_000]), PrivateBytes(large[:3])])
        link.send(b"behind")
        answer, behind = receive(link, 2)
        assert (answer.head, behind.head) == (b"head", b"behind")
        assert buffers(answer) == [large, large[:300_000], large[:3]]
        assert [type(memory) for memory in answer.beside[:2]] == [OwnedSegment if shared else PrivateBytes] * 2
        del answer, behind


def test_a_buffer_is_not_copied_and_is_kept_until_it_has_gone():
    """The driver does not look meanwhile, so that most of it has to wait."""
    with closing(Listener(LOOPBACK)) as listener:
        with listening(listener):
            link = Link.connect(listener.contact, timeout=PATIENCE)
        segments = SegmentPool()
        memory = segments.reserve(1 << 25)
        assert memory is not None
        link.send(b"x", [memory])
        alive = weakref.ref(memory)
        memory.read()[-1:] = b"b"  # nobody does so, but it shows that there is no copy
        del memory
        assert alive() is not None
        received: list[Message] = []
        while not received:
            received += [message for _, message in listener.receive() if message is not None]
            link.receive()
        [content] = buffers(received[0])
        assert content == bytes((1 << 25) - 1) + b"b"
        assert alive() is None
        link.close()
        segments.close()


def test_large_and_small_messages_of_several_agents_pass(driver: Driver):
    """An agent in the middle of a large message keeps nobody waiting."""
    with closing(Link.connect(driver.contact, timeout=PATIENCE)) as one:
        with closing(Link.connect(driver.contact, timeout=PATIENCE)) as other:
            one.send(b"large", [PrivateBytes(bytes(1 << 25))])  # the rest goes when `one` is looked at
            for number in range(20):
                assert ask(other, b"%d" % number) == b"%d" % number
            [answer] = receive(one, 1)
            assert answer.beside[0].size == 1 << 25


def test_small_messages_pass_a_large_one_of_the_same_agent():
    """Neither side moves by itself: each answer comes in the middle of the large message, both ways."""
    with closing(Listener(LOOPBACK)) as listener:
        with listening(listener):
            link = Link.connect(listener.contact, timeout=PATIENCE)
        with closing(link):
            link.send(b"hello")
            peer, got = 0, list[Message]()
            while not peer:
                wait_for(listener)
                peer = next((peer for peer, _ in listener.receive()), 0)
            large = PrivateBytes(bytes(200_000_000))
            listener.send(peer, b"large", [large], bulk=True)
            link.send(b"large", [large], bulk=True)
            for number in range(10):
                listener.send(peer, b"%d" % number)
                while not got:
                    listener.receive()
                    got = link.receive()
                link.send(got.pop().head)
                back: list[bytes] = []
                while not back:
                    link.receive()
                    back = [message.head for _, message in listener.receive() if message is not None]
                assert back == [b"%d" % number]


def test_several_agents_are_told_apart(driver: Driver):
    links = [Link.connect(driver.contact, timeout=PATIENCE) for _ in range(5)]
    for number, each in enumerate(links):
        each.send(b"I am %d" % number)
    assert [heads(each, 1) for each in links] == [[b"I am %d" % number] for number in range(5)]
    for each in links:
        each.close()
    wait_until(lambda: len(driver.gone) == 5)
    assert sorted(driver.gone) == sorted(driver.heard)


def test_the_descriptor_stays_readable_while_something_is_there(driver: Driver, link: Link):
    """Whoever waits for it may send in between, or not look for a while."""
    link.send(b"first")
    wait_for(link)
    for number in range(50):
        link.send(b"%d" % number)
    got: list[Message] = []
    while len(got) < 51:
        wait_for(link)
        wait_for(link)
        got += link.receive()
    assert [message.head for message in got] == [b"first", *(b"%d" % number for number in range(50))]


def test_the_driver_knows_whether_it_is_behind(monkeypatch):
    """A peer that sends without end is served in portions."""
    monkeypatch.setattr("callyard.transport.tls_connection.AT_ONCE", 1 << 16)
    with closing(Listener(LOOPBACK)) as listener:
        with listening(listener):
            link = Link.connect(listener.contact, timeout=PATIENCE)
        with closing(link):
            for _ in range(100):
                link.send(bytes(10_000))
            counts, behind = [], []
            while sum(counts) < 100:
                wait_for(listener)
                counts.append(len(listener.receive()))
                behind.append(listener.behind)
                link.receive()
            assert max(counts) <= 9
            assert True in behind
            while listener.behind:
                assert not listener.receive()


def test_nothing_is_readable_when_nothing_is_there(driver: Driver, link: Link):
    ask(link, b"x")
    link.receive()
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        assert not selector.select(0)


def test_nothing_is_dropped_however_long_nobody_looks(driver: Driver, link: Link):
    for number in range(5_000):
        link.send(b"%d" % number)
    wait_until(lambda: sum(driver.heard.values()) == 5_000)
    assert len(receive(link, 5_000)) == 5_000


# ------------------------------------------------------------------ where it listens


def test_the_contact_says_who_and_where(driver: Driver):
    contact = driver.contact
    assert contact.version == callyard.__version__
    assert contact.python == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert LOOPBACK in [address.host for address in contact.addresses]
    assert len({address.port for address in contact.addresses}) == 1
    assert "PRIVATE" in contact.agent_key
    assert "PRIVATE" not in contact.driver_certificate + contact.agent_certificate


def test_keys_and_session_are_new_each_time():
    with closing(Listener()) as one, closing(Listener()) as two:
        for name in ("session", "driver_certificate", "agent_certificate", "agent_key"):
            assert getattr(one.contact, name) != getattr(two.contact, name)


def test_each_address_works(driver: Driver):
    for address in driver.contact.addresses:
        only = replace(driver.contact, addresses=(address,))
        with closing(Link.connect(only, timeout=PATIENCE)) as link:
            assert link.address == address
            assert ask(link, b"x") == b"x"


def test_one_interface():
    driver = Driver(Listener(LOOPBACK))
    [address] = driver.contact.addresses
    assert address.host == LOOPBACK
    with closing(Link.connect(driver.contact, timeout=PATIENCE)) as link:
        assert ask(link, b"x") == b"x"
    driver.close()


def test_an_unknown_interface():
    with pytest.raises(ValueError, match="no network interface 'ib7'"):
        Listener("ib7")


@contextmanager
def taken_ports(count: int) -> Iterator[list[socket.socket]]:
    """Ports next to each other on loopback that somebody listens on."""
    for first in range(20_000, 60_000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, sock in enumerate(sockets):
                sock.bind((LOOPBACK, first + number))
                sock.listen()
            yield sockets
            return
        except OSError:
            continue
        finally:
            for sock in sockets:
                sock.close()


def test_a_free_port_of_a_range_is_found():
    with taken_ports(4) as sockets:
        ports = [sock.getsockname()[1] for sock in sockets]
        sockets[2].close()
        with closing(Listener(LOOPBACK, (ports[0], ports[-1]))) as listener:
            assert [address.port for address in listener.contact.addresses] == [ports[2]]
            with pytest.raises(OSError, match=f"no port from {ports[0]} to {ports[-1]} is free on {LOOPBACK}: name"):
                Listener(LOOPBACK, (ports[0], ports[-1]))


def test_a_port_that_is_taken_on_one_address_is_used_on_none():
    with closing(Listener()) as listener:
        addresses = listener.contact.addresses
    if len(addresses) < 2:
        pytest.skip("only one address here")
    with taken_ports(1) as [sock]:  # on loopback, which comes last
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match=f"no port from {port} to {port} is free"):
            Listener(ports=(port, port))
        with socket.create_server((addresses[0].host, port), family=_family(addresses[0])):
            pass  # it was let go of


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if address.is_ipv6 else socket.AF_INET


@pytest.mark.parametrize("ports", [(0, 10), (10, 9), (1, 65536), (-5, 5)])
def test_ports_that_make_no_sense(ports):
    with pytest.raises(ValueError, match=r"ports is \(lowest, highest\)"):
        Listener(ports=ports)


# ------------------------------------------------------------------ ends


def test_an_agent_that_goes(driver: Driver, link: Link):
    ask(link, b"x")
    [peer] = driver.heard
    link.close()
    wait_until(lambda: driver.gone == [peer])


def test_what_an_agent_sent_before_it_went_is_heard_first():
    with closing(Listener(LOOPBACK)) as listener:
        with listening(listener):
            link = Link.connect(listener.contact, timeout=PATIENCE)
        for number in range(500):
            link.send(b"%d" % number)
        link.close()
        heard = receive_all(listener, 501)
        peer = heard[0][0]
        assert heard == [*((peer, Message(MESSAGE, b"%d" % number, [])) for number in range(500)), (peer, None)]
        for nobody in (peer, 4711):
            with pytest.raises(PeerGone, match="not connected"):
                listener.send(nobody, b"x")


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let an agent in, which says nothing yet."""
    done = threading.Event()
    thread = threading.Thread(target=lambda: [listener.receive() or done.wait(0.002) for _ in iter(done.is_set, True)])
    thread.start()
    yield
    done.set()
    thread.join()


def receive_all(listener: Listener, count: int) -> list[tuple[int, Message | None]]:
    got: list[tuple[int, Message | None]] = []
    while len(got) < count:
        wait_for(listener)
        got += listener.receive()
    return got


def test_a_driver_that_goes(driver: Driver):
    listener = Listener(LOOPBACK)
    with listening(listener):
        link = Link.connect(listener.contact, timeout=PATIENCE)
    with closing(link):
        listener.close()
        assert "is gone, or the network" in str(wait_for_end(link))
        for use in (link.receive, lambda: link.send(b"x")):
            with pytest.raises(PeerGone):
                use()
        wait_for(link)  # it goes on saying so


def test_a_buffer_for_which_an_agent_has_no_memory_is_the_reason():
    with closing(Listener(LOOPBACK)) as listener:
        with listening(listener):
            link = Link.connect(listener.contact, timeout=PATIENCE)
        with closing(link):
            [connection] = listener._peers.values()
            connection._waiting._next.append((struct.pack("<BIQQ", MESSAGE, 1, 0, 1 << 62), None))
            connection.flush()
            assert "no memory is left here for a buffer of 4611686018427387904 bytes" in str(wait_for_end(link))


def test_the_end_is_told_behind_a_message_that_came_with_it():
    with closing(Listener(LOOPBACK)) as listener:
        with listening(listener):
            link = Link.connect(listener.contact, timeout=PATIENCE)
        with closing(link):
            [connection] = listener._peers.values()
            connection._waiting._next.extend(encode(Message(MESSAGE, b"before")))
            connection._waiting._next.append((struct.pack("<BIQ", MESSAGE, 1 << 31, 0), None))
            connection.flush()
            assert heads(link, 1) == [b"before"]
            assert "buffers came" in str(wait_for_end(link))


def test_an_agent_that_comes_again_is_a_new_one(driver: Driver, link: Link):
    ask(link, b"x")
    link.close()
    with closing(Link.connect(driver.contact, timeout=PATIENCE)) as again:
        assert ask(again, b"y") == b"y"
        wait_until(lambda: len(driver.gone) == 1)
        assert len(driver.heard) == 2
        assert ask(again, b"z") == b"z"


def test_a_connection_that_breaks_ends_both_sides(driver: Driver):
    with closing(Proxy(driver.contact.addresses[0])) as proxy:
        contact = replace(driver.contact, addresses=(proxy.address,))
        with closing(Link.connect(contact, timeout=PATIENCE)) as link:
            ask(link, b"x")
            [peer] = driver.heard
            proxy.cut()
            wait_for_end(link)
            wait_until(lambda: driver.gone == [peer])
            with closing(Link.connect(contact, timeout=PATIENCE)) as again:
                assert ask(again, b"y") == b"y"
            wait_until(lambda: len(driver.gone) == 2)
            assert sum(driver.heard.values()) == 2


def test_a_connection_that_breaks_in_the_middle_of_a_message(driver: Driver):
    with closing(Proxy(driver.contact.addresses[0])) as proxy:
        contact = replace(driver.contact, addresses=(proxy.address,))
        with closing(Link.connect(contact, timeout=PATIENCE)) as link:
            ask(link, b"x")
            [peer] = driver.heard
            link.send(b"large", [PrivateBytes(bytes(1 << 25))])
            wait_until(lambda: sum(map(len, proxy.sent[0])) > 1 << 16)
            proxy.cut()
            wait_for_end(link)
            wait_until(lambda: driver.gone == [peer])
    assert driver.heard == {peer: 1}


@pytest.mark.parametrize("bulk", [False, True])
def test_a_reset_in_the_middle_of_a_message(bulk: bool):
    """The memory for the rest of it is free again, and the driver hears others."""
    with closing(SegmentPool()) as segments:
        reserved: list[weakref.ref[OwnedSegment]] = []

        def reserve(size: int) -> OwnedSegment | None:
            segment = segments.reserve(size)
            assert segment is not None
            reserved.append(weakref.ref(segment))
            return segment

        driver = Driver(Listener(LOOPBACK, reserve=reserve))
        with closing(driver):
            link = Link.connect(driver.contact, timeout=PATIENCE)
            ask(link, b"x")
            [peer] = driver.heard
            link.send(b"large", [PrivateBytes(bytes(1 << 25))], bulk)
            wait_until(lambda: reserved)
            link._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()
            wait_until(lambda: driver.gone == [peer])
            with closing(Link.connect(driver.contact, timeout=PATIENCE)) as again:
                assert ask(again, b"y") == b"y"
            wait_until(lambda: len(driver.gone) == 2)
        assert driver.heard == {peer: 1, driver.gone[1]: 1}
        assert [segment() for segment in reserved] == [None]


class Breaking(Proxy):
    """Breaks the first two connections with the first bytes of the agent."""

    def change(self, note: list[bytes], data: bytes) -> bytes:
        if any(note is sent for sent in self.sent[:2]):
            raise ConnectionResetError
        return data


def test_connections_that_break_while_they_are_made_do_no_harm(driver: Driver):
    with closing(Breaking(driver.contact.addresses[0])) as proxy:
        contact = replace(driver.contact, addresses=(proxy.address,))
        with closing(Link.connect(contact, timeout=PATIENCE)) as link:
            assert ask(link, b"y") == b"y"
        assert len(proxy.sent) == 3
    assert not driver.failures


# ------------------------------------------------------------------ processes

AGENT = """
import sys
from channel_peers import ask
from callyard.transport.channel import Link
from callyard.transport.contact_file import Contact
link = Link.connect(Contact.read(sys.argv[1]), timeout=30)
print(ask(link, b"hello"), flush=True)
sys.stdin.read()
link.close()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python programs that can import from here, and end them."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *args: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(callyard.__file__).parents[1])])
        process = subprocess.Popen(
            [*before, sys.executable, "-W", "error", "-c", code, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_an_agent_that_dies_or_is_silent(start: Start, tmp_path: Path, how: signal.Signals):
    driver = Driver(Listener(silence=1.0))
    place = tmp_path / "run" / "contact"
    driver.contact.write(place)
    agent = start(AGENT, str(place))
    assert read_line(agent) == "b'hello'"
    agent.send_signal(how)
    wait_until(lambda: driver.gone == list(driver.heard))
    driver.close()


def test_a_process_that_does_not_read_is_not_gone():
    """Its kernel answers, as that of a driver under Ctrl-Z does, and what was sent waits."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        sender = socket.create_connection(listening.getsockname())
        reader, _ = listening.accept()
        with sender, reader, selectors.DefaultSelector() as selector:
            prepare(sender, silence=0.1)
            with pytest.raises(BlockingIOError):
                while True:
                    sender.send(bytes(1 << 16))
            selector.register(sender, selectors.EVENT_READ)
            assert not selector.select(1.5), sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3))))
def test_who_moves_in_time_is_never_gone(events):
    """Whatever the intervals of the looks are: who answers a question before the next period ends stays."""
    peer, signs, now = Peer(), SignsOfLife(1.0), 100.0
    for answers, later in events:
        silent = signs.look([peer], now)
        assert not silent.gone
        peer.moved |= answers or bool(silent.ask)
        now += later


@given(st.lists(st.floats(0, 2.9), min_size=12, max_size=12))
def test_who_never_moves_is_asked_once_and_is_gone_in_time(intervals):
    peer, signs, now, asked = Peer(), SignsOfLife(1.0), 100.0, 0
    for later in [*intervals, 1.0, 1.0, 1.0, 1.0, 1.0]:
        silent = signs.look([peer], now)
        asked += len(silent.ask)
        if silent.gone:
            assert asked == 1
            assert now - 100.0 >= 3.0
            return
        now += later
    raise AssertionError("it is still there")


class Peer:
    """A connection, as far as its signs of life go."""

    moved = True


FORK = """
import gc, os, sys
from channel_peers import Driver, ask
from callyard.transport.channel import Link, Listener
driver = Driver(Listener("127.0.0.1"))
link = Link.connect(driver.contact, timeout=30)
ask(link, b"x")
listener = driver.listener
pid = os.fork()
if not pid:
    refused = 0
    for use in (link.receive, lambda: link.send(b"x"), listener.receive, lambda: listener.send(1, b"x")):
        try:
            use()
        except ValueError as error:
            assert "forked" in str(error)
            refused += 1
    link.close()
    listener.close()
    del link, listener, driver
    gc.collect()
    own = Listener("127.0.0.1")  # it may have its own
    own.close()
    sys.exit(refused)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 4, status
assert ask(link, b"y") == b"y"
link.close()
driver.close()
print("fine")
"""


def test_a_forked_child_cannot_harm_its_parent(start: Start):
    code = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n" + FORK
    assert read_line(start(code)) == "fine"


def test_closed_is_closed(driver: Driver, link: Link):
    link.close()
    link.close()
    with pytest.raises(ValueError, match="is closed"):
        link.receive()
    with pytest.raises(ValueError, match="is closed"):
        link.send(b"x")


# ------------------------------------------------------------------ drivers that do not answer


@contextmanager
def deaf() -> Iterator[Address]:
    """A port that accepts connections and says nothing."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield Address("deaf", LOOPBACK, server.getsockname()[1])


@contextmanager
def unused() -> Iterator[Address]:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        yield Address("unused", LOOPBACK, sock.getsockname()[1])


def test_no_answer_names_what_was_tried(driver: Driver):
    with deaf() as silent, unused() as closed:
        contact = replace(driver.contact, addresses=(silent, closed))
        with pytest.raises(Unreachable) as caught:
            Link.connect(contact, timeout=0.5)
    assert caught.value.tried == (
        (silent, "something accepts connections there, but does not prove to be the driver"),
        (closed, "connection refused"),
    )
    text = str(caught.value)
    assert f"did not answer in 0.5 s; tried 127.0.0.1:{silent.port} (deaf): something" in text
    assert f"127.0.0.1:{closed.port} (unused): connection refused" in text
    assert "`interface=`" in text


def test_one_that_answers_is_enough(driver: Driver):
    with deaf() as silent, unused() as closed:
        contact = replace(driver.contact, addresses=(silent, closed, *driver.contact.addresses))
        with closing(Link.connect(contact, timeout=PATIENCE)) as link:
            assert link.address in driver.contact.addresses
            assert ask(link, b"x") == b"x"


def test_a_node_without_ipv6_takes_another_address(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """As with `ipv6.disable=1`: such a node cannot even make a socket for the address of a driver that has IPv6."""
    make = socket.socket

    def without(family: int = -1, *more: Any, **others: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *more, **others)

    monkeypatch.setattr(channel_connect.socket, "socket", without)
    other = Address("eth0", "2001:db8::1", 4711)
    contact = replace(driver.contact, addresses=(other, *driver.contact.addresses))
    with closing(Link.connect(contact, timeout=PATIENCE)) as link:
        assert ask(link, b"x") == b"x"
    with pytest.raises(Unreachable, match=r"2001:db8::1\]:4711 \(eth0\): address family not supported"):
        Link.connect(replace(contact, addresses=(other,)), timeout=0.3)


def test_another_driver_on_that_port_is_not_taken_for_ours(driver: Driver):
    with closing(Listener(LOOPBACK)) as other, listening(other):
        contact = replace(driver.contact, addresses=other.contact.addresses)
        with pytest.raises(Unreachable, match="does not prove to be the driver"):
            Link.connect(contact, timeout=0.5)


def test_a_key_that_is_not_known(driver: Driver):
    stranger = make_identity("agent")
    contact = replace(driver.contact, agent_certificate=stranger.certificate, agent_key=stranger.key)
    with pytest.raises(Unreachable, match="the driver does not know our key"):
        Link.connect(contact, timeout=1.0)
    assert not driver.heard


def test_a_driver_that_never_looks():
    with closing(Listener(LOOPBACK)) as listener, pytest.raises(Unreachable, match="does not prove"):
        Link.connect(listener.contact, timeout=0.3)


def test_no_address_at_all(driver: Driver):
    with pytest.raises(Unreachable, match="it has no address"):
        Link.connect(replace(driver.contact, addresses=()), timeout=0.05)


def test_time_is_what_the_clock_says(driver: Driver):
    times = iter([0.0, 100.0])
    with deaf() as silent, pytest.raises(Unreachable, match="in 60 s"):
        Link.connect(replace(driver.contact, addresses=(silent,)), timeout=60, clock=lambda: next(times))


# ------------------------------------------------------------------ networks

DRIVER = """
import sys
from channel_peers import Driver, wait_until
from callyard.transport.channel import Listener
driver = Driver(Listener(sys.argv[2] or None, silence=1.0))
driver.contact.write(sys.argv[1])
print(*[address.interface for address in driver.contact.addresses], flush=True)
if sys.stdin.readline() == "watch\\n":
    wait_until(lambda: driver.gone)
    print("gone", flush=True)
    sys.stdin.read()
driver.close()
"""

VISITOR = """
import sys
from channel_peers import ask, wait_for_end
from callyard.transport.channel import Link, Unreachable
from callyard.transport.contact_file import Contact
try:
    link = Link.connect(Contact.read(sys.argv[1]), timeout=float(sys.argv[2]), silence=1.0)
except Unreachable as error:
    print(error, flush=True)
    sys.exit()
ask(link, b"x")
print(link.address.interface, flush=True)
if sys.stdin.readline() == "watch\\n":
    wait_for_end(link)
    print("gone", flush=True)
link.close()
"""


class Network:
    """A driver's and an agent's node, with two cables between them."""

    def __init__(self) -> None:
        self.driver, self.agent = (f"callyard-{os.getpid()}-{side}" for side in ("driver", "agent"))

    def make(self) -> None:
        for node in (self.driver, self.agent):
            self.ip("netns", "add", node)
        for cable, number in (("fast", 1), ("slow", 2)):
            self.ip("link", "add", cable, "netns", self.driver, "type", "veth", "peer", cable, "netns", self.agent)
            for node, end in ((self.driver, 1), (self.agent, 2)):
                self.ip("-n", node, "addr", "add", f"10.99.{number}.{end}/24", "dev", cable)
                self.ip("-n", node, "link", "set", cable, "up")

    def remove(self) -> None:
        for node in (self.driver, self.agent):
            subprocess.run(["ip", "netns", "del", node], check=False)

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def block(self, number: int) -> None:
        """Let nothing of the driver's come to the agent on a cable, and nobody be told."""
        self.ip("-n", self.driver, "route", "add", "blackhole", f"10.99.{number}.2/32")

    def open(self, number: int) -> None:
        self.ip("-n", self.driver, "route", "del", "blackhole", f"10.99.{number}.2/32")

    def on(self, node: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", node)


@pytest.fixture
def network() -> Iterator[Network]:
    """Make two nodes of this one."""
    made = Network()
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.fixture
def contact_file(tmp_path: Path) -> Path:
    return tmp_path / "run" / "contact"


@pytest.mark.needs("netns")
@pytest.mark.parametrize(("blocked", "works"), [(1, "slow"), (2, "fast")])
def test_one_interface_that_is_blocked(start: Start, network: Network, contact_file: Path, blocked: int, works: str):
    network.block(blocked)
    driver = start(DRIVER, str(contact_file), "", before=network.on(network.driver))
    assert sorted(read_line(driver).split()) == ["fast", "slow"]
    agent = start(VISITOR, str(contact_file), "30", before=network.on(network.agent))
    assert read_line(agent) == works


@pytest.mark.needs("netns")
def test_both_blocked_says_what_was_tried(start: Start, network: Network, contact_file: Path):
    network.block(1)
    network.block(2)
    driver = start(DRIVER, str(contact_file), "", before=network.on(network.driver))
    assert read_line(driver)
    [one, two] = Contact.read(contact_file).addresses
    agent = start(VISITOR, str(contact_file), "1", before=network.on(network.agent))
    said = read_line(agent)
    assert f"tried {one}: no answer; a firewall or missing route?; {two}: no answer" in said
    assert {one.interface, two.interface} == {"fast", "slow"}


@pytest.mark.needs("netns")
def test_a_network_without_a_way_is_named_too(start: Start, network: Network, contact_file: Path):
    driver = start(DRIVER, str(contact_file), "", before=network.on(network.driver))
    assert read_line(driver)
    for cable in ("fast", "slow"):
        network.ip("-n", network.agent, "link", "set", cable, "down")
    agent = start(VISITOR, str(contact_file), "0.5", before=network.on(network.agent))
    assert read_line(agent).count("network is unreachable") == 2


@pytest.mark.needs("netns")
def test_only_the_chosen_interface(start: Start, network: Network, contact_file: Path):
    driver = start(DRIVER, str(contact_file), "slow", before=network.on(network.driver))
    assert read_line(driver) == "slow"
    agent = start(VISITOR, str(contact_file), "30", before=network.on(network.agent))
    assert read_line(agent) == "slow"


@pytest.mark.needs("netns")
def test_a_network_that_stalls_is_noticed_on_both_sides(start: Start, network: Network, contact_file: Path):
    network.block(2)
    driver = start(DRIVER, str(contact_file), "", before=network.on(network.driver))
    assert read_line(driver)
    agent = start(VISITOR, str(contact_file), "30", before=network.on(network.agent))
    assert read_line(agent) == "fast"
    network.block(1)
    for process in (driver, agent):
        assert process.stdin
        process.stdin.write("watch\n")
        process.stdin.flush()
    assert read_line(driver) == "gone"
    assert read_line(agent) == "gone"
    network.open(1)
    again = start(VISITOR, str(contact_file), "30", before=network.on(network.agent))
    assert read_line(again) == "fast"
