"""The end of the interpreter: calls already submitted are completed first, as with the standard library's executors."""

from __future__ import annotations

# Imported first to register its hook before ours: hooks run in the reverse order of registration.
import concurrent.futures.thread  # noqa: F401
import os
import threading
import weakref
from typing import Protocol

begun = False  # from now on nothing is submitted any more


class Ending(Protocol):
    """An owner of calls that may still be running when the main thread has ended."""

    def begin_end(self) -> None:
        """Accept no more calls. Return without waiting."""

    def wait_for_end(self) -> None:
        """Wait until all calls are done."""


_things: weakref.WeakSet[Ending] = weakref.WeakSet()


def register(thing: Ending) -> None:
    """Make the interpreter wait for `thing` at its end, unless `thing` is garbage-collected before."""
    _things.add(thing)


def _at_exit() -> None:
    global begun
    begun = True
    things = list(_things)
    for thing in things:
        thing.begin_end()
    for thing in things:
        thing.wait_for_end()


os.register_at_fork(after_in_child=_things.clear)  # a forked child has none of their threads
# Not `atexit`: its functions run after all threads were joined, too late to tell a thread to end. The standard
# library's executors register in the same place.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
