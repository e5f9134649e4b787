"""Messages through a queue and a reader: nothing is lost, whatever the cuts, and small messages pass large ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import count
from struct import pack
from unittest import mock

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from callyard.serialize.shared_memory import PrivateBytes
from callyard.transport import channel_messages, message_reader
from callyard.transport.channel_messages import APART, MESSAGE, MOST_BUFFERS, PIECE, Message, SendQueue
from callyard.transport.message_reader import MessageReader

LARGE = 500  # instead of `APART`, where there are many examples
SIZES = st.sampled_from([0, 1, 100, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE])


def bytes_of(queue: SendQueue) -> Iterator[bytes]:
    """Yield what goes over the wire at once."""
    while (data := queue.head()) is not None:
        yield bytes(data)
        queue.sent(len(data))


def read(reader: MessageReader, data: bytes, most: int = 1 << 30) -> list[Message]:
    """Give bytes to a reader, at most so many at once."""
    messages = []
    while data and not reader.fault:
        space = reader.space()
        size = min(len(space), len(data), most)
        space[:size] = data[:size]
        messages += reader.take(size)
        data = data[size:]
    return messages


def contents(messages: Iterable[Message]) -> list[tuple[bytes, list[bytes]]]:
    return [(each.head, [bytes(memory.read()) for memory in each.beside]) for each in messages]


@settings(max_examples=60, deadline=None)
@given(
    said=st.lists(st.tuples(st.booleans(), st.lists(SIZES, max_size=3)), max_size=6),
    gone=st.lists(st.integers(0, 5), max_size=6),
    cut=st.integers(1, 3 * LARGE),
    piece=st.sampled_from([100, LARGE, 2 * LARGE + 1]),
)
def test_all_messages_arrive_and_each_kind_in_its_order(
    said: list[tuple[bool, list[int]]], gone: list[int], cut: int, piece: int
) -> None:
    """Before each message so many parts of the earlier ones have gone."""
    numbers, queue, wire = count(), SendQueue(), bytearray()
    sent: dict[bool, list[Message]] = {False: [], True: []}
    with ExitStack() as changed:
        changed.enter_context(mock.patch.object(channel_messages, "LARGEST_PIECE", piece))
        for module in (channel_messages, message_reader):
            changed.enter_context(mock.patch.object(module, "APART", LARGE))
        for (bulk, sizes), before in zip(said, [*gone, *[0] * 6], strict=False):
            for _ in range(before):
                if (head := queue.head()) is not None:
                    wire += bytes(head)[:cut]
                    queue.sent(min(len(head), cut))
            number = next(numbers)
            message = Message(MESSAGE, b"%d" % number, [PrivateBytes(bytes([number]) * size) for size in sizes])
            queue.add(message, bulk)
            sent[bulk].append(message)
        wire += b"".join(bytes_of(queue))
        got = contents(read(MessageReader(), bytes(wire), cut))
    assert sorted(got) == sorted(contents(sent[False] + sent[True]))
    for bulk in (False, True):
        expected = contents(sent[bulk])
        assert [each for each in got if each in expected] == expected


def test_small_messages_pass_a_large_one_after_each_piece() -> None:
    """Not by time: each waits for the piece that has its turn, and for nothing else."""
    queue, reader = SendQueue(), MessageReader()
    queue.add(Message(MESSAGE, b"large", [PrivateBytes(bytes(20 << 20))]), bulk=True)
    parts, got = 0, list[Message]()
    while (head := queue.head()) is not None:
        data = bytes(head)
        assert len(data) <= channel_messages.LARGEST_PIECE
        if data[0] == PIECE:
            parts += 1
            queue.add(Message(MESSAGE, b"small"), bulk=False)  # while a piece goes
        queue.sent(len(data))
        got += read(reader, data)
    assert [each.head for each in got] == [b"small"] * (parts - 1) + [b"large", b"small"]
    assert parts == 21  # the head of the message, and the buffer


def test_a_settled_order_holds_where_all_is_bulk() -> None:
    queue = SendQueue()
    for number in range(3):
        queue.add(Message(MESSAGE, b"%d" % number, [PrivateBytes(bytes(APART * number))]), bulk=True)
    got = read(MessageReader(), b"".join(bytes_of(queue)))
    assert [each.head for each in got] == [b"0", b"1", b"2"]


def test_what_waits_takes_no_memory_of_its_own() -> None:
    """A hundred messages with one buffer are a hundred references to it."""
    memory = PrivateBytes(bytes(1 << 20))
    queue = SendQueue()
    for _ in range(100):
        queue.add(Message(MESSAGE, b"call", [memory]), bulk=True)
    waiting = [data for data, _ in queue._bulk]
    assert sum(len(data) for data in waiting if not isinstance(data, memoryview)) < 10_000
    assert {id(data.obj) for data in waiting if isinstance(data, memoryview)} == {id(memory.bytes)}


def test_memory_for_buffers_of_the_bulk_is_what_the_owner_says_later() -> None:
    """The first pieces may come before it does."""
    queue, reader, asked = SendQueue(), MessageReader(), list[int]()
    for number in range(2):
        queue.add(Message(MESSAGE, b"", [PrivateBytes(bytes(APART + number))]), bulk=True)
    wire = b"".join(bytes_of(queue))
    read(reader, wire[:10])
    reader.reserve = lambda size: asked.append(size)
    assert len(read(reader, wire[10:])) == 2
    assert asked == [APART, APART + 1]


def piece(content: bytes) -> bytes:
    return pack("<BIQ", PIECE, 0, len(content)) + content


@pytest.mark.parametrize(
    ("garbage", "words"),
    [
        (pack("<BIQ", MESSAGE, MOST_BUFFERS + 1, 0), f"a message with {MOST_BUFFERS + 1} buffers came"),
        (pack("<BIQQ", MESSAGE, 1, 0, 1 << 62), "no memory is left here for a buffer of"),
        (piece(b"x"), "a piece came within a piece"),
    ],
)
@pytest.mark.parametrize("most", [1, 1 << 30])
def test_messages_before_garbage_count_and_none_behind_it(garbage: bytes, words: str, most: int) -> None:
    before = b"".join(bytes(data) for data, _ in channel_messages.encode(Message(MESSAGE, b"before")))
    reader = MessageReader()
    got = read(reader, piece(before) + before + piece(garbage) + before, most)
    assert [each.head for each in got] == [b"before", b"before"]
    assert words in reader.fault
