"""Sockets that listen on one port of several addresses."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence
from random import SystemRandom

from .contact_file import Address

__all__ = ["candidates_of", "listen"]

_BACKLOG = 1024  # a thousand agents may come at once


def candidates_of(ports: tuple[int, int] | None) -> Sequence[int]:
    """Return the ports to be tried; 0 stands for any free port."""
    if ports is None:
        return [0] * 100  # a port that is free on the first address may be taken on another
    low, high = ports
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"ports is (lowest, highest), each from 1 to 65535, not {ports!r}")
    # In random order, so that the drivers of one node do not all try the same port first.
    return SystemRandom().sample(range(low, high + 1), high - low + 1)


def listen(addresses: Sequence[tuple[str, str]], ports: Sequence[int]) -> dict[Address, socket.socket]:
    """Listen on one port of all addresses.

    Args:
        addresses: (interface, address in digits).
        ports: the ports to be tried.

    Raises:
        OSError: no port is free on all of them.
    """
    for port in ports:
        if found := _listen_on_all(addresses, port):
            return found
    which = f"from {min(ports)} to {max(ports)}" if any(ports) else "at all"
    places = ", ".join(host for _, host in addresses)
    raise OSError(f"no port {which} is free on {places}: name others by `ports=(low, high)`")


def _listen_on_all(addresses: Sequence[tuple[str, str]], port: int) -> dict[Address, socket.socket]:
    """Listen on one port of all addresses; return nothing if the port is taken on one of them."""
    found: dict[Address, socket.socket] = {}
    with contextlib.ExitStack() as undo:
        for interface, host in addresses:
            try:
                sock = undo.enter_context(_listen(host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return {}
                continue  # an address that is not ready yet, or a protocol that is switched off
            port = sock.getsockname()[1]
            found[Address(interface, host, port)] = sock
        undo.pop_all()
    return found


def _listen(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
