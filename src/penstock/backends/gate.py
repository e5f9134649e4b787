"""Let so many in at once, and the others wait their turn without a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Gate:
    """Who was let in calls `leave()` once.

    There is no lock, because a finalizer may enter or leave at any moment: the operations of a deque are atomic.
    """

    def __init__(self, most: int | None) -> None:
        self._tokens = None if most is None else deque([None] * most)
        self._waiting: deque[Callable[[], object]] = deque()

    def enter(self, start: Callable[[], object]) -> bool:
        """Whether the caller may start at once; otherwise `start()` is called in the thread of one who leaves."""
        if self._tokens is None:
            return True
        if not self._waiting:
            try:
                self._tokens.pop()
                return True
            except IndexError:
                pass
        self._waiting.append(start)
        self._let_in(self._tokens)  # somebody may have left between the two lines above
        return False

    def leave(self) -> None:
        if self._tokens is not None:
            self._tokens.append(None)
            self._let_in(self._tokens)

    def _let_in(self, tokens: deque[None]) -> None:
        while self._waiting and tokens:
            try:
                tokens.pop()
            except IndexError:  # another thread was faster
                return
            try:
                start = self._waiting.popleft()
            except IndexError:
                tokens.append(None)
                continue
            start()
