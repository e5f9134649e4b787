"""The common part of both ends of the channel: a descriptor to wait for, closing, and safety in forked processes."""

from __future__ import annotations

import contextlib
import os
import selectors
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .curve_sockets import MonitoredSocket, Socket

__all__ = ["Endpoint", "PeerGone"]


class PeerGone(ConnectionError):
    """The other side cannot be reached any more: the process or the node ended, or was silent for too long."""


class Endpoint:
    """One end of the channel: a socket, the events of its connections, and one descriptor to wait for both.

    libzmq's own descriptor tells only of changes, and `send` takes in the changes as well as `receive`. So `Endpoint`
    has a descriptor of its own, an epoll or kqueue with a pipe beside, readable as long as there is something to
    receive.
    """

    def __init__(self, watched: MonitoredSocket, undo: contextlib.ExitStack, *others: Socket) -> None:
        """Take over a socket; `undo` closes all sockets."""
        self._watched, self._socket, self._undo = watched, watched.socket, undo
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._reader, self._writer = os.pipe()
        self._woken = False
        self._selector.register(self._reader, selectors.EVENT_READ)
        for each in (watched.socket, watched.news, *others):
            self._selector.register(each.FD, selectors.EVENT_READ)
        _ends.add(self)

    def fileno(self) -> int:
        """Return the descriptor to wait for; it is readable while there is something to receive."""
        return self._selector.fileno()  # type: ignore[attr-defined,no-any-return,unused-ignore]  # select() has none

    def _check(self) -> None:
        if self._closed:
            raise ValueError("this end of the channel is closed, or belongs to the process that forked this one")

    def _send(self, parts: Sequence[bytes | memoryview]) -> None:
        import zmq

        self._socket.send_multipart(parts, zmq.NOBLOCK)
        # Sending also takes in arrived messages, and then libzmq's descriptor says nothing of them.
        if cast(int, self._socket.EVENTS) & zmq.POLLIN:
            self._wake()

    def _wake(self) -> None:
        """Keep the descriptor readable, because libzmq's own does not tell twice of the remaining messages."""
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
            # Our own descriptors first: the selector must not keep descriptors that libzmq has closed.
            self._release()
            self._undo.close()

    def _release(self) -> None:
        """Close our own descriptors; libzmq closes its own."""
        self._closed = True
        self._selector.close()  # without `unregister`, which in a forked child would change the parent's selector
        os.close(self._reader)
        os.close(self._writer)
        _ends.discard(self)


# ------------------------------------------------------------------ forks

_ends: weakref.WeakSet[Endpoint] = weakref.WeakSet()
_inherited: list[Endpoint] = []


def _in_forked_child() -> None:
    """Let go of the parent's ends: libzmq's threads are not here, its locks may be held, the connections are shared."""
    for end in list(_ends):
        end._release()
        _inherited.append(end)  # for ever: not even the finalizers may run here


os.register_at_fork(after_in_child=_in_forked_child)
