"""The memory of a sender of calls about its peer, a worker or an agent at the other end of a connection.

Each peer is sent each version of a function once, under a number, and imports modules from the places of this process.
So both kinds of connection ask here about the functions and paths that their peer lacks.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import weakref
from collections import deque

from ..serialize.function_registry import FunctionDefinition

_MANAGERS = "multiprocessing.managers"


class SentFunctions:
    """The numbers of the functions that the peer has."""

    __slots__ = ("_dropped", "_known")

    def __init__(self) -> None:
        self._known: dict[int, weakref.ref[FunctionDefinition]] = {}
        self._dropped: deque[int] = deque()

    def add(self, definition: FunctionDefinition) -> bool:
        """Note that the peer has this version of the function; return True if the function must be sent first."""
        number = definition.id
        if number in self._known:
            return False
        # The finalizer may run in any thread, in the middle of anything here, so it only appends.
        dropped = self._dropped
        self._known[number] = weakref.ref(definition, lambda _: dropped.append(number))
        return True

    def take_dropped(self) -> deque[int]:
        """Return the numbers of functions that no call here can use any more, for the peer to forget."""
        # Only as many as there are now: finalizers may append more meanwhile.
        dropped = deque(self._dropped.popleft() for _ in range(len(self._dropped)))
        for number in dropped:
            del self._known[number]
        return dropped

    def __bool__(self) -> bool:
        """Return True if the peer should forget functions."""
        return bool(self._dropped)


class SentImports:
    """The import path of the peer, and a flag for the key of managers.

    Proxies of `multiprocessing.managers` connect with the authentication key of this process. The key is sent only once
    that module is in use, because a needless copy of a secret should not leave the process.
    """

    __slots__ = ("_has_key", "_path")

    def __init__(self) -> None:
        self._path: list[str] = []
        self._has_key = False

    def changed(self) -> bool:
        """Return True if the peer must be told again."""
        return sys.path != self._path or (not self._has_key and _MANAGERS in sys.modules)

    def take(self) -> tuple[list[str], bytes | None]:
        """Return the import path and the key, None without need for a key; from now on they count as sent."""
        self._path = list(sys.path)
        self._has_key = _MANAGERS in sys.modules
        return self._path, bytes(multiprocessing.current_process().authkey) if self._has_key else None


def working_directory() -> str | None:
    """Return the directory of this process; None if it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return None
