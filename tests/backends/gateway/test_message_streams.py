"""The stream between driver and gateway: small messages pass large ones, and no half of a content ever counts."""

from __future__ import annotations

import errno
import io
import os
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callyard.backends.gateway import disk_memory, message_streams, protocol
from callyard.backends.gateway.contents import ContentFiles, ContentSink, FileCopies, FileSource
from callyard.backends.gateway.disk_memory import DiskSink, on_disk
from callyard.backends.gateway.message_streams import (
    MOST,
    Announced,
    BytesSource,
    LargeMessage,
    MessageReader,
    MessageWriter,
    Piece,
    Sink,
    SourceLost,
    in_memory,
)
from callyard.backends.gateway.protocol import ContentName, Message, WantedContent
from callyard.cache import incoming_content
from callyard.cache.directory import CacheDirectory
from callyard.hashing.files import File, content_name
from callyard.serialize.shared_memory import BorrowedSegment, PrivateBytes
from callyard.transport.frames import HEAD, MARK, GarbledFrame


def content_message(data: bytes, name: str, start: int = 0) -> LargeMessage:
    wanted = WantedContent(ContentName(True, name, "a.dat"), start)
    return LargeMessage(protocol.CONTENT, 0, wanted, [BytesSource(data, start)])


def stream_of(*messages: LargeMessage | tuple[int, int, Any]) -> bytes:
    """Return the bytes that a writer sends."""
    reading, writing = os.pipe()
    writer = MessageWriter(writing)
    for message in messages:
        if isinstance(message, LargeMessage):
            writer.put_large(lambda message=message: message)  # type: ignore[misc]
        else:
            writer.put(*message)
    writer.close()
    thread = threading.Thread(target=writer.run, args=(lambda: True,))
    with open(reading, "rb") as stream:
        thread.start()
        os.set_blocking(writing, False)
        closer = threading.Thread(target=lambda: (thread.join(), os.close(writing)))
        closer.start()
        data = stream.read()
        closer.join()
    return data


def received(data: bytes, sinks: Any = in_memory) -> list[Message]:
    reader = MessageReader(io.BytesIO(data), sinks)
    return list(iter(reader.read, None))


# ------------------------------------------------------------------ whole or absent


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory, in which smaller halves than usual stay."""
    with tempfile.TemporaryDirectory() as path, pytest.MonkeyPatch.context() as patched:
        patched.setattr(incoming_content, "_WORTH_KEEPING", 1000)
        yield Path(path)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_content_is_whole_or_absent(place: Path, data: st.DataObject) -> None:
    """Whatever the sizes, wherever the link is cut, and however often the content is sent."""
    with tempfile.TemporaryDirectory(dir=place) as path:
        size = data.draw(
            st.sampled_from([0, 1, 4095, 16384, MOST - 1, MOST, MOST + 1, 2 * MOST]) | st.integers(0, 3 * MOST)
        )
        text = (os.urandom(1) * size)[:size]
        (Path(path) / "a.dat").write_bytes(text)
        name = content_name(File(Path(path) / "a.dat"))
        copies = FileCopies(CacheDirectory.open(Path(path) / "there"))
        wanted = protocol.SentFile(name, "a.dat")
        for _ in range(data.draw(st.integers(1, 4))):
            start = copies.received(name) if data.draw(st.booleans()) else 0
            sent = stream_of(content_message(text, name, start), (protocol.NEWS, 0, [1]))
            there = take_in(sent[: data.draw(st.integers(0, len(sent)))], copies)
            assert (copies.missing([wanted]) == []) is there
            if there:
                assert Path(copies.find(name, "a.dat")).read_bytes() == text
                break
        start = copies.received(name)
        assert take_in(stream_of(content_message(text, name, start)), copies)
        assert Path(copies.find(name, "a.dat")).read_bytes() == text
        assert not list(Path(path).glob("there/files/.tmp-*"))


def take_in(data: bytes, copies: FileCopies) -> bool:
    """Take in a stream, and return whether the content was among its messages."""

    def sinks(message: Announced) -> Sequence[Sink]:
        (_, name, _), start = message.content
        return [ContentSink(partial(copies.incoming, name), start)]

    for message in received(data, sinks):
        if message.kind == protocol.CONTENT:
            assert message.buffers[0].accepted(partial(copies.accept, message.content.name.own)) == ""
            return True
    return False


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 3 * MOST), max_size=4), smalls=st.integers(0, 3))
def test_all_messages_arrive_whole_and_small_ones_in_order(sizes: list[int], smalls: int) -> None:
    buffers = [os.urandom(size) for size in sizes]
    larges = [
        LargeMessage(protocol.RESULT, n, n, [BytesSource(b"x" * n), BytesSource(b)]) for n, b in enumerate(buffers)
    ]
    found = received(stream_of(*larges, *((protocol.NEWS, n, {"a": n}) for n in range(smalls))))
    assert [m.buffers for m in found if m.kind == protocol.RESULT] == [[b"x" * n, b] for n, b in enumerate(buffers)]
    assert [m for m in found if m.kind == protocol.NEWS] == [
        Message(protocol.NEWS, n, {"a": n}, []) for n in range(smalls)
    ]


# ------------------------------------------------------------------ order and back-pressure


class Gradual:
    """A part whose pieces are read one by one; `then` is done before each."""

    def __init__(self, count: int, then: Any) -> None:
        self.size, self._count, self._then = count * MOST, count, then

    def pieces(self, most: int) -> Iterator[Piece]:
        for number in range(self._count):
            self._then(number)
            yield bytes(most)


def test_small_messages_pass_between_the_pieces_of_a_large_one() -> None:
    reading, writing = os.pipe()
    writer = MessageWriter(writing)
    part = Gradual(4, lambda number: writer.put(protocol.NEWS, number))
    writer.put_large(lambda: LargeMessage(protocol.RESULT, 7, None, [part]))
    writer.close()
    thread = threading.Thread(target=writer.run, args=(lambda: True,))
    thread.start()
    with io.FileIO(reading, "rb") as stream:
        reader = MessageReader(stream)
        assert [(m.kind, m.number) for m in (reader.read() for _ in range(5)) if m is not None] == [
            *((protocol.NEWS, number) for number in range(4)),
            (protocol.RESULT, 7),
        ]
        thread.join()
    os.close(writing)


def test_pieces_are_read_as_the_link_takes_them() -> None:
    """Of a sender without a receiver the rest of the content stays where it is."""
    reading, writing = os.pipe()
    writer, read = MessageWriter(writing), list[int]()
    asked = iter([True] * 3)
    writer.put_large(lambda: LargeMessage(protocol.RESULT, 7, None, [Gradual(100, read.append)]))
    writer.run(lambda: next(asked, False))
    assert len(read) <= 2
    os.close(reading)
    os.close(writing)


def test_a_part_that_is_lost_is_told_and_the_stream_goes_on() -> None:
    class Lost:
        size = 3 * MOST

        def pieces(self, most: int) -> Iterator[Piece]:
            yield bytes(most)
            raise SourceLost("it is gone")

    first, second = received(
        stream_of(LargeMessage(protocol.RESULT, 1, None, [Lost()]), LargeMessage(protocol.RESULT, 2, None, []))
    )
    assert first.problem == "it is gone"
    assert second == Message(protocol.RESULT, 2, None, [])


def test_a_message_that_is_not_made_is_left_out() -> None:
    reading, writing = os.pipe()
    writer = MessageWriter(writing)
    writer.put_large(lambda: None)
    writer.close()
    writer.run(lambda: True)
    os.close(writing)
    with open(reading, "rb") as stream:
        assert stream.read() == b""


@pytest.mark.parametrize(
    ("kinds", "why"),
    [
        ([protocol.PIECE], "of no message"),
        ([protocol.END], "had not begun"),
        ([protocol.BEGIN, protocol.PIECE, protocol.PIECE], "more came"),
        ([protocol.BEGIN, protocol.END], "less came"),
    ],
)
def test_a_stream_that_makes_no_sense(kinds: list[int], why: str) -> None:
    frames = stream_of(LargeMessage(protocol.RESULT, 1, None, [BytesSource(b"abc")]))
    by_kind = {}
    while frames:
        _, size, kind, *_ = HEAD.unpack(frames[: HEAD.size])
        by_kind[kind], frames = frames[:size], frames[size:]
    with pytest.raises(GarbledFrame, match=why):
        received(b"".join(by_kind[kind] for kind in kinds))
    assert MARK


# ------------------------------------------------------------------ sources and sinks


def test_a_file_is_read_piece_by_piece(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(b"abcdefg")
    source = FileSource(content_name(File(tmp_path / "a.dat")), str(tmp_path / "a.dat"))
    assert list(source.pieces(3)) == [b"abc", b"def", b"g"]
    (tmp_path / "a.dat").write_bytes(b"abcd")
    with pytest.raises(SourceLost, match="has become shorter"):
        list(source.pieces(3))
    (tmp_path / "a.dat").write_bytes(b"abcdefghijk")
    assert b"".join(source.pieces(3)) == b"abcdefg"  # the digest tells whether it is the same
    (tmp_path / "a.dat").unlink()
    with pytest.raises(SourceLost, match="cannot be read any more: No such file"):
        list(source.pieces(3))


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_a_problem_of_one_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.dat").write_bytes(text := os.urandom(100_000))
    name = content_name(File(tmp_path / "a.dat"))
    files = ContentFiles(str(tmp_path / "contents"))
    with monkeypatch.context() as patched:
        patched.setattr(incoming_content, "write_all", no_room)
        sinks = [ContentSink(partial(files.incoming, name))]
        (first, message) = received(stream_of(content_message(text, name), (protocol.NEWS, 1, None)), lambda _: sinks)
    assert message.buffers[0].accepted(files.accept) == "it cannot be stored: No space left on device"
    assert first.kind == protocol.NEWS
    assert os.listdir(tmp_path / "contents") == []
    assert ContentSink(no_room).accepted(files.accept).endswith("No space left on device")  # type: ignore[arg-type]


def test_other_bytes_than_the_content_do_not_count(tmp_path: Path) -> None:
    files = ContentFiles(str(tmp_path / "contents"))
    name = f"3-{'0' * 64}"
    assert ContentSink(partial(files.incoming, name), data=b"abc").accepted(files.accept).startswith("it was changed")
    assert files.missing([name]) == [name]
    assert os.listdir(tmp_path / "contents") == []


@pytest.mark.parametrize("room", ["on the disk", "none", "none for the second piece"])
def test_what_is_large_is_on_the_disk_if_that_has_room(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_memory, "SPOOLED", 2 * MOST)
    if room == "none":
        monkeypatch.setattr(disk_memory, "_file_for", lambda _: None)
    elif room != "on the disk":
        write = disk_memory._write
        monkeypatch.setattr(disk_memory, "_write", lambda fd, piece, at: no_room() if at else write(fd, piece, at))
    data = os.urandom(2 * MOST + 5)
    memory = on_disk(memoryview(data))
    assert type(memory) is (BorrowedSegment if room == "on the disk" else PrivateBytes)
    assert bytes(memory.read()) == data
    came: list[int] = []
    sink = DiskSink.of(len(data), came.append)
    if room == "none":
        assert sink is None
        return
    assert sink is not None
    (message,) = received(stream_of(LargeMessage(protocol.RESULT, 1, None, [BytesSource(data)])), lambda _: [sink])
    own = message.buffers[0].view()
    assert bytes(own) == data
    own[0] ^= 1
    assert bytes(message.buffers[0].read()) == data
    assert sum(came) == len(data)
    assert on_disk(memoryview(b"small")).size == 5
    other = DiskSink.of(len(data), came.append)
    assert other is not None
    other.close()
    other.close()


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    stream_of(LargeMessage(protocol.RESULT, 1, None, [BytesSource(bytes(MOST + 3))], sent.append))
    assert sent == [MOST, 3]
    assert message_streams.LARGE > MOST


def test_neither_side_has_more_than_pieces_in_memory(tmp_path: Path) -> None:
    size = 40_000_000
    with open(tmp_path / "a.dat", "wb") as file:
        file.truncate(size)
    name = content_name(File(tmp_path / "a.dat"))
    copies = FileCopies(CacheDirectory.open(tmp_path / "there"))
    reading, writing = os.pipe()
    writer = MessageWriter(writing)
    source = FileSource(name, str(tmp_path / "a.dat"))
    writer.put_large(lambda: LargeMessage(protocol.CONTENT, 0, ContentName(True, name, "a.dat"), [source]))
    thread = threading.Thread(target=writer.run, args=(lambda: True,))
    tracemalloc.start()
    try:
        thread.start()
        with io.FileIO(reading, "rb") as stream:
            reader = MessageReader(stream, lambda _: [ContentSink(partial(copies.incoming, name))])
            message = reader.read()
            writer.give_up()
            thread.join()
        assert message is not None
        assert message.buffers[0].accepted(partial(copies.accept, "a.dat")) == ""
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(writing)
    assert os.path.getsize(copies.find(name, "a.dat")) == size
    assert peak < size / 10


# ------------------------------------------------------------------ halves


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, str, FileCopies]:
    """Return a content, its name, and copies that have its first 100,000 bytes."""
    monkeypatch.setattr(incoming_content, "_WORTH_KEEPING", 1000)
    (tmp_path / "a.dat").write_bytes(text := os.urandom(300_000))
    name, copies = content_name(File(tmp_path / "a.dat")), FileCopies(CacheDirectory.open(tmp_path / "there"))
    sink = ContentSink(partial(copies.incoming, name))
    sink.room(100_000)[:] = text[:100_000]
    sink.took(100_000)
    sink.close()
    assert copies.received(name) == 100_000
    return text, name, copies


def test_a_half_is_gone_on_with(half: tuple[bytes, str, FileCopies]) -> None:
    text, name, copies = half
    message = content_message(text, name, copies.received(name))
    assert message.sources[0].size == 200_000
    assert take_in(stream_of(message), copies)
    assert Path(copies.find(name, "a.dat")).read_bytes() == text
    assert copies.received(name) == 0


def test_a_wrong_half_is_of_no_use(half: tuple[bytes, str, FileCopies], tmp_path: Path) -> None:
    text, name, copies = half
    (path,) = (tmp_path / "there" / "files").iterdir()
    path.write_bytes(b"x" * 100_000)
    (message,) = received(
        stream_of(content_message(text, name, 100_000)),
        lambda _: [ContentSink(partial(copies.incoming, name), 100_000)],
    )
    sink = message.buffers[0]
    assert sink.accepted(partial(copies.accept, "a.dat"))
    assert sink.again
    assert copies.received(name) == 0


def test_two_do_not_write_to_one_half(half: tuple[bytes, str, FileCopies]) -> None:
    """Two gateways may be there at once: the second receives the whole into a file of its own."""
    text, name, copies = half
    with copies.incoming(name, 100_000) as first:
        sink = ContentSink(partial(copies.incoming, name), 100_000)
        assert sink.again
        with copies.incoming(name, 0) as second:
            assert second.temporary != first.temporary
            second.write(text)
            first.write(text[100_000:])
            assert copies.accept("a.dat", second)
            assert copies.accept("b.dat", first)
    assert os.path.samefile(copies.find(name, "a.dat"), copies.find(name, "b.dat"))
    with pytest.raises(incoming_content.HalfLost):
        copies.incoming(name, 100_000)


def test_halves_go_after_a_week(half: tuple[bytes, str, FileCopies], tmp_path: Path) -> None:
    _, name, copies = half
    copies.remove_old()
    assert copies.received(name) == 100_000
    (path,) = (tmp_path / "there" / "files").iterdir()
    os.utime(path, (0, 0))
    copies.remove_old()
    assert copies.received(name) == 0
