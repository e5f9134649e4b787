"""The common part of both ends of the channel: a descriptor to wait for, closing, and safety in forked processes."""

from __future__ import annotations

import os
import selectors
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol

from .tls_connection import TlsConnection

__all__ = ["Endpoint", "PeerGone"]


class PeerGone(ConnectionError):
    """The other side cannot be reached any more: the process or the node ended, or the network between them."""


class Closable(Protocol):
    def close(self) -> None: ...


class Endpoint(ABC):
    """One end of the channel: its sockets, and one descriptor to wait for all of them.

    The descriptor is that of a selector, readable as long as a socket can be read, or written to if bytes wait.
    """

    def __init__(self) -> None:
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._reader, self._writer = os.pipe()  # keeps the descriptor readable for news that no socket has
        self._woken = False
        self._selector.register(self._reader, selectors.EVENT_READ)
        _ends.add(self)

    def fileno(self) -> int:
        """Return the descriptor to wait for; it is readable while there is something to receive, or to send."""
        return self._selector.fileno()  # type: ignore[attr-defined,no-any-return,unused-ignore]  # select() has none

    def _check(self) -> None:
        if self._closed:
            raise ValueError("this end of the channel is closed, or belongs to the process that forked this one")

    def _watch(self, connection: TlsConnection) -> None:
        """Wait for what the connection waits for now."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
        try:
            known = self._selector.get_key(connection).events
        except KeyError:
            self._selector.register(connection, events, connection)
        else:
            if known != events:
                self._selector.modify(connection, events, connection)

    def _drop(self, connection: TlsConnection) -> None:
        """Close a connection."""
        self._selector.unregister(connection)
        connection.close()

    def _wake(self) -> None:
        """Make the descriptor readable."""
        if not self._woken:
            self._woken = True
            os.write(self._writer, b"x")

    def _calm(self) -> None:
        if self._woken:
            self._woken = False
            os.read(self._reader, 1)

    def close(self) -> None:
        """End all connections, and drop the messages that have not been sent."""
        if not self._closed:
            self._closed = True
            _ends.discard(self)
            self._selector.close()  # without `unregister`, which in a forked child would change the parent's selector
            os.close(self._reader)
            os.close(self._writer)
            for each in self._sockets():
                each.close()

    @abstractmethod
    def _sockets(self) -> Iterable[Closable]:
        """Return all sockets of this end."""


# ------------------------------------------------------------------ forks

_ends: weakref.WeakSet[Endpoint] = weakref.WeakSet()


def _in_forked_child() -> None:
    """Close the child's copies of the parent's sockets: else the other sides would not notice the parent's end."""
    for end in list(_ends):
        end.close()


os.register_at_fork(after_in_child=_in_forked_child)
