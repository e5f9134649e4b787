"""Large contents of calls: told by their digests, sent when asked for, and kept in files on the other computer.

So an array that goes to a hundred calls, or that an earlier executor has sent, crosses the link once.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
import time
from collections.abc import Iterable
from weakref import WeakValueDictionary

from ...cache.permissions import check_directory, resolve
from ...hashing.digest import content
from ...transport.sent_functions import SentFunctions
from ..batch.call_pickles import CallPickle, LargeContent
from .protocol import SentPickle

__all__ = ["ContentFiles", "FileCopies", "SentContents"]

_KEPT = 7 * 24 * 3600.0  # s since the last use
_COPIES_KEPT = 90 * 24 * 3600.0  # s, longer than jobs wait, as they open copies when they run


class SentContents:
    """What one gateway was told of: contents, which live as long as their calls, functions, and packages."""

    def __init__(self) -> None:
        self.functions = SentFunctions()
        self.packages: set[tuple[str, str]] = set()  # those that the gateway has compared
        self._by_name: WeakValueDictionary[str, LargeContent] = WeakValueDictionary()

    def add(self, pickle: CallPickle) -> SentPickle:
        names = []
        for each in pickle.buffers:
            name = content(b"", memoryview(each.data)).hex()
            names.append(f"{len(each.data)}-{name}")
            self._by_name[names[-1]] = each
        return SentPickle(pickle.data, tuple(names))

    def of(self, name: str) -> bytes | None:
        """Return a content; None if no call has it any more."""
        found = self._by_name.get(name)
        return None if found is None else found.data


class ContentFiles:
    """The contents on the side of the gateway, a file for each. Some are pickles, so no one else may write there.

    Raises:
        UnsafeCache: others could write there.
        OSError: the directory cannot be made.
    """

    def __init__(self, directory: str) -> None:
        self._directory = _own_directory(directory)
        _remove_old(self._directory, _KEPT)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names of those that are not there."""
        return [name for name in dict.fromkeys(names) if not self._is_there(name)]

    def keep(self, name: str, data: bytearray) -> None:
        """Store a content; the file appears whole."""
        _write(self._path(name), data, 0o600)

    def load(self, name: str) -> memoryview:
        """Return a content as memory that may be written to, without effect on the file."""
        descriptor = os.open(self._path(name), os.O_RDONLY)
        try:
            os.utime(descriptor)
            return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
        finally:
            os.close(descriptor)

    def _is_there(self, name: str) -> bool:
        try:
            # Of a file that a full disk has cut short, or another program, the length is another one.
            return os.stat(self._path(name)).st_size == int(name.partition("-")[0])
        except FileNotFoundError:
            return False

    def _path(self, name: str) -> str:
        if not re.fullmatch(r"\d+-[0-9a-f]+", name):
            raise ValueError(f"{name!r} is not the name of a content")
        return os.path.join(self._directory, name)


class FileCopies:
    """The copies of the driver's files (`callyard.File`) on the side of the gateway: one for each content and name."""

    def __init__(self, directory: str) -> None:
        self._directory = _own_directory(directory)
        _remove_old(self._directory, _COPIES_KEPT)

    def keep(self, name: str, data: bytes) -> str:
        """Return the path of a copy, which has the name of the file and cannot be written to."""
        place = os.path.join(self._directory, f"{len(data)}-{content(b'', memoryview(data)).hex()}")
        os.makedirs(place, mode=0o700, exist_ok=True)
        path = os.path.join(place, name)
        if not (os.path.isfile(path) and os.stat(path).st_size == len(data)):
            _write(path, data, 0o400)
        os.utime(place)
        return path


def _own_directory(path: str) -> str:
    """Make a directory, and return its path without links; refuse one that others could write to."""
    directory = resolve(path, None, make=True)
    check_directory(directory, os.lstat(directory), None)
    return directory


def _write(path: str, data: bytes | bytearray, mode: int) -> None:
    beside = f"{path}.{os.getpid()}"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "wb") as file:
            file.write(data)
        os.rename(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _remove_old(directory: str, age: float) -> None:
    for entry in os.scandir(directory):
        with contextlib.suppress(OSError):  # another gateway removes it
            if entry.stat().st_mtime < time.time() - age:
                shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)
