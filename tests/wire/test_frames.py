"""Frames: any cut of the stream gives the same ones, and descriptors stay with theirs."""

from __future__ import annotations

import os
import pickle
import socket
from collections import deque

import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock.wire import frames
from penstock.wire.frames import (
    CALL,
    FREE,
    FrameReader,
    encode,
    encode_numbers,
    encode_object,
    receive,
    send_with_descriptors,
)

counts = st.integers(0, 2**32 - 1)
some_frames = st.lists(
    st.tuples(st.integers(1, 10), counts, counts, st.integers(0, 255), st.binary(max_size=50)), max_size=8
)


@given(some_frames, st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(sent, data):
    stream = b"".join(encode(*frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader = FrameReader()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += list(reader.feed(stream[start:end]))
    assert got == sent


def test_byte_by_byte():
    sent = [(CALL, 1, 2, 3, b"body"), (FREE, 0, 0, 0, b"")]
    reader = FrameReader()
    stream = b"".join(encode(*frame) for frame in sent)
    assert [frame for i in range(len(stream)) for frame in reader.feed(stream[i : i + 1])] == sent


def test_a_frame_is_whole_or_not_there():
    reader = FrameReader()
    frame = encode(CALL, body=b"x" * 100)
    assert list(reader.feed(frame[:-1])) == []
    assert list(reader.feed(frame[-1:] + frame[:5])) == [(CALL, 0, 0, 0, b"x" * 100)]
    assert list(reader.feed(frame[5:])) == [(CALL, 0, 0, 0, b"x" * 100)]


def test_a_large_frame_is_not_copied_for_each_piece(monkeypatch):
    """It comes in thousands of pieces: to join them all each time would take time with their square."""
    looked = []
    head = frames.HEAD

    class Head:
        size = head.size

        @staticmethod
        def unpack_from(data: bytes, place: int) -> tuple[int, ...]:
            looked.append(len(data))
            return head.unpack_from(data, place)

    body = b"x" * 1_000_000
    stream = encode(CALL, body=body)
    monkeypatch.setattr(frames, "HEAD", Head)
    reader = FrameReader()
    got = [f for i in range(0, len(stream), 1000) for f in reader.feed(stream[i : i + 1000])]
    assert [frame[4] for frame in got] == [body]
    assert len(looked) == 2


def test_objects_and_numbers():
    [(kind, sequence, _, flags, body)] = FrameReader().feed(encode_object(CALL, {"a": 1}, 7))
    assert (kind, sequence, flags, pickle.loads(body)) == (CALL, 7, frames.PACKED, {"a": 1})
    numbers = deque([3, 1, 2])
    [(kind, *_, body)] = FrameReader().feed(encode_numbers(FREE, numbers))
    assert (kind, pickle.loads(body), list(numbers)) == (FREE, [3, 1, 2], [])


# ------------------------------------------------------------------ descriptors


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def files(tmp_path):
    """Files with their numbers in them, and which of them a descriptor is."""
    fds = []
    for i in range(frames.MOST_DESCRIPTORS):
        path = tmp_path / str(i)
        path.write_text(str(i))
        fds.append(os.open(path, os.O_RDONLY))
    yield fds
    for fd in fds:
        os.close(fd)


def content(fd: int) -> int:
    with open(fd, closefd=True) as file:
        file.seek(0)
        return int(file.read())


@given(st.data())
def test_descriptors_arrive_in_the_order_of_the_frames_that_own_them(data):
    groups = data.draw(st.lists(st.integers(0, 3), max_size=6))
    size = data.draw(st.integers(1, 40))
    left, right = socket.socketpair()
    with left, right:
        for group in groups:
            fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(group)]
            frame = encode(CALL, group, body=b"b" * 10)
            sent = send_with_descriptors(left, frame, fds)
            assert sent == len(frame)
            for fd in fds:
                os.close(fd)
        left.shutdown(socket.SHUT_WR)
        reader = FrameReader()
        reader.buffer = bytearray(size)
        arrived = []
        while part := receive(right, reader):
            for _, group, *_ in reader.feed(part):
                arrived.append(group)
                for _ in range(group):
                    os.close(reader.descriptors.popleft())  # those of a whole frame are there
    assert arrived == groups
    assert not reader.descriptors


def test_as_many_descriptors_as_one_message_takes(pair, files):
    left, right = pair
    reader = FrameReader()
    frame = encode(CALL, body=b"x" * 300)
    assert send_with_descriptors(left, frame, files) == len(frame)
    assert len(list(reader.feed(receive(right, reader)))) == 1
    assert [content(fd) for fd in reader.descriptors] == list(range(len(files)))


def test_two_messages_keep_the_order_of_their_descriptors(pair, files):
    left, right = pair
    reader = FrameReader()
    send_with_descriptors(left, encode(CALL, 1), files[:2])
    send_with_descriptors(left, encode(CALL, 2), [])
    send_with_descriptors(left, encode(CALL, 3), files[2:5])
    left.shutdown(socket.SHUT_WR)
    got = []
    while data := receive(right, reader):
        got += list(reader.feed(data))
    assert [frame[1] for frame in got] == [1, 2, 3]
    assert [content(fd) for fd in reader.descriptors] == [0, 1, 2, 3, 4]


@pytest.mark.needs("linux")
def test_a_program_that_is_started_does_not_inherit_what_arrived(pair, files):
    left, right = pair
    reader = FrameReader()
    send_with_descriptors(left, encode(CALL), files[:1])
    receive(right, reader)
    [fd] = reader.descriptors
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_the_end_of_the_stream_is_empty(pair):
    left, right = pair
    left.close()
    assert receive(right, FrameReader()) == b""
