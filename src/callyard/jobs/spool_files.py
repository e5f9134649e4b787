"""Files of a directory below `jobs/`: they appear whole, and nobody else can have written them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..cache.directory import CacheDirectory
from ..cache.format.io import write_all
from ..cache.permissions import check_file
from ..errors import CacheError
from ..utils.lite_typing import Any

__all__ = ["DirectoryFiles", "names"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # it may be a pipe that somebody put there


class DirectoryFiles:
    """The files in one directory of a cache."""

    def __init__(self, home: CacheDirectory, path: str) -> None:
        self.home, self.path = home, path

    def _write(self, name: str, *parts: bytes) -> None:
        self._write_into(self.path, name, *parts)

    def _write_into(self, place: str, name: str, *parts: bytes) -> None:
        """Write a file. The directory is not made again: where it is gone nobody waits any more."""
        descriptor, temporary = self.home.temporary_in(place)
        try:
            at = 0
            for part in parts:
                write_all(descriptor, part, at)
                at += len(part)
            os.fsync(descriptor)  # what a job finds on another machine must be there whatever happens to this one
        finally:
            os.close(descriptor)
        os.rename(temporary, f"{place}/{name}")

    def _read(self, name: str) -> bytes:
        with open(self._open(name), "rb") as file:
            return file.read()

    def _parsed(self, name: str, parse: Callable[[bytes], Any]) -> Any:
        """What is made of a file. Raises CacheError if that is not ours, FileNotFoundError if it is gone."""
        content = self._read(name)
        try:
            return parse(content)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise CacheError(f"{self.path}/{name} is damaged: {type(error).__name__}: {error}") from error

    def _open(self, name: str) -> int:
        """A descriptor of a file that nobody else can have written: what is in it may be unpickled."""
        path = f"{self.path}/{name}"
        descriptor = os.open(path, _READ)
        try:
            check_file(path, os.fstat(descriptor), self.home.trust, self.home.group, descriptor)
            for place in (f"{self.home.path}/jobs", self.path):
                self.home.check(place)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def names(path: str) -> Sequence[str]:
    """What is in a directory; nothing if that is not there."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return ()
