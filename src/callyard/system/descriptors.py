"""File descriptors: the limit of this process, and shares of the limit for parts of the library."""

from __future__ import annotations

import contextlib
import resource
from collections import deque

_OTHERS = 256  # descriptors of the user's program
_MOST = 1 << 16  # mappings of a process are limited, too


def make_room(count: int) -> None:
    """Raise the soft limit of this process to `count` descriptors beside the usual ones, within the hard limit."""
    wanted = count + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS has another limit beside
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


class DescriptorShare:
    """The descriptors allowed for one purpose: a fraction of the current limit of this process."""

    def __init__(self, divisor: int) -> None:
        self._divisor = divisor
        # Counted by the length of a deque, without a lock that a fork or a finalizer could find held.
        self._held: deque[None] = deque()

    def take(self, count: int = 1) -> bool:
        """Count `count` more descriptors; return False, with nothing counted, if the share would be exceeded."""
        if self.held + count > self.most:
            return False
        self._held.extend((None,) * count)
        return True

    def give_back(self, count: int = 1) -> None:
        for _ in range(count):
            self._held.pop()

    def forget(self) -> None:
        """Count nothing as held any more, because a forked child has closed the descriptors."""
        self._held.clear()

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def most(self) -> int:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (_MOST if soft == resource.RLIM_INFINITY else min(soft, _MOST)) // self._divisor
