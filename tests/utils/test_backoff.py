"""Attempts are made soon, then less and less often."""

from __future__ import annotations

from callyard.utils.backoff import Backoff


def test_pauses_grow_up_to_the_longest() -> None:
    backoff = Backoff(1.0, 3.0, 2.0)
    backoff.begin(10.0)
    moments = []
    for _ in range(4):
        moments.append(backoff.at)
        backoff.done(backoff.at)
    assert moments == [10, 12, 15, 18]


def test_news_and_something_new_make_it_quick_again() -> None:
    backoff = Backoff(1.0, 8.0, 2.0)
    for _ in range(5):
        backoff.done(0.0)
    assert backoff.at == 8
    backoff.done(20.0, progress=True)
    assert backoff.at == 21
    backoff.sooner(20.5)
    backoff.sooner(30.0)
    assert backoff.at == 20.5
    backoff.begin(40.0)
    backoff.done(40.0)
    assert backoff.at == 42


def test_pauses_are_told_in_turn() -> None:
    backoff = Backoff(0.25, 1.0, 2.0)
    assert [backoff.next_pause() for _ in range(4)] == [0.25, 0.5, 1.0, 1.0]
    backoff.reset()
    assert backoff.next_pause() == 0.25
