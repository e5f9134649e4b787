"""The thread that waits for the sockets of an executor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..system.late_thread import LateThread
from .loop import Loop


class IoThread(LateThread):
    """A thread with a loop, by which others wake it."""

    def __init__(self) -> None:
        super().__init__("callyard")
        self.loop: Loop | None = None
        self._loops: list[Loop] = []  # of several that are made at once the first counts

    def begin_with(self, run: Callable[[Loop], object], make_loop: Callable[[], Loop]) -> None:
        """Start it as `begin` does. Raises OSError, too, where no descriptors are to be had."""
        self._once(partial(self._start_with, run, make_loop))

    def _start_with(self, run: Callable[[Loop], object], make_loop: Callable[[], Loop]) -> None:
        loop = self._made_loop(make_loop)  # before it runs: whoever leaves it something wakes it
        try:
            self._start(partial(run, loop))
        except RuntimeError:
            if not self._started:
                self.loop = None
                self._loops.clear()
                loop.close()
            raise
        loop.wake()  # others may have left something while there was nobody to wake

    def _made_loop(self, make_loop: Callable[[], Loop]) -> Loop:
        if not self._loops:
            made = make_loop()
            self._loops.append(made)
            if self._loops[0] is not made:
                made.close()
        self.loop = loop = self._loops[0]
        return loop

    def wake(self) -> None:
        """Let it look around."""
        loop = self.loop
        if loop is not None:
            loop.wake()
