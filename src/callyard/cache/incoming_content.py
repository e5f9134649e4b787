"""A content on its way into a directory: written piece by piece, and hashed as it comes; half of it never counts.

A half of some size is kept when its process ends, or loses its link, and another process goes on where it ends. Only
the digest of the whole decides, so it does not matter what has become of the half meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from typing import Any

from ..hashing.digest import new_hash
from ..hashing.files import PIECE, name_of_content
from .directory import remove_file, write_all

__all__ = ["HalfLost", "IncomingContent", "is_content", "received", "size_of"]

_WORTH_KEEPING = 1 << 20  # bytes
_NAME = re.compile(r"(\d{1,19})-[0-9a-f]{64}")


class HalfLost(Exception):
    """The half to go on with is not there any more, or another process has it."""


def is_content(name: str) -> bool:
    """Return True if a text is the name of a content."""
    return _NAME.fullmatch(name) is not None


def size_of(name: str) -> int:
    """Return the size in the name of a content (bytes)."""
    return int(name.partition("-")[0])


def received(content: str, half: str) -> int:
    """Return how many bytes of a content there are in the file for halves of it."""
    try:
        return min(os.stat(half).st_size, size_of(content))
    except OSError:
        return 0


class IncomingContent:
    """A content that is being written.

    Attributes:
        temporary: the path of the file until it gets another place.
        size: the bytes written so far.
    """

    def __init__(self, content: str, descriptor: int, temporary: str, stays: bool = False) -> None:
        """Begin with an empty file; `stays` keeps a half of it for another process."""
        self.content, self.temporary = content, temporary
        self._descriptor, self._stays = descriptor, stays
        self._digest, self.size = new_hash(size_of(content)), 0
        self._closed = False

    @classmethod
    def resume(cls, content: str, half: str, start: int) -> IncomingContent:
        """Go on behind the first bytes of a half, which no other process can do at the same time.

        Raises:
            HalfLost: there are fewer bytes, or another process is at it.
        """
        try:
            descriptor = os.open(half, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HalfLost(str(error)) from error
        incoming = cls(content, descriptor, half, stays=True)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Locked only now: another process may have given the file its place, or removed it, just before.
            if os.stat(half).st_ino != os.fstat(descriptor).st_ino:
                raise HalfLost(f"{half} has got another place")
            incoming._skip(start)
        except (OSError, HalfLost) as error:
            os.close(descriptor)
            raise HalfLost(str(error)) from error
        return incoming

    def _skip(self, start: int) -> None:
        """Read what is there, and forget what is behind."""
        while self.size < start and (piece := os.pread(self._descriptor, min(PIECE, start - self.size), self.size)):
            self._digest.update(piece)
            self.size += len(piece)
        if self.size < start:
            raise HalfLost(f"{self.temporary} has become shorter")
        os.ftruncate(self._descriptor, start)

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

    def close(self, keep_half: bool = False) -> None:
        """Remove what has not got another place, unless it is a half that another process may go on with."""
        if self._closed:
            return
        self._closed = True
        if not (keep_half and self._stays and self.size >= _WORTH_KEEPING):
            remove_file(self.temporary)  # before the lock goes
        os.close(self._descriptor)
