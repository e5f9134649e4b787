"""Failures kept in a cache: to be looked at, not to answer calls.

They lie apart from the results (`CacheDirectory.failures`), so no lookup of a result meets one. A failure counts until
there is a result of the same key, and for 30 days at most.
"""

from __future__ import annotations

import os
import time

from ..utils.lite_stdlib import Any, suppress
from ..utils.shown_text import kept_message
from .directory import CacheDirectory

__all__ = ["describe", "sweep", "sweep_once"]

KEPT = 30 * 86400.0  # s


def describe(error: BaseException) -> dict[str, Any]:
    """Return what can be told of an exception without opening it: the fields of `events.event.Failure`."""
    told: dict[str, Any] = {"error": type(error).__qualname__, "message": kept_message(error)}
    code = getattr(error, "exitcode", None)  # of `WorkerLost`
    if type(code) is int and code < 0:
        from ..system.exit_status import signal_name  # here, because few calls end so

        told["signal"] = signal_name(-code)
    elif type(code) is int:
        told["exit_code"] = code
    return told


_swept: set[str] = set()  # directories


def sweep(directory: CacheDirectory, now: float | None = None) -> int:
    """Remove the failures that are too old, or have a result by now; return their number."""
    removed, before = 0, (time.time() if now is None else now) - KEPT
    for key, file in list(directory.failures.entries()):
        with suppress(OSError):  # removed meanwhile
            if directory.exists(key) or file.stat(follow_symlinks=False).st_mtime < before:
                os.unlink(file.path)
                removed += 1
    return removed


def sweep_once(directory: CacheDirectory) -> None:
    """Do this once in each process, as a process with one failure often has more."""
    if directory.path not in _swept:
        _swept.add(directory.path)
        sweep(directory)
