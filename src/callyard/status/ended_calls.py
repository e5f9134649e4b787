"""The calls of an executor that have ended: their numbers by function and state, and the latest failures."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, NamedTuple

from ..utils.locks import new_lock, under
from .call_status import ended_status

__all__ = ["EndedCalls", "FailedCall"]

_KEPT = 10  # failures


class FailedCall(NamedTuple):
    """A call that has failed: its function, and its error in words."""

    name: str
    error: str


class EndedCalls:
    """The accounts of one executor. Any thread may write and read them at any moment."""

    def __init__(self) -> None:
        self._lock = new_lock()  # reentrant: a finalizer may cancel a call while this thread holds it
        self._counts: Counter[tuple[str, str]] = Counter()
        self._failures: deque[tuple[str, Any]] = deque(maxlen=_KEPT)  # names, and errors, packed or not

    def note(self, name: str, state: str, number: int = 1) -> None:
        """Count calls of a function that have ended so; fewer, with a negative number."""
        under(self._lock, self._note, (name, state), number)

    def _note(self, key: tuple[str, str], number: int) -> None:
        self._counts[key] += number

    def note_failure(self, name: str, failure: Any) -> bool:
        """Count a failure: an exception, or a packed one with `load`. Return True.

        The words of an exception are kept, not the exception, which refers to all that its function had. A failure that
        comes from another call is not kept: that call's is.
        """
        if isinstance(failure, BaseException):
            failure = FailedCall(name, _words(failure))
        if not hasattr(failure, "names"):
            self._failures.append((name, failure))
        self.note(name, "failed")
        return True

    def note_end(self, future: Any) -> None:
        """Count a future of ours that has just ended."""
        if future.cancelled():
            self.note(future.name, "cancelled")
        elif future.failed():
            self.note_failure(future.name, future.packed_failure() or future.peek_exception())
        else:
            self.note(future.name, "finished")

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the numbers, by function and state."""
        return under(self._lock, self._counts.copy)

    def failures(self) -> list[FailedCall]:
        """Return the latest failures, the last one at the end."""
        return [
            failure if isinstance(failure, FailedCall) else FailedCall(name, _words(failure))
            for name, failure in tuple(self._failures)
        ]


def _words(failure: Any) -> str:
    try:
        error = failure if isinstance(failure, BaseException) else failure.load()
        return ended_status("failed", error=error).words.removeprefix("raised ")
    except (Exception, SystemExit) as unreadable:  # from the user's classes
        return f"an error that cannot be shown ({type(unreadable).__name__})"
