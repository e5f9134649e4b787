"""Locks that are released in spite of asynchronous exceptions.

Ctrl-C raises in the main thread, and `PyThreadState_SetAsyncExc` in any thread, between two bytecodes: between
acquiring a lock and the following `try`, in a `finally` before the release, at the end of a `with`. So each section has
two enclosing `try` blocks. The outer one releases the lock after an exception within the inner one; an exception within
the outer one finds the lock free. A thread may hold the lock already, because the garbage collector runs a finalizer in
the middle of a section: then the inner section goes ahead, and the outermost section releases.
"""

from __future__ import annotations

from _thread import RLock  # `threading` and `typing` are more than a worker needs to begin

from .lite_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import ParamSpec, Protocol, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

    class OwnedLock(AbstractContextManager[bool, None], Protocol):
        """A reentrant lock that knows its owner, as `threading.Condition` requires too."""

        def acquire(self, blocking: bool = ...) -> bool: ...

        def release(self) -> None: ...

        def _is_owned(self) -> bool: ...

        def _at_fork_reinit(self) -> None: ...


def new_lock() -> OwnedLock:
    return RLock()  # type: ignore[return-value]  # typeshed leaves out the names with an underscore


def under(lock: OwnedLock, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `step` with the lock held; return its result."""
    if lock._is_owned():
        return step(*args, **kwargs)
    try:
        with lock:
            return step(*args, **kwargs)
    except BaseException:
        let_go(lock)
        raise


def if_free(lock: OwnedLock, step: Callable[[], bool]) -> bool:
    """Call `step` with the lock held; return False if any thread holds the lock, this one included."""
    if lock._is_owned():
        return False
    try:
        return lock.acquire(blocking=False) and _then_release(lock, step)
    except BaseException:
        let_go(lock)
        raise


def _then_release(lock: OwnedLock, step: Callable[[], bool]) -> bool:
    """Call `step`, then release the lock.

    This is a function of its own, because the `try` of the caller must enclose the whole of this one.
    """
    try:
        return step()
    finally:
        lock.release()


def let_go(lock: OwnedLock) -> None:
    # The exception may have come before the acquisition, or after the release: then there is nothing to do.
    while lock._is_owned():
        lock.release()
