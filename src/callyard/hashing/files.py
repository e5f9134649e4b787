"""The public class `File`: a file as an argument, whose content is part of the call's meaning and travels with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..serialize import definition_identity
from ..serialize.importable import sending_far
from .digest import combine, new_hash

__all__ = ["PIECE", "File", "content_name", "file_at", "file_token", "keep_copies", "name_of_content"]

PIECE = 1 << 20  # bytes read at once
_keep_copy: Callable[[str, bytes], str] | None = None  # of a gateway


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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"File({os.fspath(path)!r}): there is no such file on this computer")
        self._name(os.path.abspath(path))

    def _name(self, path: str) -> None:
        self._path = path
        self._seen: tuple[tuple[int, ...], str] | None = None  # a state of the file, and the name of its content

    def __fspath__(self) -> str:
        return self._path

    def __str__(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return f"File({self._path!r})"

    def __reduce__(self) -> tuple[Callable[..., File], tuple[object, ...]]:
        if not sending_far():
            return file_at, (self._path,)
        from pickle import PickleBuffer  # here, because a job needs none

        with open(self._path, "rb") as file:
            data = file.read()  # not mapped: a file that becomes shorter meanwhile would end this process
        return _received, (definition_identity.process_name, self._path, PickleBuffer(data))


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
        if file._seen is None or file._seen[0] != state:
            digest, size = new_hash(status.st_size), 0
            while piece := opened.read(PIECE):
                digest.update(piece)
                size += len(piece)
            file._seen = state, name_of_content(size, digest)
    return file._seen[1]


def name_of_content(size: int, digest: Any) -> str:
    """Return the name of a content with this size (bytes) and digest; equal contents have equal names."""
    return f"{size}-{digest.hexdigest()}"


def keep_copies(keep: Callable[[str, bytes], str]) -> None:
    """Let `keep(name, content)` store the files that come from another computer, and return their paths."""
    global _keep_copy
    _keep_copy = keep


def file_at(path: str) -> File:
    """Return the file at a path, which may be another computer's."""
    file = File.__new__(File)
    file._name(path)
    return file


def _received(process: str, path: str, data: bytes | bytearray | memoryview) -> File:
    """Return a copy of a file from another computer; in the process that has sent it, the file itself."""
    if process == definition_identity.process_name:
        return file_at(path)
    if _keep_copy is None:
        raise RuntimeError(f"File({path!r}) was sent to a gateway, and this process is none")
    return file_at(_keep_copy(os.path.basename(path), bytes(data)))
