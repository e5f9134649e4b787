"""The output of a call, kept in a log: the worker's side of the conversation with its guard, see `output_copier`.

From the first call with a log on, stdout and stderr of the worker are pipes. A call that prints nothing pays a few
microseconds: the guard hears of no call, but finds the log of the running one in shared memory.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
from array import array
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl

from ..serialize.shared_memory import anonymous_file
from .output_copier import ASK, BEGIN, OutputPage

__all__ = ["begin_log", "end_log", "listen"]

_WAIT = 5.0  # s for the guard to copy the output: the file system may hang

_control: socket.socket | None = None  # to the guard
_output: _Output | None = None  # once the output goes to pipes
_fflush: Callable[[None], object] | None = None  # of the C library


def listen(control: socket.socket | None) -> None:
    """Take this process's end of the socket to its guard; None without a guard, and then no output is kept."""
    global _control
    _control = control


def begin_log(path: str, goes_on: bool = False) -> bool:
    """Let the output of the call that begins now go to a new log too; return False if that is not possible.

    `goes_on`: the log is that of an earlier run of the call.
    """
    global _control, _output
    encoded = os.fsencode(path)
    if _control is None or len(encoded) > OutputPage.LONGEST:
        return False
    if _output is None:
        _flush()  # what has been printed before any call with a log
        try:
            _output = _Output(_control)
        except OSError:  # no descriptors, or the guard is gone
            _control = None
            return False
    if not goes_on:
        with suppress(OSError):  # mostly there is none
            os.unlink(path)
    _output.page.begin(encoded)
    return True


def end_log() -> bool:
    """Let the log have all that the call has printed; return False if it has printed nothing."""
    if _output is None:
        return False
    _flush()
    printed = _output.settle()
    _output.page.begin(b"")
    return printed


class _Output:
    """The pipes in the places of stdout and stderr: one, if both are the same file, so that their order is kept."""

    def __init__(self, control: socket.socket) -> None:
        self._control, self._inode = control, os.fstat(control.fileno()).st_ino
        together = os.path.samestat(os.fstat(1), os.fstat(2))
        pipes = [os.pipe() for _ in range(1 if together else 2)]
        page = anonymous_file(OutputPage.SIZE)
        self.page = OutputPage(page)
        self._inputs = [write for _, write in pipes]
        reads = [read for read, _ in pipes]
        try:
            socket.send_fds(control, [BEGIN], [page, *reads, *((1,) if together else (1, 2))])
            if not self._is_answered():
                raise OSError("the guard does not answer")
        except OSError:
            for fd in self._inputs:
                os.close(fd)
            raise
        finally:
            for fd in (page, *reads):
                os.close(fd)
        os.dup2(self._inputs[0], 1)
        os.dup2(self._inputs[-1], 2)

    def settle(self) -> bool:
        """Wait until the guard has copied the content of the pipes; return True if the call has printed."""
        if not any(map(_content, self._inputs)) and not self.page.has_output():
            return False
        with suppress(OSError):  # the guard is gone, or does not answer: the log has what it has
            # The call may have closed the socket, and have opened another file in its place.
            if os.fstat(self._control.fileno()).st_ino == self._inode:
                self._control.sendall(ASK)
                self._is_answered()
        return True

    def _is_answered(self) -> bool:
        return bool(select.select([self._control], [], [], _WAIT)[0] and self._control.recv(1))


def _content(pipe: int) -> int:
    """Return the number of bytes in a pipe."""
    count = array("i", [0])
    with suppress(OSError):
        ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a user may have put any object there
            stream.flush()
    if "ctypes" in sys.modules:  # loaded by nearly every library that prints from C
        with suppress(Exception):
            _flush_c()


def _flush_c() -> None:
    global _fflush
    if _fflush is None:
        import ctypes

        _fflush = ctypes.CDLL(None).fflush
    _fflush(None)
