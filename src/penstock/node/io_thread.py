"""The thread that waits for the sockets of an executor: it is there from the first call on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .loop import Loop


class IoThread:
    """Begun by whoever comes first, in any thread, and by a finalizer in the middle of that."""

    def __init__(self) -> None:
        self.begun = False
        self.loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._beginning = threading.Lock()

    def begin(self, run: Callable[[Loop], object], make_loop: Callable[[], Loop]) -> None:
        """Start it, if nobody has.

        Raises RuntimeError where no thread is to be had, OSError where no descriptors are; then nothing has changed.
        """
        if not self._beginning.acquire(blocking=False):
            return  # whoever is at it begins with what others have left by now
        try:
            if not self.begun:
                self._start(run, make_loop())
        finally:
            self._beginning.release()

    def _start(self, run: Callable[[Loop], object], loop: Loop) -> None:
        self._thread = threading.Thread(target=run, args=(loop,), name="penstock", daemon=True)
        self.loop = loop  # before it runs: whoever leaves it something wakes it
        self.begun = True
        try:
            self._thread.start()
        except RuntimeError:
            self.begun, self.loop, self._thread = False, None, None
            loop.close()
            raise
        loop.wake()  # others may have left something while there was nobody to wake

    def wake(self) -> None:
        """Let it look around."""
        loop = self.loop
        if loop is not None:
            loop.wake()

    def join(self) -> None:
        """Wait for its end, if it is not the one that asks."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
