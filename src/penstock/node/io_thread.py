"""The thread that waits for the sockets of an executor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..system.late_thread import LateThread
from .loop import Loop


class IoThread(LateThread):
    """A thread with a loop, by which others wake it."""

    def __init__(self) -> None:
        super().__init__("penstock")
        self.loop: Loop | None = None

    def begin_with(self, run: Callable[[Loop], object], make_loop: Callable[[], Loop]) -> None:
        """Start it as `begin` does. Raises OSError, too, where no descriptors are to be had."""
        self._once(partial(self._start_with, run, make_loop))

    def _start_with(self, run: Callable[[Loop], object], make_loop: Callable[[], Loop]) -> None:
        self.loop = loop = make_loop()  # before it runs: whoever leaves it something wakes it
        try:
            self._start(partial(run, loop))
        except RuntimeError:
            self.loop = None
            loop.close()
            raise
        loop.wake()  # others may have left something while there was nobody to wake

    def wake(self) -> None:
        """Let it look around."""
        loop = self.loop
        if loop is not None:
            loop.wake()
