"""Buffers that the peer has already: each crosses once, and is forgotten when nobody here has it any more."""

from __future__ import annotations

from contextlib import closing

import hypothesis.strategies as st
from hypothesis import given

from callyard.serialize.packed import Packed
from callyard.serialize.shared_memory import Memory, PrivateBytes, SegmentPool
from callyard.transport.agent_protocol import unwrap, wrap
from callyard.transport.sent_buffers import KeptBuffers, SentBuffers


def memory(segments: SegmentPool, content: bytes) -> Memory:
    filled = segments.fill(memoryview(content))
    assert filled is not None
    return filled


class Wire:
    """Both ends, and the buffers that have crossed."""

    def __init__(self) -> None:
        self.sent, self.kept, self.crossed = SentBuffers(), KeptBuffers(), 0

    def carry(self, memories: list[Memory]) -> list[bytes]:
        """Send one packed object with these buffers; return what arrives."""
        beside: list[Memory] = []
        body = wrap({}, [Packed(b"x", tuple(memories))], beside, self.sent)
        self.crossed += len(beside)
        # As the other process has them: copies.
        copies: list[Memory] = [PrivateBytes(bytes(each.read())) for each in beside]
        _, [packed] = unwrap(body, iter(copies), self.kept)
        return [bytes(each.read()) for each in packed.memories]

    def tell(self) -> None:
        self.kept.forget(self.sent.take_dropped())


@given(st.lists(st.tuples(st.sampled_from(["use", "drop", "tell"]), st.integers(0, 4), st.integers(0, 4)), max_size=40))
def test_each_buffer_crosses_once_in_its_life_and_arrives_as_it_is(steps):
    with closing(SegmentPool()) as segments:
        wire, there, born = Wire(), {}, 0
        for step, one, other in steps:
            if step == "use":
                for each in (one, other):
                    if each not in there:
                        there[each] = (memory(segments, b"%d" % born), False)
                        born += 1
                expected = [bytes(there[each][0].read()) for each in (one, other)]
                before, new = wire.crossed, sum(not there[each][1] for each in {one, other})
                assert wire.carry([there[each][0] for each in (one, other)]) == expected
                assert wire.crossed - before == new
                for each in (one, other):
                    there[each] = (there[each][0], True)
            elif step == "drop":
                there.pop(one, None)
            else:
                wire.tell()
        wire.tell()
        assert len(wire.kept._kept) == sum(crossed for _, crossed in there.values())
        there.clear()
        wire.tell()
        assert not wire.kept._kept


def test_private_memory_is_sent_each_time():
    wire, content = Wire(), PrivateBytes(b"abc")
    assert wire.carry([content]) == wire.carry([content]) == [b"abc"]
    assert wire.crossed == 2
    assert not wire.kept._kept
