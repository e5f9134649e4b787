"""The end of the interpreter: what was submitted is taken to its end first, as the standard library does."""

from __future__ import annotations

# Its hook must be registered before ours, because the last one registered is called first.
import concurrent.futures.thread  # noqa: F401
import os
import threading
import weakref
from typing import Protocol

begun = False  # from now on nothing is submitted any more


class Ending(Protocol):
    """Something whose calls may still be running when the main thread has ended."""

    def begin_end(self) -> None:
        """Take no more than what there is. Does not wait."""

    def wait_for_end(self) -> None:
        """Return when it is done."""


_things: weakref.WeakSet[Ending] = weakref.WeakSet()


def register(thing: Ending) -> None:
    """See to it that the interpreter waits for `thing`, for as long as somebody refers to it."""
    _things.add(thing)


def _at_exit() -> None:
    global begun
    begun = True
    things = list(_things)
    for thing in things:
        thing.begin_end()
    for thing in things:
        thing.wait_for_end()


os.register_at_fork(after_in_child=_things.clear)  # in a forked child nothing of them runs
# Not `atexit`: that runs after all threads were joined, too late for a thread that needs to be told to end. The
# standard library's executors register in the same place.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
