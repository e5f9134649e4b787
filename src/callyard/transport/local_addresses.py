"""The addresses of this machine, which the standard library cannot list."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator

__all__ = ["find_addresses"]

_UP = 1  # IFF_UP
_AT_END = 1  # sorts after 0, which is False


class _IfAddrs(ctypes.Structure):
    """The head of a `struct ifaddrs`, which is the same on Linux and macOS."""

    _fields_ = (
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("flags", ctypes.c_uint),
        ("address", ctypes.c_void_p),
    )


def find_addresses(interface: str | None = None) -> list[tuple[str, str]]:
    """Return (interface, address) of each interface that is up: IPv4 and IPv6, in the system's order, loopback last.

    Link-local addresses (`fe80::...`) are left out, because on another machine they lead to another link.

    Args:
        interface: the only interface to list, by its name in the system or one of its addresses; default: all.

    Raises:
        ValueError: there is no such interface.
    """
    found = [pair for pair in _list_all() if not _only_on_its_link(pair[1])]
    chosen = [pair for pair in found if interface is None or interface in pair]
    if not chosen:
        there = ", ".join(dict.fromkeys(name for name, _ in found)) or "none"
        raise ValueError(f"there is no network interface {interface!r} with an address here; there is {there}")
    return sorted(chosen, key=lambda pair: ipaddress.ip_address(pair[1]).is_loopback and _AT_END)


def _only_on_its_link(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.version == 6 and parsed.is_link_local


def _list_all() -> list[tuple[str, str]]:
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_IfAddrs)()
    if libc.getifaddrs(ctypes.byref(first)):
        raise OSError(ctypes.get_errno(), f"cannot list the addresses here: {os.strerror(ctypes.get_errno())}")
    try:
        return list(_walk(ctypes.cast(first, ctypes.c_void_p).value))
    finally:
        libc.freeifaddrs(first)


def _walk(place: int | None) -> Iterator[tuple[str, str]]:
    while place:
        entry = _IfAddrs.from_address(place)
        if entry.flags & _UP and entry.address and (address := _read(entry.address)):
            yield os.fsdecode(entry.name), address
        place = entry.next


def _read(place: int) -> str | None:
    """Return the address in a `struct sockaddr` as text, None for an address of another kind."""
    family = int.from_bytes(ctypes.string_at(place, 2), sys.byteorder)
    if sys.platform == "darwin":
        family = ctypes.string_at(place, 2)[1]  # on macOS the length of the structure stands before the family
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, ctypes.string_at(place + 4, 4))
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, ctypes.string_at(place + 8, 16))
    return None
