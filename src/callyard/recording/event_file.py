"""The file of events, JSON lines: several threads and processes may append to one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from time import monotonic, sleep

from ..utils.paths import expand

__all__ = ["EventFile"]

_LOCKED = 2.0  # s to wait for another writer, who may be a stopped process
_LOOK = 0.005  # s between two attempts
_TAIL = 1 << 16  # bytes that are looked at together; also the longest half of a line that may be cut off unseen
_OURS = b'{"event": '  # the begin of each line


class EventFile:
    """A file to which whole lines are appended. It is made with mode 0600, and opened anew for each batch of lines.

    A process that is killed may leave half a line. It is cut off before the next line, by whoever appends that.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make the file if it is missing.

        Raises:
            OSError: it cannot be made, or not be written to.
        """
        self.path = os.path.abspath(expand(os.fspath(path)))
        os.close(self._open())

    def append(self, lines: bytes) -> None:
        """Append lines, all of them or none.

        Raises:
            OSError: the lines cannot be written, because the disk is full, say.
        """
        descriptor = self._open()
        try:
            with _alone(descriptor):
                self._append(descriptor, lines)
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _append(self, descriptor: int, lines: bytes) -> None:
        end = _end_of_lines(descriptor)
        try:
            done = 0
            while done < len(lines):
                done += os.write(descriptor, memoryview(lines)[done:])
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, end)
            raise


@contextlib.contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """Keep other writers out, for as long as they keep to the rule; without locks, appending is as good as it gets."""
    until = monotonic() + _LOCKED
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if monotonic() > until:
                break
            sleep(_LOOK)
        except OSError:  # a file system without locks
            break
    yield  # closing the descriptor unlocks


def _end_of_lines(descriptor: int) -> int:
    """Return the size of the file, after cutting off half a line at its end."""
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    begin = _begin_of_last_line(descriptor, size)
    if size - begin > _TAIL and os.pread(descriptor, len(_OURS), begin) != _OURS:
        return size  # a line of such a length is not one of ours
    os.ftruncate(descriptor, begin)
    return begin


def _begin_of_last_line(descriptor: int, size: int) -> int:
    """Return where the line begins that has no end; a failure's message and traceback may be long."""
    begin = size
    while begin:
        start = max(0, begin - _TAIL)
        end_before = os.pread(descriptor, begin - start, start).rfind(b"\n")
        if end_before >= 0:
            return start + end_before + 1
        begin = start
    return 0
