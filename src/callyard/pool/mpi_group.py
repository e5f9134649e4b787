"""The driver's end of a worker of several MPI ranks.

The launcher closes the descriptors that it inherits, so the ranks connect to a socket, in a directory that only this
user can enter. The launcher keeps its own files there too, and the zygote removes the directory in any case.

Each rank is sent each call, and the call ends when all ranks have ended theirs; the result is the list of their
results. When one rank fails, the others may wait for its messages for ever, so the call fails at once and the whole
group is ended.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Sequence

from ..cache.messages import RunDeclined
from ..errors import CallyardError
from ..serialize.packer import Packed, Packer
from ..system.peers import is_own_user
from ..transport.frames import ERROR, NO_MPI, RANK, READY, RESULT, STRAY, Frame
from ..transport.stream import FrameStream
from ..worker.exceptions import dump_error, words_of_some_again
from .call import Call
from .mpi_results import RankCollector, words_of_no_mpi
from .worker import Worker
from .worker_connection import Ended, WorkerConnection


class RankGroup:
    """A group of ranks as the driver sees it; to the placement, one worker."""

    def __init__(
        self,
        worker: Worker,
        packer: Packer,
        on_blocked: Callable[[FrameStream], object],
        on_unused: Callable[[], object],
    ) -> None:
        self.worker = worker
        self.pid: int | None = None
        self.sent_at = 0.0  # the time of the last message with calls, by the monotonic clock
        self.size = worker.shape.ranks
        self.in_flight: dict[int, Call] = {}
        self.ended = False
        self.says_ready = False
        self.must_end = False  # the group cannot be trusted with another call
        self.rank_gone = self.fault = ""  # for people: the rank that ended first; the reason for the group's end
        self.alone: tuple[int, str] | None = None  # ranks do not know each other: how many do, and their library
        self.initializer_error: Packed | None = None
        self.ranks: dict[int, WorkerConnection] = {}
        self._strangers: list[WorkerConnection] = []  # connected, but with an unknown rank
        self._results = RankCollector(self.size)
        self._packer, self._on_blocked, self._on_unused = packer, on_blocked, on_unused
        self.sequence = 0
        self._ready = 0
        self._mpi_used = False
        self._stray = False  # the next call would take the message for one of its own
        self._initializer: bytes | None = None
        self._directory = tempfile.mkdtemp(prefix=f"callyard-{os.getpid()}-", dir=_memory_directory())  # 0700
        self.address = os.path.join(self._directory, "ranks")
        try:
            self.listener = self._listen()
        except OSError:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise

    # -- start and end ---------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(socket.socket(socket.AF_UNIX))
            listener.setblocking(False)
            listener.bind(self.address)
            listener.listen(self.size)  # all ranks may connect before the first is accepted
            undo.pop_all()
        return listener

    def greet(self, initializer: bytes | None) -> list[int]:
        """Keep the greeting for each rank, until the rank has told its number; a launcher takes no descriptors."""
        self._initializer = initializer
        return []

    def handed_over(self) -> None:
        """Do nothing: no descriptor was handed over."""

    def accept(self) -> WorkerConnection | None:
        """Return the connection of a rank; None for a connection of another user.

        Raises:
            OSError: no descriptors are left.
        """
        try:
            sock, _ = self.listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return None
        if not is_own_user(sock):
            sock.close()
            return None
        try:
            connection = WorkerConnection(self.worker, self._packer, self._on_blocked, self._on_unused, sock)
        except OSError:
            sock.close()
            raise
        connection.handed_over()  # the rank makes a result log of its own
        self._strangers.append(connection)
        return connection

    @property
    def complete(self) -> bool:
        return len(self.ranks) + len(self._strangers) == self.size

    def catch_up(self) -> None:
        for connection in self.ranks.values():
            connection.catch_up()

    def stop_listening(self) -> None:
        """Close the socket for ranks, so that no further process can connect."""
        self.listener.close()

    def used_until_its_end(self, used: Sequence[float] | None) -> None:
        """Return None: each rank tells what it has used, and one that is lost does not."""

    def sockets(self) -> list[socket.socket]:
        return [self.listener, *(c.stream.sock for c in (*self.ranks.values(), *self._strangers))]

    def leave(self) -> None:
        for connection in self.ranks.values():
            connection.leave()

    def close(self) -> None:
        self.stop_listening()
        shutil.rmtree(self._directory, ignore_errors=True)
        for connection in (*self.ranks.values(), *self._strangers):
            connection.close()

    # -- calls -----------------------------------------------------------------------------------------

    def send(self, calls: Sequence[Call]) -> None:
        (call,) = calls  # calls of several ranks are sent one at a time
        self.sequence += 1
        self.in_flight = {self.sequence: call}
        self._results = RankCollector(self.size)
        for rank in sorted(self.ranks):
            self.ranks[rank].send(calls)

    def take_frames(self, connection: WorkerConnection, arrived: list[Frame]) -> list[Ended]:
        """Take in frames of one rank; return the call if the frames end it."""
        ends: list[Ended] = []
        for frame in arrived:
            kind, _, _, flags, _ = frame
            if kind == RANK and connection in self._strangers:
                self._enter(connection, frame)
            elif kind == READY:
                self._ready += 1
                self.says_ready = self._ready == self.size
            else:
                self._mpi_used |= kind == RESULT and not flags & NO_MPI
                self._stray |= bool(flags & STRAY)
                for end in connection.take_frames(connection, [frame]):
                    ends.extend(self._rank_ended(connection, end))
                # After a failure or a stray message the group ends, but after a success only when all ranks have been
                # heard.
                self.must_end |= kind == ERROR or (self._stray and not self.in_flight)
                self.initializer_error = self.initializer_error or connection.initializer_error
        if connection.fault:
            self.fault, self.must_end = connection.fault, True
        if connection.ended and self.in_flight and not self.rank_gone:
            self.rank_gone = f"rank {self._rank_of(connection)} of {self.size} ended first, then "
        return ends

    def refused(self) -> list[Ended]:
        """Return the call after a failure to send to one rank, because the other ranks would wait for that one."""
        ends = [end for c in self.ranks.values() for refused in c.refused() for end in self._rank_ended(c, refused)]
        self.must_end |= bool(ends)
        return ends

    def _enter(self, connection: WorkerConnection, frame: Frame) -> None:
        """Take in a rank with a known number; the number of ranks is known, too, if MPI is in use."""
        _, size, rank, _, library = frame
        # 0: MPI is not in use here, so only the function can tell.
        if size not in (0, self.size):
            self.alone, self.must_end = (size, library.decode()), True
            return
        self._strangers.remove(connection)
        self.ranks[rank] = connection
        connection.rank = rank
        connection.greet(self._initializer)

    def _rank_of(self, connection: WorkerConnection) -> int:
        return next((rank for rank, known in self.ranks.items() if known is connection), -1)

    def _rank_ended(self, connection: WorkerConnection, end: Ended) -> list[Ended]:
        if not self.in_flight:  # another rank has failed before
            return []
        call, packed, failed = end
        # Cleared at once, so that the ends of the other ranks count no more.
        if failed:
            self.in_flight.clear()
            return [end]
        again, call.asks_again = call.asks_again, False  # the next rank may end without `Again`
        results = self._results.add(self._rank_of(connection), packed, again)
        if results is None:
            return []
        self.in_flight.clear()
        if results.ranks_disagree:
            error = CallyardError(words_of_some_again(call.future.name, results.again, self.size))
            return [(call, Packed(dump_error(error, str(error))), True)]
        call.asks_again = results.again > 0
        if not self._mpi_used and not isinstance(call.note, RunDeclined):
            _warn_of_no_mpi(call, self.size)
        return [(call, results, False)]

    def drain(self) -> list[Ended]:
        """Return the call if a rank's last frames end it."""
        return [end for c in list(self.ranks.values()) for end in self.take_frames(c, c.receive())]

    def runs(self, call: Call) -> bool:
        """Return True if the ranks make this call."""
        return call in self.in_flight.values()

    def take_unfinished(self) -> tuple[list[Call], list[Call]]:
        """After the end of the group, take out the call that ran there, if any; no call was sent ahead."""
        ran = list(self.in_flight.values())
        self.in_flight.clear()
        return ran, []


def _memory_directory() -> str | None:
    """Return a directory in memory, where launchers want the files shared by ranks; None for the usual place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def _warn_of_no_mpi(call: Call, size: int) -> None:
    with contextlib.suppress(Warning):  # an I/O thread has no caller to catch a warning that is an error
        warnings.warn(words_of_no_mpi(call.future.name, size), stacklevel=2)
