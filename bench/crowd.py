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
from collections.abc import Sequence
from functools import partial
from typing import Any

from callyard.serialize.packer import Packer
from callyard.serialize.shared_memory import SegmentPool
from callyard.system.descriptors import make_room
from callyard.transport import agent_protocol, curve_connect, frames
from callyard.transport.contact_file import Contact
from callyard.transport.curve_sockets import next_of
from callyard.transport.multipart import cut, join, kind_of
from callyard.version import VERSION

HOLD, GO_ON = signal.SIGUSR1, signal.SIGUSR2  # say nothing more, but be there; and the end of that


class Pretender:
    """The agent of one node, as far as its driver can tell."""

    def __init__(self, context: Any, contact: Contact, node: str, cores: int, answer: Answer) -> None:
        import zmq

        self._node, self._cores, self._answer = node, cores, answer
        self._socket: Any = context.socket(zmq.DEALER)
        for option, value in {
            zmq.LINGER: 0,
            zmq.SNDHWM: 0,
            zmq.RCVHWM: 0,
            zmq.CURVE_SERVERKEY: contact.server_key.encode(),
            zmq.CURVE_PUBLICKEY: contact.client_key.encode(),
            zmq.CURVE_SECRETKEY: contact.client_secret.encode(),
        }.items():
            self._socket.set(option, value)
        self._socket.connect(contact.addresses[0].endpoint)
        self._socket.send_multipart(cut(curve_connect.HELLO, ()))

    def fileno(self) -> int:
        return self._socket.FD  # type: ignore[no-any-return]

    def take_in(self) -> None:
        """Answer what has come: all of it, since libzmq tells again only after it was asked in vain."""
        while parts := next_of(self._socket):
            kind = kind_of(parts[0])
            if kind == curve_connect.WELCOME:
                self._send([agent_protocol.json_frame(agent_protocol.HELLO, self._hello())])
            elif kind == curve_connect.MESSAGE and (said := self._answer(join(parts)[0])):
                self._send([said])

    def _send(self, message: Sequence[bytes]) -> None:
        self._socket.send_multipart(cut(curve_connect.MESSAGE, message))

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
    import zmq

    signal.pthread_sigmask(signal.SIG_BLOCK, [GO_ON])
    signal.signal(HOLD, hold)
    make_room(2 * len(nodes))  # descriptors of each
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, len(nodes) + 10)
    answer, found = Answer(int(microseconds)), Contact.read(contact)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    for node in nodes:
        pretender = Pretender(context, found, node, int(cores), answer)
        selector.register(pretender.fileno(), selectors.EVENT_READ, pretender.take_in)
        pretender.take_in()
    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                os._exit(0)  # at once: nobody waits for what is left
            key.data()


if __name__ == "__main__":
    main(*sys.argv[1:])
