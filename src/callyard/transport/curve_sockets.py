"""Sockets of libzmq as the channel needs them. It is loaded with the first, and brings threads of its own."""

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

HANDSHAKE = 10.0  # seconds that somebody may take to prove who he is, in which he costs a descriptor

_EVENT = struct.Struct("=HI")  # what libzmq says about a connection: event, value


def make_context() -> Context:
    import zmq

    if not zmq.has("curve"):
        raise RuntimeError("the libzmq here cannot encrypt: install pyzmq as it is built for this system")
    return zmq.Context()


class MonitoredSocket:
    """A socket for TCP, and another one that tells of its connections."""

    def __init__(self, context: Context, kind: int, silence: float) -> None:
        import zmq

        self.socket = context.socket(kind)
        self.news = context.socket(zmq.PAIR)
        self.set(
            {
                zmq.LINGER: 0,
                zmq.SNDHWM: 0,
                zmq.RCVHWM: 0,
                zmq.MAXMSGSIZE: LARGEST_PART,
                zmq.HANDSHAKE_IVL: int(HANDSHAKE * 1000),
                zmq.HEARTBEAT_IVL: math.ceil(silence * 1000 / 3),
                zmq.HEARTBEAT_TIMEOUT: math.ceil(silence * 2000 / 3),
            }
        )

    def set(self, options: Mapping[int, int | bytes]) -> None:
        for option, value in options.items():
            self.socket.set(option, value)

    def watch(self, events: int) -> None:
        import zmq

        place = f"inproc://news-{os.urandom(8).hex()}"
        self.socket.monitor(place, events)
        self.news.set(zmq.RCVHWM, 0)  # else libzmq would stop when nobody looks for a while
        self.news.connect(place)

    def events(self) -> Iterator[tuple[int, int]]:
        """What happened to connections: the kind of event, and a descriptor with most."""
        while parts := next_of(self.news):
            yield _EVENT.unpack(parts[0])

    def close(self) -> None:
        """Drop what has not been sent.

        In this order: libzmq's thread sends news without a time limit, and would wait for ever if nobody can take them.
        """
        if not self.socket.closed:
            self.socket.disable_monitor()
        self.socket.close(linger=0)
        self.news.close(linger=0)


def next_of(source: Socket) -> list[bytes] | None:
    import zmq

    try:
        return source.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


# ------------------------------------------------------------------ listening


def candidates_of(ports: tuple[int, int] | None) -> Sequence[int]:
    """Return the ports to be tried; 0 stands for any that is free."""
    if ports is None:
        return [0] * 100  # one that is free on the first address may be taken on another
    low, high = ports
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"ports is (lowest, highest), each from 1 to 65535, not {ports!r}")
    # In any order, so that the drivers of one node do not all try the same first.
    return SystemRandom().sample(range(low, high + 1), high - low + 1)


def bind(main: Socket, addresses: Sequence[tuple[str, str]], ports: Sequence[int]) -> tuple[Address, ...]:
    """Listen on one port of all addresses; return them with it. Raises OSError if none is free."""
    for port in ports:
        if bound := _bind_all(main, addresses, port):
            return bound
    which = f"from {min(ports)} to {max(ports)}" if any(ports) else "at all"
    places = ", ".join(host for _, host in addresses)
    raise OSError(f"no port {which} is free on {places}: name others by `ports=(low, high)`")


def _bind_all(main: Socket, addresses: Sequence[tuple[str, str]], port: int) -> tuple[Address, ...]:
    import zmq

    bound: list[Address] = []
    for interface, host in addresses:
        address = Address(interface, host, port)
        try:
            port = _listen(main, address)
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                continue  # an address that is not ready yet, or a protocol that is switched off
            for each in bound:
                main.unbind(each.endpoint)
            return ()
        bound.append(address._replace(port=port))
    return tuple(bound)


def _listen(main: Socket, address: Address) -> int:
    import zmq

    main.set(zmq.IPV6, address.is_ipv6)
    main.bind(address.endpoint)
    return int(cast(bytes, main.get(zmq.LAST_ENDPOINT)).decode().rstrip("\0").rpartition(":")[2])
