"""The driver's end of one worker: calls to frames, frames to results, and what each side has lent the other."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..futures import Lazy
from ..wire import frames
from ..wire.frames import CALL, DEFINE, ERROR, FORGET, FREE, HELLO, NOTED, ORDER, PACKED, PATH, READY, RESULT, Frame
from ..wire.functions import Definition
from ..wire.ledger import SIZE, Ledger
from ..wire.lending import Loans, description, note_unused, undescribe
from ..wire.memory import Memory, anonymous_file, borrow
from ..wire.packing import Packed, Packer
from .call import Call
from .pool import Worker
from .stream import Stream

_MANAGERS = "multiprocessing.managers"

# A call that ended; what with, packed: its result or (exception, traceback); whether it failed. Plain: they are many.
Ended = tuple[Call, Lazy, bool]


class Connection:
    """What the driver knows of one worker process. Sending wants the node's lock; receiving is the I/O thread's."""

    def __init__(
        self,
        worker: Worker,
        packer: Packer,
        on_blocked: Callable[[Stream], object],
        on_unused: Callable[[], object],
        sock: socket.socket | None = None,
    ) -> None:
        """With `sock` the process is there and has connected; otherwise it is going to get the other end."""
        self.worker = worker
        self.pid: int | None = None
        self.flight: dict[int, Call] = {}  # by sequence number, in the order in which the worker runs them
        self.begun_before = 0  # what the ledger said when the worker was last looked at
        self.ended = False  # the stream has ended; the process may not have
        self.must_end = False
        self.rank_gone = self.address = ""  # see RankGroup, also for the next
        self.alone: tuple[int, str] | None = None
        self.says_ready = False
        self.initializer_error: Packed | None = None
        self.sequence = 0
        self._packer, self._on_unused = packer, on_unused
        self._known: dict[int, weakref.ref[Definition]] = {}  # the functions that the worker has
        self._forgotten: deque[int] = deque()  # those of them that nobody can call any more
        self._path: list[str] = []
        self._has_key = False
        self._loans = Loans()
        self._unused: deque[int] = deque()
        self._theirs: socket.socket | None = None
        if sock is None:
            sock, self._theirs = socket.socketpair()
        self.stream = Stream(sock, on_blocked)
        self._ledger_fd = anonymous_file(SIZE)
        self.ledger = Ledger(self._ledger_fd)

    # -- start and end ---------------------------------------------------------------------------------

    def greet(self, initializer: bytes | None) -> list[int]:
        """Say what the worker must know first; the descriptors that its process must be given."""
        greeting = {"argv": sys.argv, "cwd": _directory(), "initializer": initializer}
        self.stream.send(self._surroundings(), [])
        self.stream.send(frames.encode_object(HELLO, greeting), [])
        return [] if self._theirs is None else [self._theirs.fileno(), self._ledger_fd]

    def handed_over(self) -> None:
        """The worker's process has its descriptors: only it shall hold the other end."""
        if self._theirs is not None:
            self._theirs.close()
        if self._ledger_fd >= 0:
            os.close(self._ledger_fd)
            self._ledger_fd = -1

    def leave(self) -> None:
        """Tell the worker to end, by ending the stream to it."""
        try:
            self.stream.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.ended = True

    def close(self) -> None:
        self.handed_over()
        self.stream.close()
        self.ledger.close()
        self._loans.clear()

    # -- to the worker ---------------------------------------------------------------------------------

    def send(self, calls: Sequence[Call]) -> None:
        parts: list[bytes] = []
        descriptors: list[int] = []
        if self._unused:
            parts.append(frames.encode_numbers(FREE, self._unused))
        if self._forgotten:
            parts.append(frames.encode_numbers(FORGET, self._forgotten))
        if sys.path != self._path or (not self._has_key and _MANAGERS in sys.modules):
            parts.append(self._surroundings())
        for call in calls:
            if descriptors:  # a message takes only so many descriptors, so each such call is one of its own
                self.stream.send(b"".join(parts), descriptors)
                parts, descriptors = [], []
            self.sequence += 1
            self.flight[self.sequence] = call
            self._encode(call, parts, descriptors)
        self.stream.send(b"".join(parts), descriptors)

    def _surroundings(self) -> bytes:
        """Where modules are found; and, where managers are in use, the key with which their proxies connect."""
        self._path = list(sys.path)
        self._has_key = _MANAGERS in sys.modules
        key = bytes(multiprocessing.current_process().authkey) if self._has_key else None
        return frames.encode_object(PATH, (self._path, key))

    def _encode(self, call: Call, parts: list[bytes], descriptors: list[int]) -> None:
        number = self._define(call.definition, parts) if call.definition is not None else 0
        packed = call.arguments
        if number and not (call.inputs or packed.memories or call.plan.options or call.remember):
            data = packed.data or b""
            parts.append(frames.HEAD.pack(frames.HEAD.size + len(data), CALL, self.sequence, number, 0))
            parts.append(data)
            return
        content: list[Any] = [call.plan.options]
        if call.remember is not None:
            content[0] = {**call.plan.options, ORDER: call.remember}
        for part in (packed, *call.inputs):
            part.memories = tuple(map(self._packer.shared, part.memories))
            content.append(description(part, self._loans, descriptors))
        parts.append(frames.encode(CALL, self.sequence, number, PACKED, pickle.dumps(content, 5)))

    def _define(self, definition: Definition, parts: list[bytes]) -> int:
        """Make sure that the worker has this very version of the function; its number."""
        number = definition.id
        if number not in self._known:
            forgotten = self._forgotten
            self._known[number] = weakref.ref(definition, lambda _: forgotten.append(number))
            parts.append(frames.encode(DEFINE, 0, number, 0, definition.data))
        return number

    # -- from the worker -------------------------------------------------------------------------------

    def receive(self) -> list[Frame]:
        """The frames that are there; notes when the stream has ended."""
        arrived = self.stream.receive()
        if arrived is None:
            self.ended = True
            return []
        return list(arrived)

    def drain(self) -> list[Ended]:
        """The calls that a worker ended before it ended itself: what it had sent, and what was in the ledger."""
        arrived: list[Frame] = []
        self.stream.empty = False
        while not (self.ended or self.stream.empty):  # what arrives next may complete no frame yet
            arrived.extend(self.receive())
        arrived.extend(frames.FrameReader().feed(self.ledger.unsent()))
        return self.hear(self, arrived)

    def hear_of(self, unsent: bytes) -> list[Ended]:
        """The calls whose results were found in the ledger."""
        return self.hear(self, list(frames.FrameReader().feed(unsent)))

    def sockets(self) -> list[socket.socket]:
        return [self.stream.sock]

    def hear(self, connection: Connection, arrived: list[Frame]) -> list[Ended]:
        """The calls that these frames end. What is said twice counts once."""
        ends: list[Ended] = []
        for kind, sequence, number, flags, body in arrived:
            if kind == RESULT or kind == ERROR:
                call = self.flight.pop(sequence, None)
                if call is not None:
                    call.pace.note(number * 1e-6)
                    if flags & NOTED:
                        note, body = frames.split_note(body)
                        call.note = pickle.loads(note)
                    packed = self._packed(body) if flags & PACKED else Packed(body)
                    ends.append((call, packed, kind == ERROR))
                elif sequence == 0:
                    self.initializer_error = Packed(body)
            elif kind == FREE:
                self._loans.returned(pickle.loads(body))
            elif kind == READY:
                self.says_ready = True
        return ends

    def _packed(self, body: bytes) -> Packed:
        return undescribe(pickle.loads(body), self._borrow)

    def _borrow(self, number: int, size: int) -> Memory:
        return borrow(self.stream.reader.descriptors.popleft(), size, partial(self._note_unused, number))

    def _note_unused(self, number: int, clean: bool) -> None:
        note_unused(self._unused, number, clean)
        self._on_unused()

    def return_unused(self) -> None:
        """Give back what nobody here uses any more, although there is no call to send."""
        if self._unused:
            self.stream.send(frames.encode_numbers(FREE, self._unused), [])

    # -- withdrawing -----------------------------------------------------------------------------------

    def stalled(self) -> bool:
        """Whether calls wait behind one that has been running since this was last asked."""
        begun = self.ledger.begun
        before, self.begun_before = self.begun_before, begun
        return len(self.flight) > 1 and begun == before and begun in self.flight

    def withdrawn(self, begun: int) -> list[Call]:
        """The calls that will not begin, in order; from now on they are not in flight here."""
        # A list first: the I/O thread may be taking out what has ended.
        numbers = [number for number in list(self.flight) if number > begun]
        return [self.flight.pop(number) for number in numbers]

    def split_flight(self) -> tuple[list[Call], list[Call]]:
        """After the worker's end: the calls that ran there without a result, and those that never began."""
        begun = self.ledger.begun
        ran = [call for number, call in self.flight.items() if number <= begun]
        rest = [call for number, call in self.flight.items() if number > begun]
        self.flight.clear()
        return ran, rest


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return None
