"""Failures that no thread has asked for: one line when the program ends, as asyncio has for its tasks.

A failure has a number from the moment in which its future fails. The futures that fail because of that one (parts of
the result, calls that take it as an argument) have the same number, so to ask any of them is to ask for the failure.
Only failures take steps here; a future with a result takes none.

The line is told at `atexit`: until then a program may ask, also after the end of a `with` block. Each operation on the
tables is atomic, because failures come from any thread, and from finalizers in the middle of anything.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from contextlib import suppress
from itertools import count

from ..utils.error_words import error_words
from ..utils.shown_text import one_line
from .lazy import Lazy

__all__ = ["asked", "begin_silence", "end_silence", "forget_all", "kept", "note", "tell"]

_log = logging.getLogger("callyard")
_KEPT = 20  # failures kept to be shown: of others only the name, as an error may hold large objects
_LONGEST = 300  # characters of the first error

_numbers = count()
_silent: weakref.WeakSet[object] = weakref.WeakSet()  # executors whose workers were ended, until their own end
_names: dict[int, str] = {}  # of the called functions, by number, the earliest first
_failures: dict[int, Lazy | BaseException] = {}
_places: dict[int, str] = {}  # the caches that keep failures, by number


def note(name: str, failure: Lazy | BaseException) -> int:
    """Note a failure of a call, and return its number."""
    number = next(_numbers)
    if len(_failures) < _KEPT:
        _failures[number] = failure
    _names[number] = name
    return number


def kept(number: int, directory: str) -> None:
    """Note the cache that keeps a failure."""
    if number in _names:
        _places[number] = directory


def asked(number: int) -> None:
    """Forget a failure, because a thread has asked for it."""
    for table in (_names, _failures, _places):
        table.pop(number, None)


def forget_all() -> None:
    """Forget all failures so far, because an exception tells of the trouble."""
    for table in (_names, _failures, _places):
        table.clear()


def begin_silence(executor: object) -> None:
    """Tell of nothing, because an executor ends its workers on purpose, and with them their calls."""
    _silent.add(executor)


def end_silence(executor: object) -> None:
    """Tell of later failures again, and of none so far, if that executor has been silent and has ended."""
    if executor in _silent:
        forget_all()
        _silent.discard(executor)


def tell() -> None:
    """Log one line about the failures that no thread has asked for, if there are any, and forget them."""
    names, failures, places = _names.copy(), _failures.copy(), _places.copy()
    forget_all()
    if not names or _silent:
        return
    import shlex  # here, because few programs end so

    first = min(names)
    what = "1 call of Callyard has failed, and its result was" if len(names) == 1 else (
        f"{len(names):,} calls of Callyard have failed, and their results were"
    )  # fmt: skip
    error = _as_text(failures.get(first))
    logs = f", or see `callyard logs {shlex.quote(places[first])}`" if first in places else ""
    _log.warning(
        "%s never asked for; the first: %r%s. Ask with future.result() or future.exception()%s",
        what, names[first], error, logs,
    )  # fmt: skip


def _as_text(failure: Lazy | BaseException | None) -> str:
    """Return the words of an error after the name of its call; "" for one that is not kept, or cannot be opened."""
    text = ""
    with suppress(Exception, SystemExit):  # from the user's code, which opens it
        error = failure if failure is None or isinstance(failure, BaseException) else failure.load()
        if error is not None:
            text = f" raised {one_line(error_words(error), _LONGEST)}"
    return text


atexit.register(tell)
if hasattr(os, "register_at_fork"):  # a forked child did not submit these calls
    os.register_at_fork(after_in_child=forget_all)
