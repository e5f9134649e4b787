"""The time in which a call could run, on a clock of the test's: what is stopped, and what is only late."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from callyard.system.run_clock import LOOK, STEP, RunClock, StoppedTime

STEPS = st.lists(st.tuples(st.floats(0, 2 * STEP), st.sampled_from([0.0, 0.0, 0.5, 60.0, 3600.0])), max_size=30)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_it_is_the_other_clock_as_long_as_nothing_is_stopped() -> None:
    other = Clock()
    clock = RunClock(other)
    for _ in range(10):
        other.now += LOOK
        assert clock() == other.now


@given(steps=STEPS)
def test_what_was_stopped_does_not_count(steps: list[tuple[float, float]]) -> None:
    """`steps`: for how long it ran, and was then stopped, before the next look."""
    other = Clock()
    clock = RunClock(other)
    ran = late = 0.0
    for runs, stopped in steps:
        before = clock()
        other.now += runs + stopped
        counted = clock() - before
        ran += min(runs, STEP)
        late += min(stopped, STEP)
        assert 0 <= counted <= STEP + 1e-6
    assert ran - 1e-6 <= clock() - 1000.0 <= ran + late + 1e-6
    assert clock() <= other.now


@given(steps=STEPS, idle=st.floats(0, 5000))
def test_a_call_reads_for_how_long_it_was_stopped(steps: list[tuple[float, float]], idle: float) -> None:
    """It may be there before the other process has looked, and reads nearly the same then."""
    other, page = Clock(), bytearray(StoppedTime.SIZE)
    clock, ours, theirs = RunClock(other), StoppedTime(page), StoppedTime(page)
    other.now += idle  # without a call nobody looks, which is no stop
    assert theirs.read(other.now) == 0.0
    clock()
    ours.begin(clock)
    began, lag = other.now, clock.lag
    for runs, stopped in steps:
        other.now += runs + stopped
        first = theirs.read(other.now)
        clock()
        ours.note(clock)
        assert theirs.read(other.now) == pytest.approx(first)
        assert theirs.read(other.now) == pytest.approx(clock.lag - lag)
        assert other.now - theirs.read(other.now) >= began
    ours.end()
    assert theirs.read(other.now) == 0.0
