"""Let so many in at once, and the others wait their turn without a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Gate:
    """`enter(start)` calls `start()` now or when others have left; who was let in calls `leave()` once.

    There is no lock, because a finalizer may call either at any moment: the operations of a deque are atomic.
    And nothing recurses: who leaves at once lets the next in from the loop that let it in.
    """

    def __init__(self, most: int | None) -> None:
        self._tokens = None if most is None else deque([None] * most)
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread = threading.local()

    def enter(self, start: Callable[[], None]) -> None:
        if self._tokens is None:
            start()
        else:
            self._waiting.append(start)
            self._let_in(self._tokens)

    def leave(self) -> None:
        if self._tokens is not None:
            self._tokens.append(None)
            self._let_in(self._tokens)

    def _let_in(self, tokens: deque[None]) -> None:
        thread = self._thread.__dict__
        while self._waiting and tokens and "inside" not in thread:
            thread["inside"] = True
            try:
                self._let_one_in(tokens)
            finally:
                del thread["inside"]

    def _let_one_in(self, tokens: deque[None]) -> None:
        try:
            tokens.pop()
        except IndexError:  # another thread was faster
            return
        try:
            start = self._waiting.popleft()
        except IndexError:
            tokens.append(None)
            return
        start()
