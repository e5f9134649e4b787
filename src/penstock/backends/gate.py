"""Let so many in at once, and the others wait their turn without a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Gate:
    """`enter(start)` calls `start()` now or when others have left; who was let in calls `leave()` once."""

    def __init__(self, most: int | None) -> None:
        self._free = most
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()

    def enter(self, start: Callable[[], None]) -> None:
        if self._free is not None:
            with self._lock:
                if self._free == 0:
                    self._waiting.append(start)
                    return
                self._free -= 1
        start()

    def leave(self) -> None:
        if self._free is None:
            return
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            start = self._waiting.popleft()
        start()
