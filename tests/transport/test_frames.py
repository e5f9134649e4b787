"""Frames: any cut of the stream gives the same ones, and descriptors stay with theirs."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import socket
from collections import deque

import hypothesis.strategies as st
import pytest
from hypothesis import given

from callyard.transport import frames
from callyard.transport.frames import (
    CALL,
    FREE,
    FrameReader,
    FrameTooLarge,
    GarbledFrame,
    encode,
    encode_numbers,
    encode_object,
    receive,
    send_with_descriptors,
)

MARK = frames.MARK.to_bytes(2, "little")

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
                for fd in reader.take(group):  # those of a whole frame are there
                    os.close(fd)
    assert arrived == groups


def test_as_many_descriptors_as_one_message_takes(pair, files):
    left, right = pair
    reader = FrameReader()
    frame = encode(CALL, body=b"x" * 300)
    assert send_with_descriptors(left, frame, files) == len(frame)
    assert len(list(reader.feed(receive(right, reader)))) == 1
    assert [content(fd) for fd in reader.take(len(files))] == list(range(len(files)))


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
    assert [content(fd) for count in (2, 3) for fd in reader.take(count)] == [0, 1, 2, 3, 4]


@pytest.mark.needs("linux")
def test_a_program_that_is_started_does_not_inherit_what_arrived(pair, files):
    left, right = pair
    reader = FrameReader()
    send_with_descriptors(left, encode(CALL), files[:1])
    receive(right, reader)
    [fd] = reader.take(1)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_the_end_of_the_stream_is_empty(pair):
    left, right = pair
    left.close()
    assert receive(right, FrameReader()) == b""


@contextlib.contextmanager
def only_more_descriptors(count: int):
    """This process may open so many more files, as long as none is closed."""
    free, soft_and_hard = os.open("/dev/null", os.O_RDONLY), resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(free) for _ in range(count)]
    highest = max(map(int, os.listdir("/dev/fd")))
    filled = [free]
    while filled[-1] < highest:
        filled.append(os.dup(free))
    resource.setrlimit(resource.RLIMIT_NOFILE, (filled[-1] + 1, soft_and_hard[1]))
    for fd in taken:
        os.close(fd)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, soft_and_hard)
        for fd in filled:
            os.close(fd)


@pytest.mark.needs("linux")
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=6), room=st.integers(0, 12))
def test_descriptors_for_which_there_is_no_room_are_missed_and_the_others_stay_with_their_frames(counts, room):
    left, right = socket.socketpair()
    with left, right, open("/dev/null") as null:
        for count in counts:
            send_with_descriptors(left, encode(CALL, count), [null.fileno()] * count)
        left.shutdown(socket.SHUT_WR)
        reader, expected = FrameReader(), room
        with only_more_descriptors(room):
            frames_there = []
            while data := receive(right, reader):
                frames_there += list(reader.feed(data))
        for count, frame in zip(counts, frames_there, strict=True):
            taken = reader.take(count)
            assert frame[1] == count
            assert taken is None if count > expected else len(taken) == count
            expected = max(0, expected - count)  # what came of others is kept until their frames are looked at
            for fd in taken or ():
                os.close(fd)


def test_descriptors_of_which_no_frame_speaks_are_closed(pair, files):
    left, right = pair
    before = len(os.listdir("/dev/fd"))
    reader = FrameReader()
    send_with_descriptors(left, encode(CALL), files[:3])
    receive(right, reader)
    reader.close()
    assert len(os.listdir("/dev/fd")) == before


# ------------------------------------------------------------------ what is not ours


@given(some_frames, st.binary(min_size=frames.HEAD.size, max_size=100).filter(lambda x: not x.startswith(MARK)))
def test_what_is_no_frame_is_an_error_and_not_waited_for(sent, rubbish):
    reader = FrameReader()
    got = []
    with pytest.raises(GarbledFrame, match="something else has written to the stream"):
        for frame in reader.feed(b"".join(encode(*frame) for frame in sent) + rubbish):
            got.append(frame)  # noqa: PERF402  # what came before the error counts
    assert got == sent


@given(st.binary(max_size=200))
def test_any_bytes_end_in_frames_or_in_one_kind_of_error(data):
    reader = FrameReader()
    with contextlib.suppress(GarbledFrame):
        list(reader.feed(data))
        assert reader._needed <= frames.HEAD.size or data.startswith(MARK)  # nothing large is waited for


def test_a_head_that_says_less_than_itself_is_an_error():
    with pytest.raises(GarbledFrame):
        list(FrameReader().feed(frames.HEAD.pack(frames.MARK, 3, CALL, 0, 0, 0)))


def test_what_no_head_can_say_is_refused(monkeypatch):
    monkeypatch.setattr(frames, "LARGEST", 1000)
    with pytest.raises(FrameTooLarge, match=r"cannot be sent at once.*ulimit -n"):
        encode(CALL, body=bytes(1001))


def test_descriptors_that_should_be_there_are_missed():
    with pytest.raises(GarbledFrame, match="not there"):
        FrameReader().take(1)
