"""The peer: what the sender of calls remembers of a worker or an agent at the other end of a connection.

Both are sent each version of a function once, under its number, and both are to import modules from where this process
would. So both connections ask here what their peer does not know yet.
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
        """Note that the peer has this version of the function; return whether it must be sent first."""
        number = definition.id
        if number in self._known:
            return False
        # The finalizer may run in any thread, in the middle of anything here, so it does no more than to append.
        dropped = self._dropped
        self._known[number] = weakref.ref(definition, lambda _: dropped.append(number))
        return True

    def take_dropped(self) -> deque[int]:
        """Return the numbers of functions that nobody here can call any more; the peer is to forget them."""
        dropped = deque(self._dropped.popleft() for _ in range(len(self._dropped)))
        for number in dropped:
            del self._known[number]
        return dropped

    def __bool__(self) -> bool:
        """Return whether there is something to be forgotten."""
        return bool(self._dropped)


class SentImports:
    """The import path that the peer has, and whether it has the key of managers.

    Proxies of `multiprocessing.managers` connect with the authentication key of this process. It is sent only once that
    module is in use, because a key that is not needed should not leave the process.
    """

    __slots__ = ("_has_key", "_path")

    def __init__(self) -> None:
        self._path: list[str] = []
        self._has_key = False

    def changed(self) -> bool:
        """Return whether the peer must be told again."""
        return sys.path != self._path or (not self._has_key and _MANAGERS in sys.modules)

    def take(self) -> tuple[list[str], bytes | None]:
        """Return the import path and the key, None if it is not needed; the peer is going to have them."""
        self._path = list(sys.path)
        self._has_key = _MANAGERS in sys.modules
        return self._path, bytes(multiprocessing.current_process().authkey) if self._has_key else None


def working_directory() -> str | None:
    """Return the directory of this process; None if it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return None
