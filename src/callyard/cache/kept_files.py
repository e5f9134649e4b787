"""The files that results name: each content is kept once, beside the entries, under its size and digest.

    <cache>/files/<size>-<digest>/<name>     one file; further names of the same content are links to it

A content is kept before the entry that names it is published, and nobody may write to it. Entries name contents in
their heads, so that nothing need be unpickled to know which are still needed.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from typing import Any

from ..errors import CacheError
from ..hashing.digest import new_hash
from ..hashing.files import PIECE, File, content_name, name_of_content, usable_name
from .directory import CacheDirectory, remove_file, remove_tree, sync_directory, write_all
from .permissions import check_file

__all__ = ["FOLDER", "IncomingContent", "KeptFiles", "is_content", "size_of"]

FOLDER = "files"
_GRACE = 3600.0  # s for which an unneeded content stays, as the entry that names it may be on its way
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NAME = re.compile(r"(\d{1,19})-[0-9a-f]{64}")

_whole: dict[str, tuple[int, ...]] = {}  # the states of files found whole by this process, by their paths
_MOST = 10_000


def is_content(name: str) -> bool:
    """Return True if a text is the name of a content."""
    return _NAME.fullmatch(name) is not None


def size_of(name: str) -> int:
    """Return the size in the name of a content (bytes)."""
    return int(name.partition("-")[0])


class KeptFiles:
    """The contents in one directory of a cache."""

    def __init__(self, directory: CacheDirectory) -> None:
        self._directory = directory
        self.path = f"{directory.path}/{FOLDER}"

    # -- to keep ---------------------------------------------------------------------------------------

    def keep(self, file: File, sync: bool = False) -> tuple[str, str]:
        """Keep the content of a file, unless it is kept already; return the names of content and file.

        Raises:
            OSError: the file cannot be read, or the content not written.
            CacheError: the file was changed meanwhile.
        """
        content, own = content_name(file), usable_name(os.fspath(file))
        if self.place(content, own) is None:
            with open(file, "rb", buffering=0) as opened, self.incoming(content) as incoming:
                while piece := opened.read(PIECE):
                    incoming.write(piece)
                if not self.accept(incoming, own, sync):
                    raise CacheError(f"{os.fspath(file)!r} was changed while its content was being kept")
        return content, own

    def incoming(self, content: str) -> IncomingContent:
        """Return a content to be written piece by piece, which appears whole or not at all."""
        return IncomingContent(content, *self._directory.temporary(FOLDER))

    def accept(self, incoming: IncomingContent, own: str, sync: bool = False) -> bool:
        """Let a content appear under a name; return False if other bytes than the content's were written."""
        if not incoming.is_whole():
            return False
        incoming.finish(sync)
        if self.place(incoming.content, own) is None:  # no other process was faster
            self._take(incoming, own)
        if sync:
            for directory in (f"{self.path}/{incoming.content}", self.path):
                sync_directory(directory)
        return True

    def _take(self, incoming: IncomingContent, own: str) -> None:
        """Give a written file its place; a damaged one there is replaced."""
        self._directory.subdirectory(FOLDER)
        folder = self._directory.subdirectory(f"{FOLDER}/{incoming.content}")
        for name in os.listdir(folder):  # all are links to one damaged file
            if name != own:
                remove_file(f"{folder}/{name}")
        path = f"{folder}/{own}"
        os.replace(incoming.temporary, path)
        status = os.stat(path)
        self._note(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))

    def place(self, content: str, own: str) -> str | None:
        """Return the path of a kept content under a name, after a look at its bytes; None if it is not there whole."""
        if self.damage(content):
            return None
        path = f"{self.path}/{content}/{own}"
        if not os.path.lexists(path):
            path = self._linked(content, path)
        with suppress(OSError):  # read-only for this process
            os.utime(f"{self.path}/{content}")
        return path

    def _linked(self, content: str, path: str) -> str:
        """Give a content one more name; where there are no links the first name has to do."""
        first = self._first(content)
        assert first is not None, "the content was found whole"
        try:
            os.link(first, path)
        except FileExistsError:
            pass
        except OSError:
            return first
        return path

    # -- to look ---------------------------------------------------------------------------------------

    def find(self, content: str, own: str) -> str:
        """Return the path of a kept content under a name, without a look at its bytes.

        Raises:
            CacheError: it is not there.
        """
        path = f"{self.path}/{content}/{own}"
        if os.path.isfile(path):
            return path
        first = self._first(content)
        if first is None:
            raise CacheError(f"the content of the file {own!r} is not in {self.path} any more: run the call again")
        return self._linked(content, path)

    def damage(self, content: str) -> str:
        """Return what is wrong with a kept content, "" if it is whole. Its bytes are read once by each process.

        Raises:
            UnsafeCache: others could have written it.
        """
        first = self._first(content)
        if first is None:
            return "is missing"
        self._directory.check(self.path)
        self._directory.check(f"{self.path}/{content}")
        try:
            descriptor = os.open(first, _READ)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            check_file(first, status, self._directory.trust, self._directory.group, descriptor)
            state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
            if _whole.get(first) == state:
                return ""
            if status.st_size != size_of(content):
                return f"has {status.st_size} bytes instead of {size_of(content)}"
            digest = new_hash(status.st_size)
            while piece := file.read(PIECE):
                digest.update(piece)
        if name_of_content(status.st_size, digest) != content:
            return "does not match its digest"
        self._note(first, state)
        return ""

    def _note(self, path: str, state: tuple[int, ...]) -> None:
        if len(_whole) >= _MOST:
            _whole.clear()
        _whole[path] = state

    def _first(self, content: str) -> str | None:
        """Return the path of one of the names of a content."""
        try:
            names = sorted(os.listdir(f"{self.path}/{content}"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return f"{self.path}/{content}/{names[0]}" if names else None

    # -- all of them -----------------------------------------------------------------------------------

    def contents(self) -> Iterator[str]:
        """Yield the names of all contents."""
        try:
            names = os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        yield from filter(is_content, names)

    def unneeded(self, needed: Callable[[], set[str] | None], at_once: Container[str] = ()) -> list[str]:
        """Return the contents that no entry names.

        Args:
            needed: returns the contents that entries name; None if that is not certain.
            at_once: contents of removed entries; others count only an hour after their last use.
        """
        there, now = set(self.contents()), time.time()
        named = needed() if there else None
        if named is None:
            return []
        return sorted(content for content in there - named if content in at_once or self._is_old(content, now))

    def remove_unneeded(self, needed: Callable[[], set[str] | None], at_once: Container[str] = ()) -> None:
        """Remove the contents that `unneeded` returns."""
        for content in self.unneeded(needed, at_once):
            self.remove(content)

    def _is_old(self, content: str, now: float) -> bool:
        try:
            return os.stat(f"{self.path}/{content}").st_mtime < now - _GRACE
        except OSError:
            return False

    def remove(self, content: str) -> bool:
        """Remove a content in one step, so that no other process finds half of it; return False if it was gone."""
        gone = self._directory.temporary_name(self.path)
        try:
            os.rename(f"{self.path}/{content}", gone)
        except OSError:
            return False
        return remove_tree(gone)


class IncomingContent:
    """A content that is being written to a temporary file, piece by piece; half of it never counts."""

    def __init__(self, content: str, descriptor: int, temporary: str) -> None:
        self.content, self.temporary = content, temporary
        self._descriptor = descriptor
        self._digest, self.size = new_hash(size_of(content)), 0
        self._closed = False

    def __enter__(self) -> IncomingContent:  # noqa: PYI034  (Self is new in Python 3.11)
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, piece: Any) -> None:
        """Append some bytes.

        Raises:
            OSError: there is no room.
        """
        write_all(self._descriptor, piece, self.size)
        self._digest.update(piece)
        self.size += len(piece)

    def is_whole(self) -> bool:
        """Return True if what was written is the content."""
        return name_of_content(self.size, self._digest) == self.content

    def finish(self, sync: bool = False) -> None:
        """Let nobody write to the file any more."""
        os.fchmod(self._descriptor, stat.S_IMODE(os.fstat(self._descriptor).st_mode) & 0o440)
        if sync:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Remove what has not got another place."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)
            remove_file(self.temporary)
