"""Sockets of libzmq with the options of the channel. libzmq is loaded with the first, and starts threads of its own."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from random import SystemRandom
from typing import TYPE_CHECKING, cast

from .contact_file import Address
from .multipart import LARGEST_PART

if TYPE_CHECKING:
    import zmq

    Socket = zmq.Socket[bytes]
    Context = zmq.Context[Socket]

HANDSHAKE = 10.0  # seconds for a stranger to prove an identity; each of them costs a descriptor meanwhile

_EVENT = struct.Struct("=HI")  # libzmq's message about a connection: event, value


def make_context() -> Context:
    import zmq

    if not zmq.has("curve"):
        raise RuntimeError("the libzmq here cannot encrypt: install pyzmq as it is built for this system")
    return zmq.Context()


class MonitoredSocket:
    """A socket for TCP, and another one with the events of its connections."""

    def __init__(self, context: Context, kind: int, silence: float) -> None:
        import zmq

        self.socket = context.socket(kind)
        self.news = context.socket(zmq.PAIR)
        self.set(
            {
                zmq.LINGER: 0,  # a close does not wait for unsent messages
                zmq.SNDHWM: 0,  # no limit for waiting messages, see `curve`
                zmq.RCVHWM: 0,
                zmq.MAXMSGSIZE: LARGEST_PART,  # of one part; a larger one ends the connection
                zmq.HANDSHAKE_IVL: int(HANDSHAKE * 1000),
                # A ping after a third of the time, and the other two thirds for the answer.
                zmq.HEARTBEAT_IVL: math.ceil(silence * 1000 / 3),
                zmq.HEARTBEAT_TIMEOUT: math.ceil(silence * 2000 / 3),
            }
        )

    def set(self, options: Mapping[int, int | bytes]) -> None:
        for option, value in options.items():
            self.socket.set(option, value)

    def watch(self, events: int) -> None:
        import zmq

        # A random name, because all sockets of a context share these names.
        place = f"inproc://news-{os.urandom(8).hex()}"
        self.socket.monitor(place, events)
        self.news.set(zmq.RCVHWM, 0)  # no limit: at a full queue libzmq's thread would stop
        self.news.connect(place)

    def events(self) -> Iterator[tuple[int, int]]:
        """Yield the events of connections: the kind of event, and for most kinds a descriptor."""
        while parts := next_of(self.news):
            yield _EVENT.unpack(parts[0])

    def close(self) -> None:
        """Close both sockets, and drop the messages that have not been sent.

        The monitor ends first: libzmq's thread sends events without a time limit, and would wait for ever for a reader.
        """
        if not self.socket.closed:
            self.socket.disable_monitor()
        self.socket.close(linger=0)
        self.news.close(linger=0)


def next_of(source: Socket) -> list[bytes] | None:
    """Return the parts of the next message; None if there is no message now."""
    import zmq

    try:
        return source.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


# ------------------------------------------------------------------ listening


def candidates_of(ports: tuple[int, int] | None) -> Sequence[int]:
    """Return the ports to be tried; 0 stands for any free port."""
    if ports is None:
        return [0] * 100  # a port that is free on the first address may be taken on another
    low, high = ports
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"ports is (lowest, highest), each from 1 to 65535, not {ports!r}")
    # In random order, so that the drivers of one node do not all try the same port first.
    return SystemRandom().sample(range(low, high + 1), high - low + 1)


def bind(main: Socket, addresses: Sequence[tuple[str, str]], ports: Sequence[int]) -> tuple[Address, ...]:
    """Listen on one port of all addresses, and return the addresses with the port.

    Raises:
        OSError: no port is free on all of them.
    """
    for port in ports:
        if bound := _bind_all(main, addresses, port):
            return bound
    which = f"from {min(ports)} to {max(ports)}" if any(ports) else "at all"
    places = ", ".join(host for _, host in addresses)
    raise OSError(f"no port {which} is free on {places}: name others by `ports=(low, high)`")


def _bind_all(main: Socket, addresses: Sequence[tuple[str, str]], port: int) -> tuple[Address, ...]:
    """Listen on one port of all addresses; return () if the port is taken on one of them."""
    import zmq

    bound: list[Address] = []
    for interface, host in addresses:
        address = Address(interface, host, port)
        try:
            port = _listen(main, address)
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                continue  # an address that is not ready yet, or a protocol that is switched off
            # The same port on all addresses: this one is taken on one of them, so another is tried on all.
            for each in bound:
                main.unbind(each.endpoint)
            return ()
        bound.append(address._replace(port=port))
    return tuple(bound)


def _listen(main: Socket, address: Address) -> int:
    """Listen on one address, and return the port, chosen by the system if the address has port 0."""
    import zmq

    main.set(zmq.IPV6, address.is_ipv6)
    main.bind(address.endpoint)
    return int(cast(bytes, main.get(zmq.LAST_ENDPOINT)).decode().rstrip("\0").rpartition(":")[2])
