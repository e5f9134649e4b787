"""The copier of a worker's output: what the calls write to stdout and stderr goes on to where it went before, and to a
log of the call that runs.

    a call, and all that it starts ----> pipes ----> the guard ----> stdout and stderr of the worker's start
                                                             `---->  the log of the call
    the worker's `call_output` ----> control socket: begin; "?", answered when all in the pipes has been copied

The guard does this, because it outlives the worker: what a call has printed before a crash is not lost. It waits for no
terminal: if one takes nothing, the pipes fill up, and the calls wait, as they would at the terminal itself.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct

from ..cache.output_log import LIMIT
from ..serialize.shared_memory import shared_mapping
from .bounded_log import BoundedLog

__all__ = ["ASK", "BEGIN", "OutputCopier", "OutputPage", "SignalPipe"]

BEGIN, ASK, ANSWER = b"b", b"?", b"!"
_CHUNK = 1 << 16  # bytes that a pipe holds
_TURNS = 16  # chunks that are copied before anything else gets its turn
_MOST = 1 << 22  # bytes that are kept for a terminal that takes nothing
_PIECE = 4096  # bytes that a pipe or terminal with room takes without a wait
_REST = 0.01  # s of rest after a short text: a call may print a thousand lines in this time
_PATIENCE = 5.0  # s at the worker's end for a terminal that takes nothing
_CREATE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class OutputPage:
    """Memory shared by worker and guard: the log of the running call, and whether anything was written to it.

    The number of the call is written last, and read again after the rest.
    """

    SIZE = 4096
    _NUMBER = Struct("<I")
    _CALL, _LENGTH, _PATH, _BUSY, _PRINTED = 0, 4, 8, 3072, 3136
    LONGEST = _BUSY - _PATH  # bytes of a path

    def __init__(self, fd: int) -> None:
        self._page: mmap.mmap = shared_mapping(fd, self.SIZE)

    def close(self) -> None:
        self._page.close()

    def _get(self, place: int) -> int:
        return int(self._NUMBER.unpack_from(self._page, place)[0])

    def _put(self, place: int, number: int) -> None:
        self._NUMBER.pack_into(self._page, place, number)

    # -- the worker's side

    def begin(self, path: bytes) -> None:
        """Let a new call have this log; b"" for none."""
        self._put(self._LENGTH, 0)
        self._page[self._PATH : self._PATH + len(path)] = path
        self._put(self._LENGTH, len(path))
        self._put(self._CALL, self._get(self._CALL) + 1)

    def has_output(self) -> bool:
        """Return True if the call has printed, or perhaps has. Look into the pipes before."""
        busy = self._get(self._BUSY)  # first: what is copied now counts once the copying is over
        return bool(busy) or self._get(self._PRINTED) == self._get(self._CALL)

    # -- the guard's side

    def call(self) -> tuple[int, bytes]:
        """Return the number of the call, and its log."""
        while True:
            number, length = self._get(self._CALL), self._get(self._LENGTH)
            path = bytes(self._page[self._PATH : self._PATH + length])
            if self._get(self._CALL) == number:
                return number, path

    def copying(self, busy: bool) -> None:
        self._put(self._BUSY, busy)

    def printed(self, number: int) -> None:
        self._put(self._PRINTED, number)


class _Pipe:
    """One pipe, the file where its content goes, and the part of the content that the file has not taken."""

    def __init__(self, fd: int, target: int) -> None:
        self.fd, self.target = fd, target
        self.pending = bytearray()
        os.set_blocking(fd, False)

    def pass_on(self) -> None:
        """Write as much as the target takes without a wait."""
        while self.pending and _is_writable(self.target, 0.0):
            try:
                written = os.write(self.target, self.pending[:_PIECE])
            except BlockingIOError:
                return
            except OSError:  # closed, or full: the log has it all the same
                self.pending.clear()
                return
            del self.pending[:written]

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.target)


class OutputCopier:
    """The guard's side of the conversation; `control` is its end of the socket."""

    def __init__(self, control: socket.socket) -> None:
        self._control: socket.socket | None = control
        self._pipes: list[_Pipe] = []
        self._page: OutputPage | None = None
        self._log: BoundedLog | None = None  # of the call with this number, by this descriptor
        self._call, self._descriptor = 0, -1
        self._rests_until = 0.0

    def wait(self, wake: int) -> None:
        """Wait for output, for the worker, or for the descriptor `wake`; then copy."""
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        if self._control is not None:
            poller.register(self._control, select.POLLIN)
        rest = max(0.0, self._rests_until - time.monotonic()) if self._rests_until else 0.0
        for pipe in self._pipes:
            if pipe.pending:
                poller.register(pipe.target, select.POLLOUT)
            elif not rest:
                poller.register(pipe.fd, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(rest * 1000 + 1 if rest else None)}
        if wake in ready:
            with suppress(BlockingIOError):
                os.read(wake, 1 << 10)
        if self._control is not None and self._control.fileno() in ready:
            self._listen(self._control)
        copied = 0
        for pipe in list(self._pipes):
            if pipe.pending:
                pipe.pass_on()
            elif pipe.fd in ready:
                copied += self._copy(pipe, _TURNS)
        self._rests_until = time.monotonic() + _REST if 0 < copied < _CHUNK // 2 else 0.0

    def finish(self) -> None:
        """Copy all that is left, after the end of the worker and of all that it has started."""
        self._drain()
        until = time.monotonic() + _PATIENCE
        for pipe in self._pipes:
            while pipe.pending and _is_writable(pipe.target, until - time.monotonic()):
                pipe.pass_on()

    def close(self) -> None:
        self._close()
        for pipe in self._pipes:
            pipe.close()
        if self._page is not None:
            self._page.close()
        if self._control is not None:
            self._control.close()

    def _listen(self, control: socket.socket) -> None:
        try:
            word, descriptors, _, _ = socket.recv_fds(control, 1, 5)
        except OSError:
            word, descriptors = b"", []
        if word == BEGIN:
            page, *files = descriptors
            self._page = OutputPage(page)
            os.close(page)
            half = len(files) // 2
            self._pipes = [_Pipe(fd, target) for fd, target in zip(files[:half], files[half:], strict=True)]
        elif word == ASK:
            self._drain()
        if word:
            with suppress(OSError):  # the worker is gone
                control.sendall(ANSWER)
        else:
            control.close()
            self._control = None

    def _drain(self) -> None:
        for pipe in list(self._pipes):
            if len(pipe.pending) < _MOST:  # else the terminal takes nothing for long, and the calls have to wait
                self._copy(pipe, _TURNS)

    def _copy(self, pipe: _Pipe, turns: int) -> int:
        """Copy what is in a pipe; return the number of bytes."""
        assert self._page is not None
        copied = 0
        self._page.copying(True)
        for data in self._content(pipe, turns):
            copied += len(data)
            self._write(data)
            pipe.pending += data
            pipe.pass_on()
        self._page.copying(False)
        return copied

    def _content(self, pipe: _Pipe, turns: int) -> Iterator[bytes]:
        for _ in range(turns):
            try:
                data = os.read(pipe.fd, _CHUNK)
            except BlockingIOError:
                return
            if not data:  # no process has the other end any more
                pipe.pass_on()
                if not pipe.pending:  # else the rest goes when the file takes it, and then this end is met again
                    self._pipes.remove(pipe)
                    pipe.close()
                return
            yield data

    def _write(self, data: bytes) -> None:
        """Add output to the log of the call that runs."""
        assert self._page is not None
        number, path = self._page.call()
        if number != self._call:
            self._close()
            self._call = number
            if path:
                with suppress(OSError):  # no room, or the cache was deleted: then this call has no log
                    self._descriptor = os.open(path, _CREATE, 0o600)
                    self._log = BoundedLog(self._descriptor, LIMIT)
        if self._log is not None:
            with suppress(OSError):  # the file system stumbles: then this much is not in the log
                self._log.write(data)
            self._page.printed(number)

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            os.close(self._descriptor)
            self._log = None


def _is_writable(fd: int, patience: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(max(0.0, patience) * 1000))


class SignalPipe:
    """A descriptor that becomes readable at a signal: the end of a child, or `orphaned`, the end of the parent."""

    def __init__(self, orphaned: int) -> None:
        """Handle both signals from now on; they were blocked until now."""
        self.descriptor, wake = os.pipe()
        for fd in (self.descriptor, wake):
            os.set_blocking(fd, False)
        self.orphaned = False
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(orphaned, self._note_end_of_parent)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, orphaned))

    def _note_end_of_parent(self, *_: object) -> None:
        self.orphaned = True
