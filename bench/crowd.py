"""Nodes without anything behind them: one process that answers a driver's calls as many agents would.

`python -m bench.crowd CONTACT CORES MICROSECONDS NODE...`: each node has a connection of its own and says that its
calls took so many microseconds; it does not run them. So the driver does all that it does for real nodes, and what is
measured of its process is its work alone.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import sys
from functools import partial
from typing import Any

from callyard.serialize.packer import Packer
from callyard.serialize.shared_memory import SegmentPool
from callyard.system.descriptors import make_room
from callyard.transport import agent_protocol, frames
from callyard.transport.channel import Link
from callyard.transport.contact_file import Contact
from callyard.version import VERSION

HOLD, GO_ON = signal.SIGUSR1, signal.SIGUSR2  # say nothing more, but be there; and the end of that


class Pretender:
    """The agent of one node, as far as its driver can tell."""

    def __init__(self, contact: Contact, node: str, cores: int, answer: Answer) -> None:
        self._node, self._cores, self._answer = node, cores, answer
        self._link = Link.connect(contact, timeout=120.0)
        self._link.send(agent_protocol.json_frame(agent_protocol.HELLO, self._hello()))

    def fileno(self) -> int:
        return self._link.fileno()

    def take_in(self) -> None:
        """Answer what has come."""
        for message in self._link.receive():
            if said := self._answer(message.head):
                self._link.send(said)

    def _hello(self) -> dict[str, Any]:
        return {
            "node": self._node,
            "host": "nowhere",
            "pid": os.getpid(),
            "callyard": VERSION,
            "python": list(sys.version_info[:2]),
            "capacity": [self._cores, [], 1 << 36],
        }


class Answer:
    """What a node answers to a message: that each call has ended, and returned None."""

    def __init__(self, microseconds: int) -> None:
        nothing = Packer(SegmentPool()).pack(None).data
        assert nothing is not None
        self._result = partial(frames.encode, agent_protocol.RESULT, number=microseconds, body=nothing)

    def __call__(self, message: bytes) -> bytes:
        said: list[bytes] = []
        for kind, sequence, *_ in agent_protocol.split_frames(message):
            if kind == agent_protocol.CALL:
                said.append(self._result(sequence))
            elif kind == agent_protocol.TAKE_BACK:
                said.append(agent_protocol.json_frame(agent_protocol.TAKEN_BACK))
            elif kind == agent_protocol.END:
                said.append(agent_protocol.json_frame(agent_protocol.ENDED))
        return b"".join(said)


def hold(*_: object) -> None:
    """Until the driver says so, or is gone."""
    while signal.sigtimedwait([GO_ON], 0.5) is None:
        if select.select([0], [], [], 0)[0]:
            os._exit(1)


def main(contact: str, cores: str, microseconds: str, *nodes: str) -> None:
    """Until standard input ends, which is the end of the driver."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [GO_ON])
    signal.signal(HOLD, hold)
    make_room(5 * len(nodes))  # descriptors of each: a socket, a selector, and the pipe in it
    answer, found = Answer(int(microseconds)), Contact.read(contact)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    for node in nodes:
        pretender = Pretender(found, node, int(cores), answer)
        selector.register(pretender.fileno(), selectors.EVENT_READ, pretender.take_in)
        pretender.take_in()
    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                os._exit(0)  # at once: nobody waits for what is left
            key.data()


if __name__ == "__main__":
    main(*sys.argv[1:])
