"""What is done over and over is done soon, then less and less often."""

from __future__ import annotations

from callyard.utils.backoff import Backoff


def test_pauses_grow_up_to_the_longest() -> None:
    pace = Backoff(1.0, 3.0, 2.0)
    pace.begin(10.0)
    moments = []
    for _ in range(4):
        moments.append(pace.at)
        pace.done(pace.at)
    assert moments == [10, 12, 15, 18]


def test_news_and_something_new_make_it_quick_again() -> None:
    pace = Backoff(1.0, 8.0, 2.0)
    for _ in range(5):
        pace.done(0.0)
    assert pace.at == 8
    pace.done(20.0, news=True)
    assert pace.at == 21
    pace.sooner(20.5)
    pace.sooner(30.0)
    assert pace.at == 20.5
    pace.begin(40.0)
    pace.done(40.0)
    assert pace.at == 42
