"""Packed objects: round trips, what is shared, and what stays apart."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import types
from array import array as Array
from concurrent.futures import Future as StandardFuture

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from callyard.futures import Future
from callyard.serialize import shared_memory as memory_module
from callyard.serialize.packer import LARGE, Packed, Packer, load_with_inputs
from callyard.serialize.shared_memory import OwnedSegment, PrivateBytes, SegmentPool
from callyard.system.descriptors import DescriptorShare
from callyard.transport.frame_buffers import LentBuffers, describe, undescribe
from callyard.transport.frames import MOST_DESCRIPTORS, FrameReader

BIG = LARGE // 8  # numbers of 8 bytes


@pytest.fixture
def segments():
    made = SegmentPool()
    yield made
    gc.collect()
    made.close()


@pytest.fixture
def packer(segments):
    return Packer(segments)  # after `segments` and before `other`: what that keeps goes first


@pytest.fixture
def third():
    made = Other()
    yield made
    made.loans.clear()


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


class Other:
    """Another process, as far as memory is concerned: it gets copies of the descriptors."""

    def __init__(self) -> None:
        self.loans = LentBuffers()
        self.returned: list[int] = []

    def receive(self, packed: Packed) -> Packed:
        body, descriptors = describe(packed, self.loans)
        reader = FrameReader()
        for start in range(0, len(descriptors), MOST_DESCRIPTORS):
            reader.arrived([os.dup(fd) for fd in descriptors[start : start + MOST_DESCRIPTORS]], True)
        [opened] = undescribe([pickle.loads(body)], reader, lambda number, _: self.returned.append(number))
        return opened

    def settle(self) -> None:
        """The owner hears what is no longer used."""
        self.loans.returned(self.returned)
        self.returned.clear()


@pytest.fixture
def other():
    made = Other()
    yield made
    made.loans.clear()


# ------------------------------------------------------------------ round trips


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | hnp.arrays(st.sampled_from(["f8", "i1", "c8"]), hnp.array_shapes(max_side=4), elements=st.just(1)),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and bool(np.array_equal(a, b))
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)  # type: ignore[index]
    return type(a) is type(b) and a == b


@given(plain)
@settings(deadline=None)
def test_what_is_opened_is_what_was_packed(value):
    packer = Packer(SegmentPool())
    assert same(packer.pack(value).load(), value)
    assert same(packer.pack_arguments((value,), {"k": value}, []).load(), ((value,), {"k": value}))
    assert same(Other().receive(packer.pack(value)).load(), value)


SIZES = [LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 5]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [bytes, bytearray, lambda n: "x" * n, lambda n: np.ones(n, np.int8)])
def test_large_and_not_quite_large_things(packer, other, make, size):
    value = make(size)
    for packed in (packer.pack(value), other.receive(packer.pack(value)), packer.pack([value, 1])):
        loaded = packed.load()
        assert same(loaded[0] if isinstance(loaded, list) else loaded, value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(2.0 * BIG),
        np.arange(2 * BIG).reshape(2, -1).T,
        np.arange(4 * BIG)[::2],
        np.arange(2 * BIG).reshape(2, BIG)[:, 1:],
        np.full(2 * BIG, np.nan),
        np.zeros(2 * BIG, dtype=[("a", "f4"), ("b", "i4")]),
        np.array([[1, "a", None]] * BIG, dtype=object),
        np.zeros((0, 5)),
    ],
    ids=["plain", "transposed", "strided", "slice", "nan", "records", "objects", "empty"],
)
def test_arrays_of_every_layout(packer, other, array):
    for packed in (packer.pack(array), other.receive(packer.pack({"k": array}))):
        loaded = packed.load()
        loaded = loaded["k"] if isinstance(loaded, dict) else loaded
        assert loaded.dtype == array.dtype
        np.testing.assert_array_equal(loaded, array)


# ------------------------------------------------------------------ apart from each other


def test_the_content_is_that_of_the_moment_of_packing(packer, other):
    array = np.zeros(BIG)
    packed = packer.pack(array)
    array[:] = 1
    assert packed.load().max() == 0
    assert other.receive(packed).load().max() == 0


def test_writes_in_place_stay_private(packer, other):
    packed = packer.pack(np.zeros(BIG))
    arrived = other.receive(packed)
    loads = [packed.load(), packed.load(), arrived.load(), arrived.load()]
    for i, array in enumerate(loads):
        assert array.flags.writeable
        array[:] = i + 1
    assert [array.max() for array in loads] == [1, 2, 3, 4]
    assert packed.load().max() == arrived.load().max() == 0


def test_what_was_read_only_stays_so(packer, other):
    array = np.zeros(BIG)
    array.flags.writeable = False
    assert not packer.pack(array).load().flags.writeable
    assert not other.receive(packer.pack(array)).load().flags.writeable


# ------------------------------------------------------------------ sharing


def test_the_same_array_packed_twice_shares_one_segment(packer):
    array = np.arange(float(BIG))
    once, again = packer.pack(array), packer.pack((array, 1))
    assert once.memories[0] is again.memories[0]


@pytest.mark.parametrize("where", [0, BIG // 2, BIG - 1])
def test_an_array_that_was_changed_does_not(packer, where):
    array = np.zeros(BIG)
    before = packer.pack(array)
    array[where] = 1
    after = packer.pack(array)
    assert before.memories[0] is not after.memories[0]
    assert (before.load().max(), after.load().max()) == (0, 1)


def test_the_last_odd_bytes_count_too(packer):
    array = np.zeros(LARGE + 3, np.int8)
    before = packer.pack(array)
    array[-1] = 1
    assert packer.pack(array).memories[0] is not before.memories[0]


def test_nan_is_the_same_as_itself(packer):
    array = np.full(BIG, np.nan)
    first = packer.pack(array)
    assert packer.pack(array).memories[0] is first.memories[0]


def test_a_buffer_is_compared_while_another_thread_loads_numpy(packer, monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", types.ModuleType("numpy"))  # as it is at first
    content = Array("d", range(BIG))
    first = packer.pack(pickle.PickleBuffer(content))
    assert packer.pack(pickle.PickleBuffer(content)).memories[0] is first.memories[0]


def test_another_array_at_the_same_address_is_another(packer):
    for i in range(20):
        array = np.full(BIG, float(i))
        assert packer.pack(array).load()[0] == i
        del array


def test_equal_content_of_different_objects_shares_one_segment(packer):
    once, again = packer.pack(np.arange(float(BIG))), packer.pack({"other": np.arange(float(BIG))})
    assert once.memories[0] is again.memories[0]


def test_equal_large_pickles_share_one_segment(packer):
    content = ["one", *map(str, range(2 * BIG))]
    once, again = packer.pack(content), packer.pack(list(content))
    assert once.data is None
    assert once.memories[0] is again.memories[0]


def test_many_arrays_of_equal_objects_share_one_segment(packer):
    once, again = (packer.pack([np.full(BIG + i, i) for i in range(40)]) for _ in range(2))
    assert once.memories[0] is again.memories[0]


def test_many_arrays_of_one_object_share_a_segment(packer, other):
    arrays = [np.full(BIG + i, i) for i in range(40)]
    packed = packer.pack(arrays)
    assert len(packed.memories) == 1
    for loaded in (packed.load(), other.receive(packed).load()):
        assert same(loaded, arrays)
        assert all(array.ctypes.data % 64 == 0 for array in loaded)


# ------------------------------------------------------------------ how many descriptors


@pytest.fixture
def few(monkeypatch):
    """How many segments there may be, and how many may be borrowed."""
    room = 20 * memory_module._PER_SEGMENT
    monkeypatch.setattr(DescriptorShare, "most", max(memory_module.OWNED.held, memory_module.BORROWED.held) + room)
    return 20


def in_use(packer) -> int:
    """Segments of this process that somebody uses."""
    free = packer._segments._free.values()
    return memory_module.OWNED.held // memory_module._PER_SEGMENT - sum(map(len, free))


def test_many_arrays_never_take_more_descriptors_than_there_may_be(packer, other, few):
    before, used = open_descriptors(), in_use(packer)
    room = few * memory_module._PER_SEGMENT
    packed = [packer.pack(np.full(BIG, i)) for i in range(4 * few)]
    assert open_descriptors() - before <= room
    assert {type(one.memories[0]) for one in packed} == {OwnedSegment, PrivateBytes}
    arrived = [other.receive(one) for one in packed]
    opened = [one.load() for one in arrived for _ in range(3)]
    assert open_descriptors() - before <= 2 * room  # owned and borrowed
    assert [array[0] for array in opened[::3]] == list(range(4 * few))
    del packed, arrived, opened
    other.settle()
    assert in_use(packer) == used
    packer._segments.close()
    assert open_descriptors() == before


def test_what_had_to_wait_is_shared_when_there_is_room(packer, few):
    first = [packer.pack(np.full(BIG, i)) for i in range(few)]
    late = packer.pack(np.full(BIG, 7))
    [private] = late.memories
    assert packer.shared(private) is private
    del first
    shared = packer.shared(private)
    assert type(shared) is OwnedSegment
    assert Packed(late.data, (shared,), late.spans).load()[0] == 7
    assert packer.shared(shared) is shared


def test_nothing_leaks(packer, other):
    before, used = open_descriptors(), in_use(packer)
    for i in range(50):
        value = {"a": np.full(BIG, i), "b": ["x" * (2 * LARGE)]}
        assert same(other.receive(packer.pack(value)).load(), value)
        other.settle()
    assert in_use(packer) == used
    assert open_descriptors() - before <= 2 * 3  # those that are kept to be used again
    packer._segments.close()
    assert open_descriptors() == before


# ------------------------------------------------------------------ lending


def test_a_segment_is_kept_while_the_other_side_uses_it(packer, other):
    used = in_use(packer)
    arrived = other.receive(packer.pack(np.zeros(BIG)))
    array = arrived.load()
    del arrived
    assert other.returned == []
    packer.pack(np.ones(BIG))
    assert array.max() == 0
    del array
    assert other.returned == [1]
    assert in_use(packer) == used + 1
    other.settle()
    assert in_use(packer) == used


def test_what_is_returned_twice_or_unknown_does_no_harm():
    loans = LentBuffers()
    loans.returned([1, 2, 2])


def test_what_was_borrowed_is_passed_on_without_being_opened(packer, other, third):
    arrived = third.receive(other.receive(packer.pack(np.full(BIG, 3))))
    assert arrived.load()[0] == 3
    assert other.returned == []  # the third still uses it
    del arrived
    third.settle()
    assert other.returned == [1]


# ------------------------------------------------------------------ futures among the arguments


def test_futures_become_numbers_and_stand_for_their_results(packer):
    a, b = Future(), StandardFuture()  # type: ignore[var-annotated]
    futures: list[object] = []
    packed = packer.pack_arguments((a, [b, {"k": a}]), {"x": (b,)}, futures)
    assert futures == [a, b]
    args, kwargs = load_with_inputs(packed, ["A", "B"])
    assert (args, kwargs) == (("A", ["B", {"k": "A"}]), {"x": ("B",)})


def test_without_a_list_for_them_futures_are_refused(packer):
    with pytest.raises(TypeError, match="cannot be pickled"):
        packer.pack([Future()])


def test_inputs_are_let_go_after_opening(packer):
    futures: list[object] = []
    packed = packer.pack([Future()], futures)
    load_with_inputs(packed, [1])
    with pytest.raises(IndexError):
        packed.load()
