"""File descriptors: how many this process may have open, and the shares of them that this library keeps to."""

from __future__ import annotations

import contextlib
import resource
from collections import deque

_OTHERS = 256  # what the user's program has open
_MOST = 1 << 16  # a process may have only so many mappings, too


def make_room(count: int) -> None:
    """Let this process open so many beside what it has usually, as far as its hard limit goes."""
    wanted = count + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS has another limit beside
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


class DescriptorShare:
    """The descriptors that one purpose may take: a part of those that this process may have at this moment."""

    def __init__(self, divisor: int) -> None:
        self._divisor = divisor
        # Its length counts: that needs no lock, which a fork or a finalizer might find held.
        self._held: deque[None] = deque()

    def take(self, count: int = 1) -> bool:
        """Count so many more; False, and nothing is counted, if that is more than the share."""
        if self.held + count > self.most:
            return False
        self._held.extend((None,) * count)
        return True

    def give_back(self, count: int = 1) -> None:
        for _ in range(count):
            self._held.pop()

    def forget(self) -> None:
        """Nothing is held any more."""
        self._held.clear()

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def most(self) -> int:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (_MOST if soft == resource.RLIM_INFINITY else min(soft, _MOST)) // self._divisor
