"""Locks that no exception leaves held, whenever it arrives.

Ctrl-C raises in the main thread, and `PyThreadState_SetAsyncExc` in any, between two bytecodes: between taking a lock
and the `try` after it, in a `finally` before it has let go, at the end of a `with`. So each section is enclosed twice.
An exception that arrives in the inner enclosure is seen to by the outer one; one that arrives in the outer finds the
lock free. A thread that has the lock already, because the garbage collector runs a finalizer in the middle of a
section, just goes on: its outermost section lets go.
"""

from __future__ import annotations

from _thread import RLock  # `threading` and `typing` are more than a worker needs to begin

from .lite_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import ParamSpec, Protocol, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

    class OwnedLock(AbstractContextManager[bool, None], Protocol):
        """A reentrant lock: it knows whether this thread has it, as `threading.Condition` asks it, too."""

        def acquire(self, blocking: bool = ...) -> bool: ...

        def release(self) -> None: ...

        def _is_owned(self) -> bool: ...

        def _at_fork_reinit(self) -> None: ...


def new_lock() -> OwnedLock:
    return RLock()  # type: ignore[return-value]  # its types leave out what begins with an underscore


def under(lock: OwnedLock, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `step` with the lock; return what it returns."""
    if lock._is_owned():
        return step(*args, **kwargs)
    try:
        with lock:
            return step(*args, **kwargs)
    except BaseException:
        let_go(lock)
        raise


def if_free(lock: OwnedLock, step: Callable[[], bool]) -> bool:
    """Call `step` with the lock; return False if the lock is held, be it by this thread further up its stack."""
    if lock._is_owned():
        return False
    try:
        return lock.acquire(blocking=False) and _then_release(lock, step)
    except BaseException:
        let_go(lock)
        raise


def _then_release(lock: OwnedLock, step: Callable[[], bool]) -> bool:
    """Call `step`, then release the lock.

    A function of its own, because a second `try` in the same function would not be within the reach of the first.
    """
    try:
        return step()
    finally:
        lock.release()


def let_go(lock: OwnedLock) -> None:
    while lock._is_owned():
        lock.release()
