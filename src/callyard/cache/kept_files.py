"""The files that results name: each content is kept once, beside the entries, under its size and digest.

    <cache>/files/<size>-<digest>/<name>     one file; further names of the same content are links to it

A content is kept before the entry that names it is published, and nobody may write to it. Entries name contents in
their heads, so that nothing need be unpickled to know which are still needed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterator
from contextlib import suppress

from ..errors import CacheError
from ..hashing.digest import new_hash
from ..hashing.files import PIECE, File, content_name, name_of_content, usable_name
from .directory import CacheDirectory, remove_file, remove_tree, sync_directory
from .incoming_content import HalfLost, IncomingContent, is_content, received, size_of
from .permissions import check_file

__all__ = ["FOLDER", "KeptFiles"]

FOLDER = "files"
_HALF = ".tmp-half~"  # with which the name of the file for halves of a content begins
_HALVES_KEPT = 7 * 24 * 3600.0  # s
_GRACE = 3600.0  # s for which an unneeded content stays, as the entry that names it may be on its way
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_whole: dict[str, tuple[int, ...]] = {}  # the states of files found whole by this process, by their paths
_MOST = 10_000


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

    def received(self, content: str) -> int:
        """Return how many bytes have come of a content that has not come as a whole."""
        return received(content, self._half(content))

    def resumed(self, content: str, start: int) -> IncomingContent:
        """Return a content to be written behind the first bytes that have come.

        Raises:
            HalfLost: they are not there any more.
        """
        if self._directory.group is None:  # which has rights that the file of a half does not give
            self._directory.subdirectory(FOLDER)
            try:
                return IncomingContent.resume(content, self._half(content), start)
            except HalfLost:
                if start:
                    raise
        return self.incoming(content)

    def _half(self, content: str) -> str:
        return f"{self.path}/{_HALF}{_checked(content)}"

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
        path = self._path(incoming.content, own)
        os.replace(incoming.temporary, path)
        status = os.stat(path)
        self._note(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))

    def place(self, content: str, own: str) -> str | None:
        """Return the path of a kept content under a name, after a look at its bytes; None if it is not there whole."""
        path = self._path(content, own)
        if self.damage(content):
            return None
        if not os.path.lexists(path):
            path = self._linked(content, path)
        with suppress(OSError):  # read-only for this process
            os.utime(f"{self.path}/{content}")
        return path

    def _path(self, content: str, own: str) -> str:
        """Return the path of a content under a name. Both may come from another computer."""
        if own != usable_name(own):
            raise CacheError(f"{own!r} is not the name of a file")
        return f"{self.path}/{_checked(content)}/{own}"

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
        path = self._path(content, own)
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
        """Remove the contents that `unneeded` returns, and halves of others with which nobody has gone on."""
        self.remove_halves()
        for content in self.unneeded(needed, at_once):
            self.remove(content)

    def _is_old(self, content: str, now: float) -> bool:
        try:
            return os.stat(f"{self.path}/{content}").st_mtime < now - _GRACE
        except OSError:
            return False

    def remove_halves(self) -> None:
        """Remove halves of contents with which nobody has gone on for a week."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self.path):
                with suppress(OSError):
                    if entry.name.startswith(_HALF) and entry.stat().st_mtime < time.time() - _HALVES_KEPT:
                        os.unlink(entry.path)

    def remove(self, content: str) -> bool:
        """Remove a content in one step, so that no other process finds half of it; return False if it was gone."""
        gone = self._directory.temporary_name(self.path)
        try:
            os.rename(f"{self.path}/{content}", gone)
        except OSError:
            return False
        return remove_tree(gone)


def _checked(content: str) -> str:
    """Return the name of a content, which leads to no other directory."""
    if not is_content(content):
        raise CacheError(f"{content!r} is not the name of a content")
    return content
