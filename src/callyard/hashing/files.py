"""The public class `File`: a file as an argument, whose content is part of the call's meaning and travels with it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

from ..serialize import definition_identity
from .digest import combine, new_hash

__all__ = [
    "PIECE",
    "Copies",
    "File",
    "TravellingFile",
    "content_name",
    "copies_from",
    "file_at",
    "file_token",
    "name_of_content",
    "noting_files",
    "take_copies_from",
    "usable_name",
]

PIECE = 1 << 20  # bytes read at once
# s after its last change from which on a file is believed to be unchanged as long as its times are the same. Another
# change in the same tick of a clock (of 10 ms in most kernels, of 2 s in some file systems) leaves no trace in these.
_SETTLED = 3.0


class _Seen(NamedTuple):
    """A state of a file, with the name of its content.

    Attributes:
        since: when the state was seen first (s, monotonic).
        settled: True if the content was read so long after that that it is the content of this state for good.
    """

    state: tuple[int, ...]
    name: str
    since: float
    settled: bool


class File(os.PathLike[str]):
    """A file of this computer as an argument or result of a call: what counts is the content, under whatever name.

    A path as a text counts by its letters. A `File` counts in the key of a call by its content: with a cache the call
    runs again after a change of the file, and is answered for another file with the same content. The function gets a
    `File`, too, and opens it as any path. On this computer that is the file itself. With `host=SSH(...)` the content
    goes there, once, and the function gets a copy, which nobody may write to.

    A function may return a `File` that it has written, also inside lists, dictionaries and objects. With a cache the
    content is kept there, and the result names the kept file, which has the same name, cannot be written to, and stays
    as long as the call is in the cache. With `host=SSH(...)` the content comes here, once. Otherwise the result names
    the file where the function has written it.

    A file must not change before the call that takes it has ended.

    Args:
        path: the path of a regular file.

    Raises:
        FileNotFoundError: there is no such file.

    >>> with Executor(cache="results") as executor:  # doctest: +SKIP
    ...     energy = executor.submit(relax, File("start.xyz"))
    """

    __slots__ = ("_path", "_seen")

    def __init__(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        path = os.fsdecode(path)
        if not os.path.isfile(path):
            name = f"File({path!r})"
            if os.path.exists(path):
                raise FileNotFoundError(f"{name}: it is no regular file; name files, as a list of them for a directory")
            raise FileNotFoundError(f"{name}: there is no such file on this computer")
        self._name(os.path.abspath(path))

    def _name(self, path: str) -> None:
        self._path = path
        self._seen: _Seen | None = None

    def __fspath__(self) -> str:
        return self._path

    def __str__(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return f"File({self._path!r})"

    def __reduce__(self) -> tuple[Callable[..., File], tuple[object, ...]]:
        from ..serialize.importable import sending_far  # here, because commands need none of its imports

        if _travelling.files is not None:
            travelling = TravellingFile(content_name(self), usable_name(self._path), self._path)
            _travelling.files.append(travelling)
            return _arrived, (definition_identity.process_name, self._path, travelling.content)
        if not sending_far():
            return file_at, (self._path,)
        from pickle import PickleBuffer  # here, because a job needs none

        name = content_name(self)
        with open(self._path, "rb") as file:
            data = file.read()  # not mapped: a file that becomes shorter meanwhile would end this process
        return _arrived, (definition_identity.process_name, self._path, name, PickleBuffer(data))


def file_token(file: File) -> bytes:
    """Return the token of a file's content; an unchanged file is read once for all calls with this `File`."""
    size, _, digest = content_name(file).partition("-")
    return combine(b"Z", [size.encode(), bytes.fromhex(digest)])


def content_name(file: File) -> str:
    """Return the name of a file's content: its size and digest; an unchanged file is read once.

    Raises:
        OSError: the file cannot be read.
    """
    with open(file, "rb") as opened:
        status = os.fstat(opened.fileno())
        state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        seen, now = file._seen, time.monotonic()
        since = now if seen is None or seen.state != state else seen.since
        if seen is None or seen.state != state or not seen.settled:
            # By both clocks, as that of a file server may be fast.
            settled = time.time() - status.st_ctime > _SETTLED or now - since > _SETTLED
            seen = file._seen = _Seen(state, _name_of_bytes(opened, status.st_size), since, settled)
    return seen.name


def _name_of_bytes(opened: BinaryIO, expected: int) -> str:
    digest, size = new_hash(expected), 0
    while piece := opened.read(PIECE):
        digest.update(piece)
        size += len(piece)
    return name_of_content(size, digest)


def name_of_content(size: int, digest: Any) -> str:
    """Return the name of a content with this size (bytes) and digest; equal contents have equal names."""
    return f"{size}-{digest.hexdigest()}"


def usable_name(path: str) -> str:
    """Return the name for a copy of a file: that of the original, without any directory."""
    own = os.path.basename(path.replace("\0", ""))
    return own if own not in ("", ".", "..") else "file"


def file_at(path: str) -> File:
    """Return the file at a path, which may be another computer's."""
    file = File.__new__(File)
    file._name(path)
    return file


# -- between computers -------------------------------------------------------------------------------------


class TravellingFile(NamedTuple):
    """A file in a pickle for another computer, to which the content goes beside the pickle."""

    content: str  # its name
    own: str  # the name of the copy
    path: str


class Copies(Protocol):
    """The copies of another computer's files."""

    def find(self, name: str, own: str) -> str:
        """Return the path of the copy of a content under a name."""

    def keep_bytes(self, name: str, own: str, data: bytes | bytearray | memoryview) -> str:
        """Keep a content, and return the path of the copy."""


class _Travelling(threading.local):
    files: list[TravellingFile] | None = None  # in a pickle that this thread makes
    copies: Copies | None = None  # for pickles that this thread opens


_travelling = _Travelling()
_copies: Copies | None = None  # for all pickles that this process opens


@contextlib.contextmanager
def noting_files() -> Iterator[list[TravellingFile]]:
    """Leave the contents of files out of the pickles that this thread makes inside the block, and note the files."""
    before, found = _travelling.files, list[TravellingFile]()
    _travelling.files = found
    try:
        yield found
    finally:
        _travelling.files = before


@contextlib.contextmanager
def copies_from(copies: Copies) -> Iterator[None]:
    """Find the files of another computer among these copies, in pickles that this thread opens inside the block."""
    before, _travelling.copies = _travelling.copies, copies
    try:
        yield
    finally:
        _travelling.copies = before


def take_copies_from(copies: Copies) -> None:
    """Find the files of another computer among these copies, in all pickles that this process opens."""
    global _copies
    _copies = copies


def _arrived(process: str, path: str, name: str, data: Any = None) -> File:
    """Return a copy of a file from another computer; in the process that has sent it, the file itself."""
    if process == definition_identity.process_name:
        return file_at(path)
    copies = _travelling.copies or _copies
    if copies is None:
        raise RuntimeError(f"File({path!r}) was sent to a gateway, and this process is none")
    own = usable_name(path)
    return file_at(copies.find(name, own) if data is None else copies.keep_bytes(name, own, data))
