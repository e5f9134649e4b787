"""Let so many in at once, and the others wait their turn without a thread."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from .locks import new_lock, under


class CapacityLimiter:
    """Who was let in calls `leave()` when done, once or more often: an exception may interrupt it, also here."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._lock = new_lock()  # a finalizer may enter or leave while this thread holds it
        self._inside: set[Hashable] = set()
        self._waiting: dict[Hashable, Callable[[], object]] = {}
        self._let_in: dict[Hashable, Callable[[], object]] = {}  # and to be told so

    def enter(self, who: Hashable, start: Callable[[], object]) -> bool:
        """Whether `who` may start at once; otherwise `start()` is called in the thread of one who leaves.

        It is called a second time if an exception interrupts it.
        """
        return self._most is None or under(self._lock, self._enter, who, start)

    def leave(self, who: Hashable) -> None:
        if self._most is None:
            return
        try:
            under(self._lock, self._leave, who)
            self._tell()
        except BaseException:
            under(self._lock, self._leave, who)
            self._tell()
            raise

    def _enter(self, who: Hashable, start: Callable[[], object]) -> bool:
        if not self._waiting and len(self._inside) < (self._most or 1):
            self._inside.add(who)
            return True
        self._waiting[who] = start
        return False

    def _leave(self, who: Hashable) -> None:
        self._inside.discard(who)
        self._waiting.pop(who, None)
        while self._waiting and len(self._inside) < (self._most or 1):
            first = next(iter(self._waiting))
            self._let_in[first] = self._waiting[first]
            self._inside.add(first)
            del self._waiting[first]

    def _tell(self) -> None:
        for who, start in tuple(self._let_in.items()):
            start()
            self._let_in.pop(who, None)
