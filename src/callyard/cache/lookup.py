"""The lookup of a call in a cache: an undamaged result from a trusted file, or none."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
import warnings
from contextlib import suppress
from types import FrameType
from typing import Any

from ..errors import CacheError
from .directory import CacheDirectory
from .format.record_file import DamagedFile, Header, Stored, read

_DAY = 86400 * 10**9  # ns

_log = logging.getLogger("callyard")


class CachedResult:
    """A stored result or exception, loaded on demand."""

    __slots__ = ("_stored", "failed", "token")

    def __init__(self, stored: Stored) -> None:
        self._stored = stored.output_alone()  # without the arguments, because there may be a hundred thousand results
        self.failed = stored.head.state == "failed"
        self.token = stored.token or None

    @property
    def key(self) -> str:
        return self._stored.head.key

    @property
    def name(self) -> str:
        """The name of the function."""
        return self._stored.head.name

    @property
    def size(self) -> int:
        """The size of the whole entry (bytes)."""
        return self._stored.head.size

    def load_mapped(self) -> Any:
        """Return the result to pass it on: large arrays in it stay in the file until they are looked at."""
        return self._stored.mapped().output()

    def load(self) -> Any:
        if not self.failed:
            return self._stored.output()
        from ..errors import RemoteTraceback  # here, because most calls do not fail

        error, text = self._stored.failure()
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))  # the class may be frozen
        return error


def find(directory: CacheDirectory, key: str, *, whole: bool = False) -> CachedResult | None:
    """Return the stored result of a key; None, with a warning, for a damaged or unreadable file.

    A damaged file is set aside. A large file is read again to load its content; with `whole`, the content is kept
    in memory.

    Raises:
        UnsafeCache: others could have written the file.
        VersionMismatch: a newer Callyard wrote the file.
    """
    return look_up(directory, key, whole)[0]


def look_up(directory: CacheDirectory, key: str, whole: bool = False) -> tuple[CachedResult | None, bool]:
    """Return the result as `find` does, and True for a file that can be neither used nor moved away."""
    path = directory.record(key)
    try:
        return _open(directory, key, whole), False
    except FileNotFoundError:
        return None, False
    except DamagedFile as damage:
        moved = _set_aside(directory, key, str(damage))
        tell(f"{damage}; {moved or 'it cannot be moved away'}, and the call runs again")
        return None, not moved
    except OSError as error:
        tell(f"{path} cannot be read, so the call runs again: {error.strerror}")
        return None, True


def _open(directory: CacheDirectory, key: str, whole: bool) -> CachedResult:
    path = directory.record(key)
    try:
        descriptor = directory.open_record(key)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        descriptor = directory.open_record(key)  # NFS: another machine has replaced the file just now
    try:
        stored = read(descriptor, path, whole)
        _note_use(descriptor)
    finally:
        os.close(descriptor)
    if stored.head.key != key:
        _refuse_another_case(directory, key, stored.head.key)
        raise DamagedFile(f"{path} holds another call, {stored.head.key}")
    check_files(directory, stored.head)
    return CachedResult(stored)


def check_files(directory: CacheDirectory, head: Header) -> None:
    """Raise DamagedFile unless the contents of the files that a result names are kept whole."""
    if not head.files:
        return
    from .incoming_content import is_content  # here, because few results name files
    from .kept_files import KeptFiles

    kept = KeptFiles(directory)
    for content in head.files:
        if damage := kept.damage(content) if is_content(content) else "has a name that makes no sense":
            raise DamagedFile(
                f"{directory.record(head.key)} names a file of which the content {kept.path}/{content} {damage}"
            )


def _note_use(descriptor: int) -> None:
    """Let the file tell that it was used, to the day; by itself not every file system does that."""
    status, now = os.fstat(descriptor), time.time_ns()
    if status.st_atime_ns < now - _DAY:
        with suppress(OSError):  # a write-protected cache, or another user's file
            os.utime(descriptor, ns=(now, status.st_mtime_ns))


def _refuse_another_case(directory: CacheDirectory, key: str, other: str) -> None:
    """Raise an error if a key chosen by the user shares its file with another one, on a disk that ignores case."""
    if key.casefold() == other.casefold():
        raise CacheError(
            f"cache_key {key!r} is {other!r} on the disk of {directory.path}; use keys that differ otherwise"
        )


def _set_aside(directory: CacheDirectory, key: str, reason: str) -> str:
    """Set a damaged file aside; return words for its new path, "" if the file has to stay."""
    if not directory.writable:
        return "it is left alone, as the cache is read-only"
    try:
        return f"it was moved to {directory.set_aside(key, reason)}"
    except (OSError, CacheError):
        return ""


def tell(message: str) -> None:
    """Warn of a harmless problem with a file, and log the problem; where warnings are errors, only log."""
    try:
        warnings.warn(message, stacklevel=_level_of_caller())
    except Warning:  # where warnings are errors, the call still goes on
        _log.warning("%s", message)
    else:
        _log.info("%s", message)


def _level_of_caller() -> int:
    """Return the `stacklevel` at which a caller outside Callyard is, counted from the calling function."""
    package, level = __name__.partition(".")[0] + ".", 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(package):
        frame, level = frame.f_back, level + 1
    return level
