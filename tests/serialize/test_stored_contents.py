"""Large contents in shared memory: equal ones are one, and none is taken for another."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from callyard.serialize import stored_contents
from callyard.serialize.shared_memory import OwnedSegment, SegmentPool
from callyard.serialize.stored_contents import StoredContents

SIZE = 1 << 18


@pytest.fixture
def segments() -> Iterator[SegmentPool]:
    made = SegmentPool()
    yield made
    gc.collect()
    made.close()


@pytest.fixture
def stored(segments: SegmentPool) -> StoredContents:
    return StoredContents(segments)


def content(seed: int = 0, size: int = SIZE) -> bytearray:
    return bytearray(np.random.default_rng(seed).bytes(size))


def test_a_hundred_equal_contents_take_the_memory_of_one(stored: StoredContents) -> None:
    kept = [stored.store(memoryview(content())) for _ in range(100)]
    assert len(set(map(id, kept))) == 1
    assert bytes(kept[0].read()) == content()


def test_several_contents_are_found_in_turn(stored: StoredContents) -> None:
    kept = [stored.store(memoryview(content(seed))) for _ in range(3) for seed in range(5)]
    assert len(set(map(id, kept))) == 5


@settings(max_examples=50, deadline=None)
@given(size=st.integers(SIZE, SIZE + 9), place=st.integers(0, SIZE - 1), has_numpy=st.booleans())
def test_one_other_byte_is_another_content(size: int, place: int, has_numpy: bool) -> None:
    with mock.patch.dict(sys.modules, {} if has_numpy else {"numpy": None}):
        stored, one = StoredContents(SegmentPool()), content(size=size)
        other = bytearray(one)
        other[place] ^= 1
        first, second = stored.store(memoryview(one)), stored.store(memoryview(other))
        assert first is not second
        assert (bytes(first.read()), bytes(second.read())) == (one, other)
        assert stored.store(memoryview(bytes(other))) is second


def test_what_differs_beyond_the_samples_and_late_is_another_content(
    stored: StoredContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_contents, "_sample", lambda content: content.nbytes.to_bytes(8, "little"))
    one, other = content(), content()
    other[-1] ^= 1
    first, second = stored.store(memoryview(one)), stored.store(memoryview(other))
    assert first is not second
    assert stored.store(memoryview(other)) is second  # the latest of those that look alike


def test_what_nobody_uses_is_forgotten_and_its_memory_used_again(stored: StoredContents) -> None:
    kept = stored.store(memoryview(content()))
    assert isinstance(kept, OwnedSegment)
    segment = kept.segment
    assert len(stored._known) == 1
    del kept
    assert stored._known == {}
    again = stored.store(memoryview(content(1)))
    assert isinstance(again, OwnedSegment)
    assert again.segment is segment


def test_a_later_one_that_looks_alike_stays_known(stored: StoredContents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_contents, "_sample", lambda content: b"")
    first, second = stored.store(memoryview(content(1))), stored.store(memoryview(content(2)))
    del first
    assert stored.store(memoryview(content(2))) is second


def test_without_shared_memory_each_has_its_own(stored: StoredContents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SegmentPool, "fill", lambda self, content: None)
    one = content()
    kept = stored.store(memoryview(one))
    one[0] ^= 1
    assert bytes(kept.read()) == content()
