"""A thread that is there from the first time on that somebody needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial


class LateThread:
    """Begun by whoever comes first, in any thread, and by a finalizer in the middle of that."""

    def __init__(self, name: str) -> None:
        self.begun = False
        self._name = name
        self._thread: threading.Thread | None = None
        self._beginning = threading.Lock()

    def begin(self, run: Callable[[], object]) -> None:
        """Start it, if nobody has. Raises RuntimeError where no thread is to be had; then nothing has changed."""
        self._once(partial(self._start, run))

    def join(self) -> None:
        """Wait for its end, if it is not the one that asks."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _once(self, start: Callable[[], object]) -> None:
        if self.begun or not self._beginning.acquire(blocking=False):
            return  # whoever is at it begins with what others have left by now
        try:
            if not self.begun:
                start()
        finally:
            self._beginning.release()

    def _start(self, run: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self.begun = True
        try:
            self._thread.start()
        except RuntimeError:
            self.begun, self._thread = False, None
            raise
