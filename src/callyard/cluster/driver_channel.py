"""The driver's end of the encrypted channel, and the contact file by which agents find it, from the first need on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING

from ..system.descriptors import make_room
from ..system.process_identity import may_live, this_process
from ..transport.agent_protocol import Outgoing
from ..transport.channel_messages import Message
from ..transport.event_loop import EventLoop
from ..transport.message_reader import Reserve
from .base import ListenSettings

if TYPE_CHECKING:
    from ..transport.channel import Listener  # loaded by the first call, as that loads TLS

__all__ = ["DriverChannel"]

_LIVE = "live-"  # the beginning of the names of drivers' directories
_MOST_NODES = 4096  # each with a connection, and thereby a descriptor
_SILENCE = 20.0  # s without a sign of life after which a node counts as gone


class DriverChannel:
    """The channel to all agents and ranks of one driver. Only the I/O thread of the driver uses it."""

    def __init__(self, settings: ListenSettings, reserve: Reserve) -> None:
        """Make the channel, which listens only after `open`; `reserve` returns memory for large buffers."""
        self._settings, self._reserve = settings, reserve
        self._listener: Listener | None = None
        self._directory: str | None = None
        self._loop: EventLoop | None = None  # once agents may come

    @property
    def contact(self) -> str:
        """The path of the contact file."""
        return os.path.join(self._directory or "", "contact")

    @property
    def addresses(self) -> str:
        """The addresses at which the driver listens, for people; empty before that."""
        return "" if self._listener is None else ", ".join(map(str, self._listener.contact.addresses))

    @property
    def behind(self) -> bool:
        """True if messages have come that are not read yet: then this driver is the slow one."""
        return self._listener is not None and self._listener.behind

    def open(self, loop: EventLoop, on_readable: Callable[[int], object]) -> str:
        """Listen, on the first call; return the path of the contact file.

        Raises:
            OSError, ValueError: the addresses or the directory cannot be used.
        """
        if self._listener is not None:
            return self.contact
        from ..transport.channel import Listener

        make_room(_MOST_NODES)
        directory, interface, ports = self._settings
        listener = Listener(interface, ports, silence=_SILENCE, reserve=self._reserve)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            _remove_left(directory)
            # The name has this process's identity, by which a later driver recognizes a directory left behind.
            prefix = f"{_LIVE}{this_process().label}~"
            self._directory = tempfile.mkdtemp(prefix=prefix, dir=directory)
            listener.contact.write(self.contact)
        except BaseException:
            listener.close()
            raise
        # Last: agents cannot exist before the file, and an error above leaves nothing open.
        self._listener, self._loop = listener, loop
        loop.watch(listener.fileno(), on_readable)
        return self.contact

    def send(self, peer: int, messages: Iterable[Outgoing]) -> None:
        """Send messages; those to a peer that is gone are dropped, as `receive` tells of its end."""
        from ..transport.channel import PeerGone

        if self._listener is not None:
            with contextlib.suppress(PeerGone):
                for message in messages:
                    self._listener.send(peer, *message)

    def receive(self) -> list[tuple[int, Message | None]]:
        """Return the arrived messages, each with its peer, and None behind the last message of a peer.

        The peers come in the order of their connecting. An agent that has connected again is a second peer, and the
        messages of the first count before its new HELLO.
        """
        return [] if self._listener is None else sorted(self._listener.receive(), key=itemgetter(0))

    def last_messages(self, peer: int) -> list[Message]:
        """Return the messages that have come from this peer and were not read yet, and end its connection."""
        return [] if self._listener is None else self._listener.finish(peer)

    def next_look(self, waiting: bool) -> float | None:
        """Return the time at which `receive` is to be called though nothing is readable; see `Listener`."""
        return None if self._listener is None else self._listener.next_look(waiting)

    def wake(self) -> None:
        """Let the I/O thread look for news. Any thread may call this."""
        if self._loop is not None:
            self._loop.wake()

    def close(self, loop: EventLoop) -> None:
        """End all connections, and remove the contact file."""
        if self._listener is not None:
            loop.forget(self._listener.fileno())
            self._listener.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


def _remove_left(directory: str) -> None:
    """Remove directories of drivers that are provably gone; a process number alone proves nothing."""
    for name in os.listdir(directory):
        if name.startswith(_LIVE) and not may_live(name.removeprefix(_LIVE).rpartition("~")[0]):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
