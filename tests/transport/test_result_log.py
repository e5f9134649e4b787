"""The page that survives a worker: what began, what was withdrawn, what was finished and not yet sent."""

from __future__ import annotations

import os
from itertools import count
from struct import Struct

import hypothesis.strategies as st
import pytest
from hypothesis import given

from callyard.serialize.shared_memory import anonymous_file
from callyard.transport import result_log
from callyard.transport.frames import RESULT, FrameReader, encode
from callyard.transport.result_log import ROOM, SIZE, ResultLog


@pytest.fixture
def sides():
    """The worker's view of the page and the driver's."""
    fd = anonymous_file(SIZE)
    worker, driver = ResultLog(fd), ResultLog(fd)
    os.close(fd)
    yield worker, driver
    worker.close()
    driver.close()


def test_the_driver_sees_what_has_begun(sides):
    worker, driver = sides
    assert driver.begun == 0
    for sequence in (1, 2, 3):
        assert worker.begin(sequence)
        assert driver.begun == sequence


def test_what_is_withdrawn_does_not_begin(sides):
    worker, driver = sides
    assert worker.begin(1)
    assert driver.withdraw(last=4) == 1
    assert [worker.begin(sequence) for sequence in (2, 3, 4, 5)] == [False, False, False, True]


def test_what_has_begun_is_not_withdrawn(sides):
    worker, driver = sides
    worker.begin(4)
    assert driver.withdraw(last=4) == 4
    assert worker.begin(5)


def test_calls_may_be_withdrawn_again(sides):
    worker, driver = sides
    worker.begin(1)
    driver.withdraw(last=3)
    assert [worker.begin(sequence) for sequence in (2, 3, 4)] == [False, False, True]
    driver.withdraw(last=6)
    assert [worker.begin(sequence) for sequence in (5, 6, 7)] == [False, False, True]


@given(st.integers(1, 30), st.lists(st.integers(0, 30), max_size=5))
def test_each_call_begins_here_or_is_given_back(number, looks):
    """Whenever the worker is stopped and looked at: no call is done twice, none is forgotten."""
    fd = anonymous_file(SIZE)
    worker, driver = ResultLog(fd), ResultLog(fd)
    os.close(fd)
    ran, given_back = set(), set()
    last = number
    for sequence in range(1, number + 1):
        if sequence in looks:
            begun = driver.withdraw(last)
            given_back |= set(range(begun + 1, last + 1))
        if worker.begin(sequence):
            ran.add(sequence)
    worker.close()
    driver.close()
    assert not ran & given_back
    assert ran | given_back == set(range(1, number + 1))


def test_results_are_there_before_they_are_sent(sides):
    worker, driver = sides
    assert driver.unsent() == b""
    first, second = encode(RESULT, 1, body=b"one"), encode(RESULT, 2, body=b"two")
    length = worker.put(first, 0)
    assert driver.unsent() == first
    length = worker.put(second, length)
    assert driver.unsent() == worker.outbox(length) == first + second
    assert [frame[4] for frame in FrameReader().feed(driver.unsent())] == [b"one", b"two"]
    worker.sent()
    assert driver.unsent() == b""


def test_the_outbox_is_used_again_from_its_start(sides):
    worker, driver = sides
    worker.put(b"a" * 100, 0)
    worker.sent()
    worker.put(b"b" * 10, 0)
    assert driver.unsent() == b"b" * 10


def test_all_the_room_can_be_used(sides):
    worker, driver = sides
    assert worker.put(b"x" * ROOM, 0) == ROOM
    assert driver.unsent() == b"x" * ROOM
    assert driver.begun == 0


def test_what_is_withdrawn_has_not_begun(sides):
    worker, driver = sides
    worker.begin(1)
    driver.withdraw(last=3)
    assert not worker.begin(2)
    assert driver.begun == 1


@pytest.mark.parametrize("step", range(6))
def test_a_range_that_is_corrected_while_a_call_is_skipped(sides, step, monkeypatch):
    """The worker was let go on too early: whatever it was about to do, it does what the last look at it found."""
    worker, driver = sides
    worker.begin(1)
    driver.withdraw(last=3)
    found = [1]
    steps = count()

    class Watched(Struct):
        """Before one of the worker's steps on the page it is looked at again."""

        def pack_into(self, *args):
            look()
            super().pack_into(*args)

        def unpack_from(self, *args):
            look()
            return super().unpack_from(*args)

    def look():
        if next(steps) == step:
            (begun,) = Struct("<I").unpack_from(driver._page, 0)
            Struct("<II").pack_into(driver._page, result_log._WITHDRAWN, begun, 3)
            found.append(begun)

    monkeypatch.setattr(result_log, "_COUNT", Watched("<I"))
    monkeypatch.setattr(result_log, "_RANGE", Watched("<II"))
    assert worker.begin(2) == (found[-1] == 2)
    assert worker.begin(3) is False
