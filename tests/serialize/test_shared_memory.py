"""Segments: filled again only when nobody maps them, never more than there may be, nothing left behind."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import resource
import threading

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from callyard.serialize import shared_memory
from callyard.serialize.shared_memory import (
    BORROWED,
    OWNED,
    BorrowedSegment,
    OwnedSegment,
    PrivateBytes,
    SegmentPool,
    anonymous_file,
    borrow,
)
from callyard.system.descriptors import DescriptorShare

SMALLEST, PER_SEGMENT = shared_memory._SMALLEST, shared_memory._PER_SEGMENT


@pytest.fixture
def segments():
    made = SegmentPool()
    yield made
    gc.collect()
    made.close()


def fill(segments: SegmentPool, content: bytes) -> OwnedSegment:
    owned = segments.fill(memoryview(content))
    assert owned is not None
    return owned


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


# ------------------------------------------------------------------ one at a time


@given(st.binary(min_size=1, max_size=1000))
def test_what_is_filled_in_is_what_is_read(content):
    segments = SegmentPool()
    owned = fill(segments, content)
    assert owned.size == len(content)
    assert bytes(owned.read()) == bytes(owned.view()) == content
    del owned
    segments.close()


@pytest.mark.parametrize("size", [SMALLEST - 1, SMALLEST, SMALLEST + 1, 3 * SMALLEST])
def test_sizes_around_those_of_segments(segments, size):
    owned = fill(segments, b"x" * size)
    assert len(owned.view()) == size
    assert os.fstat(owned.fd).st_size >= size


def test_a_segment_is_filled_again_when_nobody_uses_it(segments):
    first = fill(segments, b"1")
    number = first.fd
    second = fill(segments, b"2")
    assert second.fd != number
    del first
    assert fill(segments, b"3").fd == number


def test_a_segment_is_not_filled_again_while_it_is_mapped(segments):
    owned = fill(segments, b"first")
    number, view = owned.fd, owned.view()
    del owned
    part = view[1:3]
    del view
    other = fill(segments, b"other")
    assert other.fd != number
    assert bytes(part) == b"ir"
    del part
    assert fill(segments, b"third").fd == number


def test_each_view_is_its_own(segments):
    owned = fill(segments, b"aaaa")
    first, second = owned.view(), owned.view()
    first[0:1] = b"b"
    assert (bytes(first), bytes(second), bytes(owned.read())) == (b"baaa", b"aaaa", b"aaaa")


def test_sizes_do_not_mix(segments):
    small = fill(segments, b"x")
    del small
    large = fill(segments, b"y" * (SMALLEST + 1))
    assert len(large.view()) == SMALLEST + 1


def test_private_memory_has_views_of_its_own():
    private = PrivateBytes(b"abc")
    view = private.view()
    view[0:1] = b"x"
    assert (bytes(view), bytes(private.view()), bytes(private.read())) == (b"xbc", b"abc", b"abc")


# ------------------------------------------------------------------ limits


def test_there_are_only_so_many_in_use(segments, monkeypatch):
    monkeypatch.setattr(DescriptorShare, "most", OWNED.held + 3 * PER_SEGMENT)
    used = [fill(segments, b"x") for _ in range(3)]
    assert segments.fill(memoryview(b"y")) is None
    used.pop()
    assert segments.fill(memoryview(b"y")) is not None


def test_free_ones_of_other_sizes_make_room(segments, monkeypatch):
    monkeypatch.setattr(DescriptorShare, "most", OWNED.held + 3 * PER_SEGMENT)
    before = open_descriptors()
    for power in range(8):
        used = [fill(segments, bytes(SMALLEST << power)) for _ in range(3)]
        assert segments.fill(memoryview(b"y")) is None
        used.clear()
    assert open_descriptors() - before <= 3 * PER_SEGMENT


def test_the_share_is_that_of_the_limit_of_this_moment(segments, monkeypatch):
    held = OWNED.held
    for limit in (8 * (held + 4), 8 * (held + 12)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        kept = [owned for _ in range(20) if (owned := segments.fill(memoryview(b"x"))) is not None]
        assert OWNED.held == limit // 8
        del kept


def test_what_cannot_be_mapped_is_copied(segments, monkeypatch):
    owned = fill(segments, b"lent")
    borrowed = borrow(os.dup(owned.fd), owned.size, lambda clean: None)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    before, held = open_descriptors(), BORROWED.held
    monkeypatch.setattr(shared_memory, "_Mapping", refuse)
    for memory_of_both in (owned, borrowed):
        view = memory_of_both.view()
        view[0:1] = b"s"
        assert (bytes(view), bytes(memory_of_both.read())) == (b"sent", b"lent")
    assert (open_descriptors(), BORROWED.held) == (before, held)


def test_only_so_many_bytes_are_kept_warm(segments, monkeypatch):
    monkeypatch.setattr(shared_memory, "_KEPT_FREE", 2 * SMALLEST)
    before = open_descriptors()
    used = [fill(segments, b"x") for _ in range(5)]
    each = (open_descriptors() - before) // 5
    used.clear()
    assert open_descriptors() == before + 2 * each
    assert segments._free_bytes == 2 * SMALLEST


@pytest.mark.parametrize(
    "broken", [(shared_memory.os, "ftruncate"), (shared_memory.mmap, "mmap")], ids=["ftruncate", "mmap"]
)
def test_a_system_without_memory_is_asked_without_leaving_anything(segments, monkeypatch, broken):
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no memory")

    before, held = open_descriptors(), OWNED.held
    with monkeypatch.context() as patch:
        patch.setattr(*broken, refuse)
        assert segments.fill(memoryview(b"x")) is None
    assert (open_descriptors(), OWNED.held) == (before, held)
    assert segments.fill(memoryview(b"x")) is not None


def test_closing_lets_go_of_what_is_free_and_later_of_the_rest():
    before = open_descriptors()
    segments = SegmentPool()
    free, used = fill(segments, b"x"), fill(segments, b"y")
    del free
    segments.close()
    assert bytes(used.read()) == b"y"
    del used
    assert open_descriptors() == before


# ------------------------------------------------------------------ borrowed


def test_what_is_borrowed_is_given_back_once_when_nothing_uses_it(segments):
    owned = fill(segments, b"lent")
    told: list[int] = []
    before = open_descriptors()
    borrowed = borrow(os.dup(owned.fd), owned.size, lambda clean: told.append(1))
    assert type(borrowed) is BorrowedSegment
    view = borrowed.view()
    view[0:1] = b"s"
    assert bytes(borrowed.read()) == bytes(owned.read()) == b"lent"
    del borrowed
    assert told == []
    assert bytes(view) == b"sent"
    del view
    assert told == [1]
    assert open_descriptors() == before


def test_what_is_read_of_borrowed_memory_cannot_be_written(segments):
    owned = fill(segments, b"lent")
    borrowed = borrow(os.dup(owned.fd), owned.size, lambda clean: None)
    with pytest.raises(TypeError):
        borrowed.read()[0:1] = b"x"


def test_who_has_borrowed_a_lot_makes_copies_and_gives_back_at_once(segments, monkeypatch):
    held = BORROWED.held
    monkeypatch.setattr(DescriptorShare, "most", held + 2)
    owned = fill(segments, b"lent")
    told: list[int] = []
    kept = [borrow(os.dup(owned.fd), owned.size, lambda clean, i=i: told.append(i)) for i in range(4)]
    assert [type(one) for one in kept] == [BorrowedSegment, BorrowedSegment, PrivateBytes, PrivateBytes]
    assert told == [2, 3]
    assert [bytes(one.read()) for one in kept] == [b"lent"] * 4
    kept.clear()
    assert BORROWED.held == held


def test_a_file_of_memory_is_not_inherited():
    fd = anonymous_file(10)
    assert os.fstat(fd).st_size == 10
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_segments_may_be_taken_and_given_back_in_many_threads(segments):
    def work(letter: bytes) -> None:
        for _ in range(50):
            owned = fill(segments, letter * 100)
            if bytes(owned.view()) != letter * 100:
                wrong.append(letter)

    wrong: list[bytes] = []
    held = OWNED.held
    threads = [threading.Thread(target=work, args=(bytes([65 + i]),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert OWNED.held - held == PER_SEGMENT * sum(map(len, segments._free.values()))


# ------------------------------------------------------------------ in any order


class SegmentsMachine(RuleBasedStateMachine):
    """Owners, views and borrowers come and go; each must always read what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.before = open_descriptors(), OWNED.held, BORROWED.held
        self.segments = SegmentPool()
        self.kept: list[tuple[object, bytes]] = []  # something that holds memory, and what must be in it
        self.owned: list[OwnedSegment] = []
        self.fills = 0

    @rule(size=st.sampled_from([1, 100, SMALLEST + 1]))
    def fill(self, size: int) -> None:
        self.fills += 1
        content = bytes([self.fills % 256]) * size
        owned = fill(self.segments, content)
        self.owned.append(owned)
        self.kept.append((owned, content))

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 99))
    def view(self, which: int) -> None:
        holder, content = self.kept[which % len(self.kept)]
        if not isinstance(holder, (memoryview, mmap.mmap)):
            self.kept.append((holder.view(), content))  # type: ignore[attr-defined]

    @precondition(lambda self: self.owned)
    @rule(which=st.integers(0, 99))
    def lend(self, which: int) -> None:
        owned = self.owned[which % len(self.owned)]
        loans = [owned]  # the owner keeps it until it is given back
        self.kept.append((borrow(os.dup(owned.fd), owned.size, lambda clean: loans.clear()), bytes(owned.read())))

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 99))
    def let_go(self, which: int) -> None:
        holder, _ = self.kept.pop(which % len(self.kept))
        self.owned = [owned for owned in self.owned if owned is not holder]

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 99))
    def write(self, which: int) -> None:
        holder, content = self.kept[which % len(self.kept)]
        if isinstance(holder, memoryview):
            holder[0:1] = b"\xff"
            self.kept[which % len(self.kept)] = (holder, b"\xff" + content[1:])

    @invariant()
    def everybody_reads_what_was_given(self) -> None:
        for holder, content in self.kept:
            assert bytes(holder if isinstance(holder, memoryview) else holder.read()) == content  # type: ignore[attr-defined]

    def teardown(self) -> None:
        self.kept.clear()
        self.owned.clear()
        self.segments.close()
        assert (open_descriptors(), OWNED.held, BORROWED.held) == self.before


TestSegments = SegmentsMachine.TestCase
TestSegments.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
