"""Sizes and durations for people."""

from __future__ import annotations

import pytest

from callyard.utils.quantities import duration, size


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (7360, "7.36 kB"), (999_600, "1 MB"), (5e15, "5e+03 TB")],
)
def test_size(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 us"), (39e-6, "39 us"), (0.25, "250 ms"), (1.25, "1.25 s"), (99, "99 s"), (182, "3 min 2 s"),
        (3599.7, "1 h 0 min"), (7500, "2 h 5 min"), (200_000, "2 d 7 h"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text
