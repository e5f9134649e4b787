"""Limits learned from failed starts of workers: the number for which the system seems to have room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from .call_shape import WorkerShape

_START_TRIES = 3  # workers that may die while starting, before the waiting calls fail


class StartLimits:
    """The failed starts so far. After one, fewer workers are wanted, until `try_again`."""

    def __init__(self) -> None:
        self._most: int | None = None  # the number for which this machine seems to have room, if less than wanted
        self._most_of: dict[WorkerShape, int] = {}  # likewise, of one shape
        self._failed: dict[WorkerShape, int] = {}  # failures in a row, while no worker of the shape was there
        self._room_made: set[WorkerShape] = set()  # shapes for which idle workers were ended after a failed start

    @property
    def in_force(self) -> bool:
        """True if fewer workers are wanted because starts have failed."""
        return self._most is not None or bool(self._most_of)

    def at_most(self, wanted: int) -> int:
        """Return the number of workers to aim at, where `wanted` are wanted."""
        return wanted if self._most is None else min(wanted, self._most)

    def allow(self, shape: WorkerShape, count: Callable[[WorkerShape], int]) -> bool:
        """Return True if another worker of the shape may be tried; `count` returns the number of those there are."""
        return shape not in self._most_of or count(shape) < self._most_of[shape]

    def started(self, shape: WorkerShape) -> None:
        """Note that a worker of this shape is ready."""
        self._failed.pop(shape, None)
        self._room_made.discard(shape)

    def failed(
        self, shape: WorkerShape, workers: int, of_shape: int, *, scarce: bool, at_once: bool, idle: bool
    ) -> Literal["wait", "make room", "give up"]:
        """Note that a worker has failed to start; return the fate of its calls: wait, wait for room, or fail.

        There are `workers` others, `of_shape` of them of the same shape, and perhaps `idle` ones of other shapes.

        Args:
            scarce: the system had no room for another process of any shape.
            at_once: another start would fail, too.
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
        """Forget the limits, because there may be room for more workers by now."""
        self._most = None
        self._most_of.clear()
