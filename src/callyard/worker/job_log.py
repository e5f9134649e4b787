"""The log of a job: its calls print into a pipe, and the job's process writes that to the log, within its limit.

    the call, and all that it starts ----> pipe ----> the job's process ----> <number>.log
                 settle ----> asks ----> copies all that is in the pipe ----> answers

A file alone could not be kept from growing, as a call writes a gigabyte within a second. Where the log is no regular
file, or stderr goes to another one, as the user's options for the scheduler may say, the call writes there itself.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import time

from ..utils.lite_stdlib import TYPE_CHECKING, suppress

if TYPE_CHECKING:
    from .bounded_log import BoundedLog

__all__ = ["JobLog", "settle"]

_CHUNK = 1 << 16  # bytes that a pipe holds
_TURNS = 16  # chunks that are copied before anything else gets its turn; no pipe of a user's holds more
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_REST = 0.01  # s of rest after a short text: a call may print a thousand lines in this time
_PATIENCE = 5.0  # s for a call to wait for the writing of its output: the file system may hang


class JobLog:
    """The pipe of one job, and the log of the call that runs."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes
        self._output, self._input = os.pipe()
        self._asked, self._ask = os.pipe()
        self._answered, self._answer = os.pipe()
        os.set_blocking(self._output, False)  # for the reader; who prints waits
        os.set_blocking(self._asked, False)
        self._rests_until = 0.0
        self._file, self._room = 1, 0
        self._bounded: BoundedLog | None = None  # once the limit was reached
        self._pipes: dict[int, tuple[int, str]] = {}  # inodes and other paths of the pipes by which a call asks

    # -- the process of the job --------------------------------------------------------------------------

    def open(self, path: str | None) -> None:
        """Let the output of the next call go to a file of its own, or to the log of the job."""
        if self._bounded is not None:
            self._bounded.close()
        if self._file != 1:
            os.close(self._file)
        self._file = 1
        with suppress(OSError):  # on a full disk it shares the job's
            if path is not None:
                self._file = os.open(path, _APPEND, 0o600)
        self._room, self._bounded = self._limit - os.fstat(self._file).st_size, None

    def close(self) -> None:
        for descriptor in (self._output, self._input, self._asked, self._ask, self._answered, self._answer):
            os.close(descriptor)

    def descriptors(self) -> list[int]:
        """Return the descriptors to wait for."""
        return [self._asked] if self._rests_until else [self._asked, self._output]

    def patience(self) -> float:
        """Return how long at most to wait for them (s)."""
        return max(0.0, self._rests_until - time.monotonic()) if self._rests_until else float("inf")

    def copy(self) -> None:
        """Copy the content of the pipe, and answer a call's question for the end of this copying."""
        asked = _read(self._asked)
        if asked:
            self.drain()
            os.write(self._answer, asked)
        elif time.monotonic() >= self._rests_until:
            copied = self._copy(_TURNS)
            self._rests_until = time.monotonic() + _REST if 0 < copied < _CHUNK // 2 else 0.0

    def drain(self) -> None:
        """Copy all that is in the pipe now: less than what others may go on writing meanwhile."""
        self._copy(_TURNS)

    def _copy(self, turns: int) -> int:
        copied = 0
        while turns and (data := _read(self._output)):
            self._write(data)
            copied, turns = copied + len(data), turns - 1
        return copied

    def _write(self, data: bytes) -> None:
        if self._bounded is None and len(data) <= self._room:
            with suppress(OSError):  # the disk is full, perhaps
                written = os.write(self._file, data)
                self._room, data = self._room - written, data[written:]
        if data:
            with suppress(OSError):  # the file system stumbles: then this much is not in the log
                self._bound().write(data)

    def _bound(self) -> BoundedLog:
        if self._bounded is None:
            from .bounded_log import BoundedLog  # here, because few calls print so much

            self._bounded = BoundedLog(self._file, self._limit)
        return self._bounded

    # -- the process of a call ---------------------------------------------------------------------------

    def enter(self) -> None:
        """Let this process, a fork, print into the pipe."""
        global _own
        if stat.S_ISREG(os.fstat(self._file).st_mode):
            together = self._file != 1 or os.path.samestat(os.fstat(1), os.fstat(2))
            for fd in (1, 2) if together else (1,):
                os.dup2(self._input, fd)
            _own = self
        for descriptor in (self._output, self._input, self._asked, self._answer):
            os.close(descriptor)
        for descriptor in (self._ask, self._answered):
            path = f"/proc/{os.getppid()}/fd/{descriptor}"  # the process of the job has them all
            self._pipes[descriptor] = os.fstat(descriptor).st_ino, path

    def ask(self) -> bool:
        """Wait until the job's process has written the whole content of the pipe; return False without an answer."""
        try:
            self._ask = self._still(self._ask, os.O_WRONLY)
            self._answered = self._still(self._answered, os.O_RDONLY)
            os.write(self._ask, b"?")
            answered = select.select([self._answered], [], [], _PATIENCE)[0]
            return bool(answered and os.read(self._answered, 1))
        except OSError:
            return False

    def _still(self, descriptor: int, flags: int) -> int:
        """Return a descriptor of a pipe: the call may have closed it, and have opened another file in its place."""
        inode, path = self._pipes[descriptor]
        with suppress(OSError):
            if os.fstat(descriptor).st_ino == inode:
                return descriptor
        again = os.open(path, flags | os.O_CLOEXEC)
        self._pipes[again] = inode, path
        return again


_own: JobLog | None = None  # of the process of a call


def settle() -> None:
    """Let the log have all that the call of this process has printed so far."""
    global _own
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a user may have put any object there
            stream.flush()
    if _own is not None and not _own.ask():
        _own = None


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return b""
