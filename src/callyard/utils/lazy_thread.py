"""A thread that is there from the first time on that somebody needs it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial


class LazyThread:
    """Begun by whoever comes first, in any thread, and by a finalizer in the middle of that.

    There is no lock. Whoever finds that it has not begun starts a thread, and of several the first to arrive does the
    work. So it does not matter whether an exception in the middle of a start came too late to prevent it.
    """

    def __init__(self, name: str) -> None:
        self.begun = False
        self._name = name
        self._started: list[threading.Thread] = []
        self._arrived: list[threading.Thread] = []  # the first of them does the work, the others end
        self._beginner: int | None = None

    def begin(self, run: Callable[[], object]) -> None:
        """Start it, if nobody has. Raises RuntimeError where no thread is to be had; then nothing has changed."""
        self._once(partial(self._start, run))

    def join(self) -> None:
        """Wait for its end, if it is not the one that asks."""
        for thread in list(self._started):
            if thread is not threading.current_thread():
                with contextlib.suppress(RuntimeError):  # an exception has prevented its start
                    thread.join()

    def _once(self, start: Callable[[], object]) -> None:
        me = threading.get_ident()
        if self.begun or self._beginner == me:  # in the middle of `Thread.start`, which has locks of its own
            return
        try:
            self._beginner = me
            start()
            self.begun = True  # not after the `finally`, in which an exception may arrive
        finally:
            self._beginner = None

    def _start(self, run: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._work, args=(run,), name=self._name, daemon=True)
        self._started.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._started.remove(thread)
            raise

    def _work(self, run: Callable[[], object]) -> None:
        me = threading.current_thread()
        self._arrived.append(me)
        if self._arrived[0] is me:
            self.begun = True  # here too: what it does may be seen before `start` has returned
            run()
