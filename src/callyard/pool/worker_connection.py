"""The driver's end of one worker: calls become frames, frames become results, and each side's loans are counted."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..cache.messages import RunAgain, RunReport
from ..events.usage import Usage
from ..futures import Lazy
from ..serialize.function_registry import FunctionDefinition
from ..serialize.packer import Packed, Packer
from ..system.descriptors import DescriptorShare
from ..transport import frames
from ..transport.frame_buffers import LentBuffers, LostBuffers, description, note_unused, undescribe
from ..transport.frames import (
    CALL,
    CONTENT,
    DEFINE,
    ERROR,
    FETCH,
    FORGET,
    FREE,
    HELLO,
    MEASURED,
    NOTED,
    PACKED,
    PATH,
    READY,
    RESULT,
    Frame,
    FrameTooLarge,
    GarbledFrame,
)
from ..transport.result_log import make_result_log
from ..transport.sent_functions import SentFunctions, SentImports, working_directory
from ..transport.stream import FrameStream
from ..worker.exceptions import dump_error, traceback_text, unsendable_call
from .call import Call
from .mpi_results import RankResults
from .worker import Worker

PART = 2  # one half of the descriptors of a process may go to workers
_WORKERS = DescriptorShare(PART)
os.register_at_fork(after_in_child=_WORKERS.forget)  # in a forked child the connections of the original are closed
EACH = 2  # descriptors of a worker: the socket and the result log's; twice as many during its start

# An ended call; the packed result or (exception, traceback); True for a failure. A tuple, because ends are many.
Ended = tuple[Call, Lazy, bool]

_Said = tuple[int, int, bytes, bool]  # of an ended call: sequence number, microseconds, note, True for a failure


class WorkerConnection:
    """One worker process as the driver sees it. A sender holds the dispatcher's lock; the I/O thread alone receives."""

    def __init__(
        self,
        worker: Worker,
        packer: Packer,
        on_blocked: Callable[[FrameStream], object],
        on_unused: Callable[[], object],
        sock: socket.socket | None = None,
    ) -> None:
        """Connect to a running process (`sock`), or make a stream whose other end a new process is going to get.

        Raises:
            OSError: no descriptors are left.
        """
        self.worker = worker
        self.pid: int | None = None
        self.sent_at = 0.0  # the time of the last message with calls, by the monotonic clock
        self.rank = 0  # in a group of ranks
        self.in_flight: dict[int, Call] = {}  # by sequence number, in the order of the runs
        self.begun_before = 0  # `begun` of the result log at the last look
        self.ended = False  # the stream has ended; the process perhaps not
        self.fault = ""  # for people: the reason for its end
        self.must_end = False
        self.rank_gone = self.address = ""  # see RankGroup, also for the next line
        self.alone: tuple[int, str] | None = None
        self.says_ready = False
        self.initializer_error: Packed | None = None
        self.sequence = 0
        self._packer, self._on_unused = packer, on_unused
        self._functions, self._imports = SentFunctions(), SentImports()
        self._loans = LentBuffers()
        self._unused: deque[int] = deque()
        self._lost: deque[tuple[_Said, LostBuffers]] = deque()  # results whose descriptors were lost on their way
        self._fetch: deque[int] = deque()  # segments of these results, still to be asked for
        self._wanted: deque[int] = deque()  # segments the worker asks for, because it has lost their descriptors
        self._refused: dict[int, Packed] = {}  # errors of calls that could not be sent, by sequence number
        self._theirs: socket.socket | None = None  # the end for the worker, until its process has a copy
        self._open(sock, on_blocked)

    def _open(self, sock: socket.socket | None, on_blocked: Callable[[FrameStream], object]) -> None:
        with contextlib.ExitStack() as undo:
            self._count_descriptors(undo)
            self.result_log, self._log_fd = make_result_log()
            undo.callback(self._close_result_log)
            if sock is None:
                sock, self._theirs = socket.socketpair()
            self.stream = FrameStream(sock, on_blocked)
            undo.pop_all()

    # -- start and end ---------------------------------------------------------------------------------

    def _count_descriptors(self, undo: contextlib.ExitStack) -> None:
        if not _WORKERS.take(EACH):
            raise OSError(errno.EMFILE, f"its connection would exceed the {_WORKERS.most} descriptors for workers")
        undo.callback(_WORKERS.give_back, EACH)

    def greet(self, initializer: bytes | None) -> list[int]:
        """Send the settings of the worker; return the descriptors for its process."""
        greeting = {
            "argv": sys.argv,
            "cwd": working_directory(),
            "initializer": initializer,
            "cores": self.worker.shape.cores // self.worker.shape.ranks,
        }
        self.stream.send(frames.encode_object(PATH, self._imports.take()), [])
        self.stream.send(frames.encode_object(HELLO, greeting), [])
        return [] if self._theirs is None else [self._theirs.fileno(), self._log_fd]

    def handed_over(self) -> None:
        """Close the worker's end here, because the process has its copies by now."""
        if self._theirs is not None:
            self._theirs.close()
        self._close_log_fd()

    def _close_log_fd(self) -> None:
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd = -1

    def _close_result_log(self) -> None:
        self._close_log_fd()
        self.result_log.close()

    def leave(self) -> None:
        """Tell the worker to end, by ending the stream to it."""
        try:
            self.stream.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.ended = True

    def close(self) -> None:
        """Release all resources; called once, after the worker's end."""
        self.handed_over()
        self.stream.close()
        self.result_log.close()
        self._loans.clear()
        _WORKERS.give_back(EACH)

    # -- to the worker ---------------------------------------------------------------------------------

    def send(self, calls: Sequence[Call]) -> None:
        # Definitions and paths come before the calls, in the same message: one wake-up of the worker is enough.
        parts: list[bytes] = []
        descriptors: list[int] = []
        if self._unused:
            parts.append(frames.encode_numbers(FREE, self._unused))
        if self._functions:
            parts.append(frames.encode_numbers(FORGET, self._functions.take_dropped()))
        if self._imports.changed():
            parts.append(frames.encode_object(PATH, self._imports.take()))
        for call in calls:
            if descriptors:  # the descriptors of a message are limited, so each such call has its own
                self.stream.send(b"".join(parts), descriptors)
                parts, descriptors = [], []
            self.sequence += 1
            # In flight before anything is sent: after an interruption the call must be found here.
            self.in_flight[self.sequence] = call
            try:
                descriptors = self._encode(call, parts)
            except (FrameTooLarge, OSError, MemoryError) as error:  # this call fails, the others go on
                self._refuse(call, error)
        self.stream.send(b"".join(parts), descriptors)

    def _encode(self, call: Call, parts: list[bytes]) -> list[int]:
        """Add the frame of the call, or nothing in case of an error; return the descriptors beside the frame."""
        number = self._define(call.definition, parts) if call.definition is not None else 0
        packed = call.arguments
        options, flags = call.options(), MEASURED if call.measured else 0
        if number and not (options or call.inputs or packed.memories):
            parts.append(frames.encode(CALL, self.sequence, number, flags, packed.data or b""))
            return []
        again = call.again.parts[self.rank] if isinstance(call.again, RankResults) else call.again
        content: list[Any] = [options]
        descriptors: list[int] = []
        with self._loans.together():
            for part in (packed, *call.inputs, *(() if again is None else (again,))):
                # Arrays move into shared memory only now, since a call that is never sent needs none.
                part.memories = tuple(map(self._packer.shared, part.memories))
                content.append(description(part, self._loans, descriptors))
            parts.append(frames.encode(CALL, self.sequence, number, flags | PACKED, pickle.dumps(content, 5)))
        return descriptors

    def _refuse(self, call: Call, error: Exception) -> None:
        """Note that the last call cannot be sent.

        The call stays in flight until the I/O thread has ended the future.
        """
        refusal = unsendable_call(call.future.name, error)
        self._refused[self.sequence] = Packed(dump_error(refusal, traceback_text(refusal)))
        self._on_unused()

    def refused(self) -> list[Ended]:
        """Return the calls that could not be sent since the last call of this method."""
        if not self._refused:
            return []
        refused, self._refused = self._refused, {}
        ends = [(self.in_flight.pop(sequence, None), packed) for sequence, packed in refused.items()]
        return [(call, packed, True) for call, packed in ends if call is not None]

    def _define(self, definition: FunctionDefinition, parts: list[bytes]) -> int:
        """Send the function unless the worker has this very version; return its number."""
        if self._functions.add(definition):
            parts.append(frames.encode(DEFINE, 0, definition.id, 0, definition.data))
        return definition.id

    # -- from the worker -------------------------------------------------------------------------------

    def receive(self) -> list[Frame]:
        """Return the arrived frames, and note the end of the stream."""
        arrived = self.stream.receive()
        if arrived is None:
            self.ended = True
            return []
        return self._whole(arrived)

    def _whole(self, arrived: Iterator[Frame]) -> list[Frame]:
        whole: list[Frame] = []
        try:
            whole.extend(arrived)  # the frames before an error count
        except GarbledFrame as error:
            self._give_up(error)
        return whole

    def _give_up(self, error: BaseException) -> None:
        """Give up a worker with unreadable frames, so that the worker is ended."""
        self.ended = True
        self.fault = f"what it sent could not be read ({error})"

    def drain(self) -> list[Ended]:
        """Return the calls that a worker finished before the end, as sent or as left in the result log."""
        arrived: list[Frame] = []
        self.stream.empty = False
        while not (self.ended or self.stream.empty):  # the next bytes may complete no frame yet
            arrived.extend(self.receive())
        arrived.extend(self._whole(frames.FrameReader().feed(self.result_log.unsent())))
        return self.take_frames(self, arrived)

    def receive_unsent(self, unsent: bytes) -> list[Ended]:
        """Return the calls whose results were found in the result log."""
        return self.take_frames(self, self._whole(frames.FrameReader().feed(unsent)))

    def used_until_its_end(self, used: Sequence[float] | None) -> Usage | None:
        """Return what the call used that ended with the worker; None if it was not measured.

        `used`: the processor time (s) and the peak of memory (bytes) of the worker's process, if known.
        """
        since, cpu, largest = self.result_log.measured_from
        if not since:
            return None
        cpu_used, peak = (None, 0.0) if used is None else (max(0.0, used[0] - cpu), used[1])
        # The kernel's peak may be that of a process in an earlier call.
        most = max(int(peak) if peak > largest else 0, self.result_log.counted_memory)
        return Usage(time.monotonic() - since, cpu_used, most or None)

    def sockets(self) -> list[socket.socket]:
        return [self.stream.sock]

    def take_frames(self, connection: WorkerConnection, arrived: list[Frame]) -> list[Ended]:
        """Return the calls ended by these frames.

        The second of two equal results, by stream and by result log, is ignored.
        """
        ends: list[Ended] = []
        try:
            for frame in arrived:
                kind, sequence, number, flags, body = frame
                if (kind == RESULT or kind == ERROR) and sequence and not flags & (PACKED | NOTED):  # most frames
                    end = self._end((sequence, number, b"", kind == ERROR), Packed(body))
                else:
                    end = self._take_frame(frame)
                if end is not None:
                    ends.append(end)
        except Exception as error:  # the bytes may come from any program that has written to the worker's end
            self._give_up(error)
        return ends

    def _take_frame(self, frame: Frame) -> Ended | None:
        kind, sequence, number, _, body = frame
        if kind == RESULT or kind == ERROR:
            if sequence:
                return self._receive_end(frame)
            self.initializer_error = Packed(body)
        elif kind == CONTENT:
            return self._receive_content(number, body)
        elif kind == FREE:
            self._loans.returned(pickle.loads(body))
        elif kind == FETCH:
            self._wanted.extend(pickle.loads(body))
            self._on_unused()
        elif kind == READY:
            self.says_ready, self.pid = True, number  # the zygote tells the same, perhaps later
        return None

    def _receive_end(self, frame: Frame) -> Ended | None:
        kind, sequence, number, flags, body = frame
        note = b""
        if flags & NOTED:
            note, body = frames.split_note(body)
        said = (sequence, number, note, kind == ERROR)
        if not flags & PACKED:
            return self._end(said, Packed(body))
        opened = undescribe([pickle.loads(body)], self.stream.reader, self._note_unused)
        if not isinstance(opened, LostBuffers):
            return self._end(said, opened[0])
        self._lost.append((said, opened))
        self._fetch.extend(opened.numbers)
        self._on_unused()
        return None

    def _receive_content(self, number: int, piece: bytes) -> Ended | None:
        """Take in a piece of the first lost result: the pieces come in the order of the requests."""
        said, lost = self._lost[0]
        if not lost.add(number, piece):
            return None
        self._lost.popleft()
        return self._end(said, lost.packed()[0])

    def _end(self, said: _Said, packed: Packed) -> Ended | None:
        sequence, microseconds, note, failed = said
        noted = pickle.loads(note) if note else None
        call = self.in_flight.pop(sequence, None)
        if call is None:
            return None
        call.pace.note(microseconds * 1e-6)
        if type(noted) is RunAgain:
            call.asks_again = True
        elif type(noted) is tuple:
            call.used(Usage(*noted))
        elif noted is not None:  # of several ranks one has the note
            call.note = noted
            if type(noted) is RunReport and noted.usage is not None:
                call.used(noted.usage)
        return call, packed, failed

    def _note_unused(self, number: int, clean: bool) -> None:
        note_unused(self._unused, number, clean)
        self._on_unused()

    def catch_up(self) -> None:
        """Send, even without a call, unused segments, requests for lost ones, and content lost at the worker."""
        if self._unused:
            self.stream.send(frames.encode_numbers(FREE, self._unused), [])
        if self._fetch:
            self.stream.send(frames.encode_numbers(FETCH, self._fetch), [])
        while self._wanted:
            try:
                pieces = self._loans.content(self._wanted.popleft())
            except (KeyError, OSError, MemoryError):  # the worker waits for the bytes, so it has to end
                self.leave()
                return
            for piece in pieces:
                self.stream.send(piece, [])

    # -- withdrawing -----------------------------------------------------------------------------------

    def stalled(self) -> bool:
        """Return True if calls wait behind one that was already running at the last call of this method."""
        begun = self.result_log.begun
        before, self.begun_before = self.begun_before, begun
        return len(self.in_flight) > 1 and begun == before and begun in self.in_flight

    def runs(self, call: Call) -> bool:
        """Return True if this call has begun here, as far as known."""
        begun = self.result_log.begun
        return self.in_flight.get(begun) is call

    def withdrawn(self, begun: int) -> list[Call]:
        """Take out the calls not going to begin here, and return all of them in order."""
        numbers = [number for number in list(self.in_flight) if number > begun]
        return [self.in_flight.pop(number) for number in numbers]

    def take_unfinished(self) -> tuple[list[Call], list[Call]]:
        """After the worker's end, take out the calls that ran there without a result, and the calls never begun."""
        begun = self.result_log.begun
        if self.fault:  # a garbled stream may mean a garbled result log, so the first call is under suspicion
            begun = max(begun, next(iter(self.in_flight), 0))
        ran = [call for number, call in self.in_flight.items() if number <= begun]
        rest = [call for number, call in self.in_flight.items() if number > begun]
        self.in_flight.clear()
        return ran, rest
