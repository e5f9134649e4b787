"""Calls that are jobs and leave their process in any state: their end is told all the same."""

from __future__ import annotations

from typing import Any

import hostile_calls as calls
import pytest

from callyard import Executor, Future

pytestmark = pytest.mark.once


def test_what_a_call_leaves_behind_does_not_matter(ex: Executor) -> None:
    def futures(how: str) -> list[Future[Any]]:
        return [ex.submit(calls.end_after, disturb, how) for disturb in calls.DISTURBANCES]

    returned, raised, again = map(futures, ("return", "raise", "again"))
    names = [disturb.__name__ for disturb in calls.DISTURBANCES]
    assert dict(zip(names, (each.result() for each in returned), strict=True)) == dict.fromkeys(names, 1)
    assert [repr(each.exception()) for each in raised] == ["ValueError('of the call')"] * len(names)
    assert dict(zip(names, (each.result() for each in again), strict=True)) == dict.fromkeys(names, 2)
