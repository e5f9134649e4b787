"""What the driver makes of what the ranks of one call say, whichever of them speaks first."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator

import pytest

from callyard.futures import Future
from callyard.pool.call import Call, CallDurations, CallPlan
from callyard.pool.call_shape import WorkerShape
from callyard.pool.mpi_group import RankGroup
from callyard.pool.worker import Worker
from callyard.pool.worker_connection import WorkerConnection
from callyard.serialize.packer import Packed, Packer
from callyard.serialize.shared_memory import SegmentPool
from callyard.transport.frames import RANK, RESULT, STRAY, encode

PAIR = WorkerShape(cores=2, ranks=2)


class Group:
    """The driver's end of two ranks, and what each of them would say."""

    def __init__(self) -> None:
        self.segments = SegmentPool()
        nobody = lambda *_: None  # noqa: E731
        self.driver = RankGroup(Worker(1, PAIR, ()), Packer(self.segments), nobody, nobody)
        self.streams: list[socket.socket] = []
        self.connections: list[WorkerConnection] = []
        for rank in range(2):
            stream = socket.socket(socket.AF_UNIX)
            stream.connect(self.driver.address)
            self.streams.append(stream)
            connection = self.driver.accept()
            assert connection is not None
            self.connections.append(connection)
            self.say(rank, encode(RANK, 0, rank))

    def say(self, rank: int, frame: bytes) -> list[object]:
        self.streams[rank].sendall(frame)
        connection = self.connections[rank]
        return [packed.load() for _, packed, _ in self.driver.take_frames(connection, connection.receive())]

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        self.driver.close()
        self.segments.close()


@pytest.fixture
def group() -> Iterator[Group]:
    group = Group()
    yield group
    group.close()


def result(value: object, flags: int = 0) -> bytes:
    return encode(RESULT, 1, 0, flags, pickle.dumps(value))


@pytest.mark.parametrize("first", [0, 1])
def test_a_message_is_left_and_every_rank_is_heard(group: Group, first: int) -> None:
    """The rank that has the message may be done long before the other one."""
    call = Call(Future(), None, Packed(b""), CallPlan(PAIR), CallDurations(), 0)
    group.driver.send([call])
    flags = {1: STRAY}
    assert group.say(first, result(first, flags.get(first, 0))) == []
    assert not group.driver.must_end
    other = 1 - first
    assert group.say(other, result(other, flags.get(other, 0))) == [[0, 1]]
    assert group.driver.must_end


def test_nothing_is_left(group: Group) -> None:
    group.driver.send([Call(Future(), None, Packed(b""), CallPlan(PAIR), CallDurations(), 0)])
    group.say(0, result(0))
    assert group.say(1, result(1)) == [[0, 1]]
    assert not group.driver.must_end
