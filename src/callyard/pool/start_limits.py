"""Limits learned from workers that could not be started: how many the system seems to have room for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from .call_shape import WorkerShape

_START_TRIES = 3  # workers that may die while starting before the calls that need them fail


class StartLimits:
    """What is known of starts that failed: fewer workers are wanted after one, until `try_again`."""

    def __init__(self) -> None:
        self._most: int | None = None  # workers that this machine seems to have room for, if less than wanted
        self._most_of: dict[WorkerShape, int] = {}  # likewise, of one shape
        self._failed: dict[WorkerShape, int] = {}  # in a row, while no worker of that shape was there
        self._room_made: set[WorkerShape] = set()  # shapes for which idle workers went because theirs failed to start

    @property
    def in_force(self) -> bool:
        """Whether fewer workers are wanted because some have failed to start."""
        return self._most is not None or bool(self._most_of)

    def at_most(self, wanted: int) -> int:
        """Return how many workers there may be, where so many are wanted."""
        return wanted if self._most is None else min(wanted, self._most)

    def allow(self, shape: WorkerShape, count: Callable[[WorkerShape], int]) -> bool:
        """Return whether another worker of the shape may be tried; `count` tells how many there are."""
        return shape not in self._most_of or count(shape) < self._most_of[shape]

    def started(self, shape: WorkerShape) -> None:
        """A worker of this shape is ready."""
        self._failed.pop(shape, None)
        self._room_made.discard(shape)

    def failed(
        self, shape: WorkerShape, workers: int, of_shape: int, *, scarce: bool, at_once: bool, idle: bool
    ) -> Literal["wait", "make room", "give up"]:
        """A worker has failed to start; return what its calls do: wait, wait until idle workers have ended, or fail.

        There are `workers` others, `of_shape` of them of the same shape, and perhaps some of other shapes that are
        `idle`. `scarce`: the system had no room for another process, of whatever shape; `at_once`: the next would fail
        too.
        """
        if scarce and workers:
            self._most = workers
            return "wait"
        if of_shape:
            self._most_of[shape] = of_shape
            return "wait"
        tries = self._failed.pop(shape, 0) + 1
        if not at_once and tries < _START_TRIES:
            self._failed[shape] = tries
            return "wait"
        if not at_once and idle and shape not in self._room_made:  # once, before the calls are given up
            self._room_made.add(shape)
            return "make room"
        self._room_made.discard(shape)
        return "give up"

    def try_again(self) -> None:
        """There may be room for more workers by now."""
        self._most = None
        self._most_of.clear()
