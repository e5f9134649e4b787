"""Calls that are to be cancelled once the jobs are found that an earlier gateway has submitted for them."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from ...futures import Future

__all__ = ["LateCancels"]

_LONGEST = 10.0  # s until a job is found, if there is one


class LateCancels:
    """The calls that wait for that; a call cancelled before would leave its job alone. Any thread may use it."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._waiting: dict[int, tuple[Future[Any], float]] = {}  # each change is atomic

    def add(self, number: int, future: Future[Any]) -> None:
        """Let a call wait."""
        self._waiting[number] = future, self._clock() + _LONGEST

    def ready(self, at_once: bool = False) -> list[int]:
        """Return, once, the numbers of calls to cancel now: whose job is known, or that have waited for long."""
        found = []
        for number, (future, until) in list(self._waiting.items()):
            known = future.job_id is not None or future.done()
            if (at_once or known or self._clock() > until) and self._waiting.pop(number, None) is not None:
                found.append(number)
        return found
