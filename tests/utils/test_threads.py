"""Waiting for the items of a queue."""

from __future__ import annotations

import queue

import pytest

from callyard.utils.threads import next_item


@pytest.mark.parametrize(("patience", "times"), [(0.0, 20000), (1e-7, 20)])
def test_a_short_wait_for_an_item_ends(patience: float, times: int) -> None:
    """After an item that came without a wait, Python 3.10 takes a time-out that is over for none."""
    items: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(times):
        items.put(number)
        assert next_item(items, None) == number
        with pytest.raises(queue.Empty):
            next_item(items, patience)
