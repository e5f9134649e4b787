"""A log file at its limit: the first half stays, and after it the last part of the later output.

    | head: half of the limit | a line with the number of bytes left out | tail: the latest output |

The tail grows up to the limit. Then the latest part moves to the beginning of the tail, which grows again: each byte
moves once on average. Readers find text in order at any moment. On a full disk the present size becomes the limit.
"""

from __future__ import annotations

import os

from ..utils.lite_stdlib import suppress

__all__ = ["BoundedLog"]

_BLOCK = 1 << 16  # bytes that are moved at once
_LINE = 1 << 12  # bytes in which the end of a line is looked for, so that no line is cut
_MARK = "\n[callyard: {:15d} bytes were left out here, beyond log_limit]\n"  # always of the same length
_MARK_SIZE = len(_MARK.format(0))


class BoundedLog:
    """A log file. `descriptor` appends to the file, `limit` is the largest size (bytes)."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor, self._limit = descriptor, limit
        self._left_out = 0  # bytes
        self._head: int | None = None  # where it ends, and the mark begins; None: nothing was left out yet
        self._file: int | None = None  # the same file for reading and for writing anywhere, if that can be had

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def write(self, data: bytes) -> None:
        """Append output, and make room for it. Output without room is left out."""
        for _ in range(2):
            size = self._size()
            if self._head is None and size < self._limit:  # first fill it, for the sake of the head
                rest = self._append(data[: self._limit - size])
                data = rest + data[self._limit - size :]
                size = self._size()
            if size + len(data) > self._limit:
                data = self._make_room(size, data)
            data = self._append(data)
            if not data:
                return
            self._limit = min(self._limit, self._size())  # the disk is full
        self._left_out += len(data)

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _append(self, data: bytes) -> bytes:
        """Append output; return the rest of it if the disk takes no more."""
        with suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]
        return data

    def _make_room(self, size: int, data: bytes) -> bytes:
        """Leave out the first part of the tail, and of the output what has no room even then; return the output."""
        if self._file is None:
            self._file = self._reopened()
        if self._file is None:
            self._left_out += len(data)
            return b""
        if self._head is None:
            begin = self._head = self._end_of_line(min(size, self._limit // 2))
        else:
            begin = self._head + _MARK_SIZE
        room = max(0, self._limit - self._head - _MARK_SIZE)
        excess = max(0, len(data) - room)
        kept = min(max(0, size - begin), room // 2, room - (len(data) - excess))
        start = self._begin_of_line(size - kept, size)
        self._left_out += start - begin + excess
        self._move(start, size, self._head)
        return data[excess:]

    def _reopened(self) -> int | None:
        """Return a descriptor of the same file, which may have any path; None where the system has no such way."""
        with suppress(OSError):
            return os.open(f"/dev/fd/{self._descriptor}", os.O_RDWR | os.O_CLOEXEC)
        return None

    def _end_of_line(self, end: int) -> int:
        """Return where the last line before this place ends; the place itself if no line ends near."""
        assert self._file is not None
        start = max(0, end - _LINE)
        found = os.pread(self._file, end - start, start).rfind(b"\n")
        return end if found < 0 else start + found + 1

    def _begin_of_line(self, start: int, end: int) -> int:
        """Return where the next line after this place begins; the place itself if no line begins near."""
        assert self._file is not None
        return start + os.pread(self._file, min(_LINE, end - start), start).find(b"\n") + 1

    def _move(self, start: int, end: int, head: int) -> None:
        """Move this part of the file behind the head and the mark, and let the file end there."""
        assert self._file is not None
        mark, to = _MARK.format(self._left_out).encode(), head + _MARK_SIZE
        with suppress(OSError):  # of a file system that is full, and never writes in place
            if start < to:
                block = os.pread(self._file, end - start, start)
                os.pwrite(self._file, mark + block, head)
                to, start = to + len(block), end
            while start < end and (block := os.pread(self._file, min(_BLOCK, end - start), start)):
                os.pwrite(self._file, block, to)
                start, to = start + len(block), to + len(block)
            os.pwrite(self._file, mark, head)
        os.ftruncate(self._file, to)
