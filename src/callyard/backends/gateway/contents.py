"""Contents of calls: told by their digests, sent in pieces when asked for, and kept in files on the other computer.

There are two kinds, large parts of pickles and files (`callyard.File`). So an array that goes to a hundred calls, or
that an earlier executor has sent, crosses the link once, and so does a file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from ...cache.directory import CacheDirectory
from ...cache.incoming_content import HalfLost, IncomingContent, is_content, received, size_of
from ...cache.kept_files import FOLDER, KeptFiles
from ...cache.permissions import check_directory, resolve
from ...errors import CacheError
from ...hashing.files import TravellingFile
from ...serialize.shared_memory import BorrowedSegment, Memory
from ...transport.sent_functions import SentFunctions
from ..batch.call_pickles import CallPickle, LargeContent
from .message_streams import LARGE, MOST, BytesSource, Piece, Source, SourceLost
from .protocol import ContentName, SentCall, SentFile, SentPickle, WantedContent

__all__ = ["ContentFiles", "ContentSink", "FileCopies", "FileSource", "SentContents", "remove_old"]

_KEPT = 7 * 24 * 3600.0  # s since the last use
_COPIES_KEPT = 90 * 24 * 3600.0  # s, longer than jobs wait, as they open copies when they run


# ------------------------------------------------------------------ to send


class FileSource:
    """The content of a file, read as it is sent."""

    def __init__(self, name: str, path: str, start: int = 0) -> None:
        self._path, self._start = path, min(start, size_of(name))
        self.size = size_of(name) - self._start

    def pieces(self, most: int) -> Iterator[Piece]:
        """Yield the bytes; the file may have become another one, which the receiver notices by the digest."""
        left = self.size
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(self._start)
                while left and (piece := file.read(min(most, left))):
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise SourceLost(f"{self._path!r} cannot be read any more: {error.strerror}") from error
        if left:
            raise SourceLost(f"{self._path!r} has become shorter meanwhile")


class _DiskSource:
    """The bytes of a segment, read from its file as they are sent, so that they are never in memory together."""

    def __init__(self, segment: BorrowedSegment, start: int) -> None:
        self._segment, self._start = segment, min(start, segment.size)
        self.size = segment.size - self._start

    def pieces(self, most: int) -> Iterator[Piece]:
        for place in range(0, self.size, most):
            yield os.pread(self._segment.fd, min(most, self.size - place), self._start + place)


def _source(memory: Memory, start: int) -> Source:
    return _DiskSource(memory, start) if isinstance(memory, BorrowedSegment) else BytesSource(memory.read(), start)


class SentContents:
    """What one gateway was told of: contents, which live as long as their calls, functions, and packages."""

    def __init__(self) -> None:
        self.functions = SentFunctions()
        self._packages: dict[tuple[str, str], int] = {}  # those that the gateway was told of, with their numbers
        self._by_name: WeakValueDictionary[str, LargeContent] = WeakValueDictionary()
        self._paths: dict[str, str] = {}  # of files, by content
        self._calls: dict[str, dict[int, None]] = {}  # the numbers of those that have a large content, in their order
        self._large: dict[int, list[str]] = {}  # the large contents of these calls

    def add(self, pickle: CallPickle) -> SentPickle:
        names = []
        for each in pickle.buffers:
            names.append(f"{each.size}-{each.token.hex()}")
            self._by_name[names[-1]] = each
        return SentPickle(pickle.data, tuple(names))

    def add_packages(self, packages: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[int]]:
        """Note the packages that a call uses; return those that are new to the gateway, and the numbers of all."""
        used = sorted(packages.items())
        new = [each for each in used if each not in self._packages]
        self._packages.update(zip(new, count(len(self._packages))))
        return new, [self._packages[each] for each in used]

    def add_files(self, files: Iterable[TravellingFile]) -> list[SentFile]:
        """Note the files of a call, which must not change before it has ended."""
        files = list(files)
        self._paths.update((each.content, each.path) for each in files)
        return [SentFile(each.content, each.own) for each in files]

    def note(self, number: int, call: SentCall) -> None:
        """Note the large contents of a call, whose future shows the progress of each."""
        values = [given.value for given in call.inputs if given.value is not None]
        names = [name for pickle in (*call.pickles, *values) for name in pickle.contents]
        large = [name for name in (*names, *(each.content for each in call.files)) if size_of(name) >= LARGE]
        if large:
            self._large[number] = large
        for name in large:
            self._calls.setdefault(name, {})[number] = None

    def ended(self, number: int) -> None:
        """Note that a call has ended."""
        for name in self._large.pop(number, ()):
            calls = self._calls.get(name, {})
            calls.pop(number, None)
            if not calls:
                self._calls.pop(name, None)

    def calls_with(self, wanted: ContentName) -> list[int]:
        """Return the numbers of the calls with a large content."""
        return list(self._calls.get(wanted.name, ()))

    def of(self, wanted: WantedContent) -> Source | None:
        """Return a content; None if no call has it any more."""
        (is_file, name, _), start = wanted
        if is_file:
            path = self._paths.get(name)
            return None if path is None else FileSource(name, path, start)
        found = self._by_name.get(name)
        return None if found is None else _source(found.memory, start)


# ------------------------------------------------------------------ to receive


class ContentSink:
    """A content as it comes. A disk without room is a problem of this content, and not of the connection.

    Attributes:
        again: True if the whole content is to be asked for, as what had come before is of no use.
    """

    def __init__(
        self,
        open_content: Callable[[int], IncomingContent],
        start: int = 0,
        came: Callable[[int], object] = id,
        data: Any = None,
    ) -> None:
        """Open a content for what comes from `start` on; or for `data`, which has come already."""
        self.problem, self.again = "", False
        self._start = start
        self.incoming: IncomingContent | None = None
        self._came, self._memory = came, memoryview(bytearray(MOST) if data is None else data)
        try:
            self.incoming = open_content(start)
        except HalfLost:
            self.again = True
        except (OSError, CacheError) as error:
            self._failed(error)
        if data is not None:
            self.took(len(data))

    def room(self, size: int) -> memoryview:
        return self._memory[:size]

    def took(self, size: int) -> None:
        self._came(size)
        if self.incoming is not None:
            try:
                self.incoming.write(self._memory[:size])
            except OSError as error:
                self._failed(error)

    def _failed(self, error: OSError | CacheError) -> None:
        self.problem = _not_stored(error)
        self._drop(keep_half=False)

    def result(self) -> ContentSink:
        return self

    def close(self) -> None:
        self._drop(keep_half=True)

    def _drop(self, keep_half: bool) -> None:
        if self.incoming is not None:
            self.incoming.close(keep_half)
            self.incoming = None

    def accepted(self, accept: Callable[[IncomingContent], bool]) -> str:
        """Let the content appear, if it is the one that was asked for; return what went wrong."""
        incoming, self.incoming = self.incoming, None
        if incoming is None:
            return self.problem or "it did not come"
        with incoming:
            try:
                if accept(incoming):
                    return ""
                self.again = self._start > 0
                return "it was changed meanwhile"
            except (OSError, CacheError) as error:
                return _not_stored(error)


def _not_stored(error: OSError | CacheError) -> str:
    return f"it cannot be stored: {error.strerror if isinstance(error, OSError) else error}"


class ContentFiles:
    """Large parts of pickles on the side of the gateway, a file for each. No one else may write there.

    Raises:
        UnsafeCache: others could write there.
        OSError: the directory cannot be made.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._make()
        remove_old(self._directory, _KEPT)

    def _make(self) -> None:
        """Make the directory. Large sites remove empty ones after some weeks, also while a gateway lives."""
        self._directory = resolve(self._directory, None, make=True)
        check_directory(self._directory, os.lstat(self._directory), None)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names of those that are not there."""
        return [name for name in dict.fromkeys(names) if not self._is_there(name)]

    def received(self, name: str) -> int:
        """Return how many bytes have come of a content that is missing."""
        return received(name, self._half(name))

    def incoming(self, name: str, start: int) -> IncomingContent:
        """Return a content to be written behind the first bytes that have come.

        Raises:
            HalfLost: they are not there any more.
        """
        self._make()
        try:
            return IncomingContent.resume(name, self._half(name), start)
        except HalfLost:
            if start:
                raise
        path = self._path(name)
        beside = f"{path}.{os.urandom(6).hex()}"  # another gateway may be receiving the same
        return IncomingContent(name, os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), beside)

    def accept(self, incoming: IncomingContent) -> bool:
        """Let a content appear; return False if other bytes were written."""
        if incoming.is_whole():
            os.rename(incoming.temporary, self._path(incoming.content))
            return True
        return False

    def load(self, name: str) -> memoryview:
        """Return a content as memory that may be written to, without effect on the file."""
        descriptor = os.open(self._path(name), os.O_RDONLY)
        try:
            os.utime(descriptor)
            return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
        finally:
            os.close(descriptor)

    def _is_there(self, name: str) -> bool:
        path = self._path(name)
        try:
            # Of a file that another program has cut short the length is another one.
            if os.stat(path).st_size != size_of(name):
                return False
            os.utime(path)  # as the call may wait for other contents, while another gateway removes old ones
        except FileNotFoundError:
            return False
        return True

    def _half(self, name: str) -> str:
        return f"{self._path(name)}.half"

    def _path(self, name: str) -> str:
        if not is_content(name):
            raise ValueError(f"{name!r} is not the name of a content")
        return os.path.join(self._directory, name)


class FileCopies:
    """Files of the other side (`callyard.File`), kept on this one: one for each content and name."""

    def __init__(self, directory: CacheDirectory) -> None:
        self._directory, self._own = directory, KeptFiles(directory)
        self._all = [self._own]

    def look_into(self, cache: CacheDirectory) -> None:
        """Look into a cache, too, in whose results a file may be."""
        self._all.append(KeptFiles(cache))

    def remove_old(self) -> None:
        """Remove those that no call has used for long, and halves that came to processes that are gone."""
        self._directory.sweep(FOLDER)
        self._own.remove_halves()
        with contextlib.suppress(FileNotFoundError):
            remove_old(self._own.path, _COPIES_KEPT)

    def missing(self, files: Iterable[SentFile]) -> list[SentFile]:
        """Return those that are not there."""
        return [each for each in dict.fromkeys(files) if self._place(each.content, each.own) is None]

    def _place(self, name: str, own: str) -> str | None:
        return next(filter(None, (kept.place(name, own) for kept in self._all)), None)

    def find(self, name: str, own: str) -> str:
        """Return the path of a copy, which cannot be written to.

        Raises:
            CacheError: it is not there any more.
        """
        return self._place(name, own) or self._own.find(name, own)

    def received(self, name: str) -> int:
        """Return how many bytes have come of a content that is missing."""
        return self._own.received(name)

    def incoming(self, name: str, start: int) -> IncomingContent:
        """Return a content to be written behind the first bytes that have come.

        Raises:
            HalfLost: they are not there any more.
        """
        return self._own.resumed(name, start)

    def accept(self, own: str, incoming: IncomingContent) -> bool:
        """Let a copy appear; return False if other bytes were written."""
        return self._own.accept(incoming, own)

    def keep_bytes(self, name: str, own: str, data: bytes | bytearray | memoryview) -> str:
        """Keep the content of a small file, and return the path of the copy."""
        with self._own.incoming(name) as incoming:
            incoming.write(data)
            self._own.accept(incoming, own)
        return self.find(name, own)


def remove_old(directory: str, age: float) -> None:
    """Remove what has not been used for so long (s)."""
    for entry in os.scandir(directory):
        with contextlib.suppress(OSError):  # another gateway removes it
            if entry.stat().st_mtime < time.time() - age:
                shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)
