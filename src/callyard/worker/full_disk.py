"""The outcome of a call on a disk that takes no new file: in the block of a file that is there, or in a name alone.

A file system gives space by the block, so the small file that tells of a call's start has room for more. If the outcome
does not fit into that, an empty file says that the call failed: a name takes no block on most file systems.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from ..cache.directory import write_all
from ..errors import CacheError
from ..jobs.batch import CallOutcome
from ..jobs.call_files import CallFiles
from ..utils.error_words import error_words
from ..utils.lite_stdlib import suppress
from .exceptions import dump_error

__all__ = ["write_shortly"]

_CHARACTERS = 1000  # of a traceback, from its end, and of a message, from its beginning
_BLOCK = 512  # bytes, the unit of `st_blocks`
_OPEN = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_shortly(folder: CallFiles, number: int, end: CallOutcome, problem: OSError) -> bool:
    """Write down how a call ended, after an attempt that met a `problem`; return False if nothing can be written."""
    for outcome in _shorter(folder, number, end, problem):
        with suppress(OSError):
            _write_in_place(folder, number, outcome.dump())
            return True
    with suppress(OSError):  # what was there is gone perhaps, and has made room
        folder.end(number, end)
        return True
    return end.state == "failed" and _write_empty(folder, number)


def _shorter(folder: CallFiles, number: int, end: CallOutcome, problem: OSError) -> Iterator[CallOutcome]:
    """Yield the outcome in fewer and fewer words."""
    yield end
    if end.state != "failed":
        return
    error, text = end.error()
    why = f"cut, because {folder.home.path} took no more: {problem.strerror}"
    yield end.replace(failure=dump_error(error, f"({why})\n{str(text)[-_CHARACTERS:]}"))
    words = error_words(error)[:_CHARACTERS]
    name = folder.batch.calls[number].name
    yield end.replace(failure=dump_error(CacheError(f"{name!r} failed with {words} ({why})"), ""))


def _write_in_place(folder: CallFiles, number: int, content: bytes) -> None:
    """Write an outcome over the start of the call, in blocks already given by the file system.

    The file is renamed first, because no reader may find it half written, and is removed after a failure.
    """
    begun, writing = f"{folder.path}/{number}.begun", folder.home.temporary_name(folder.path)
    descriptor = os.open(begun, _OPEN)
    try:
        status = os.fstat(descriptor)
        if len(content) > max(status.st_size, status.st_blocks * _BLOCK):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), begun)
        os.rename(begun, writing)
        try:
            write_all(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
            os.rename(writing, f"{folder.path}/{number}.end")
        except OSError:  # a file system that never writes in place
            os.unlink(writing)
            raise
    finally:
        os.close(descriptor)


def _write_empty(folder: CallFiles, number: int) -> bool:
    try:
        os.close(os.open(f"{folder.path}/{number}.end", _OPEN | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:
        return False
    return True
