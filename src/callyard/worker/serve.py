"""A worker: calls are read from a stream and run one after the other, and the results are sent.

There is one thread only, so that the user's functions may fork. Results of short calls are collected and sent together;
until then the results lie in the result log, and outlive this process.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter, sleep
from typing import Any

from ..cache.messages import RunAgain
from ..dependencies.map_chunks import run_chunk
from ..serialize.namespace_replica import LoadedFunction, UnloadableFunction
from ..serialize.packer import Packed, Packer
from ..serialize.shared_memory import SegmentPool
from ..transport import frames
from ..transport.frame_buffers import LentBuffers, LostBuffers, describe, describe_whole, note_unused, undescribe
from ..transport.frames import (
    CALL,
    CONTENT,
    DEFINE,
    FETCH,
    FORGET,
    FREE,
    HELLO,
    MEASURED,
    NOTED,
    ORDER,
    PACKED,
    PATH,
    READY,
    RESULT,
    SCARCE,
)
from ..transport.result_log import ROOM, ResultLog
from .call_context import arranged
from .call_request import Request
from .current_call import Again, name_of, running
from .exceptions import (
    encode_error,
    traceback_text,
    unpicklable_again,
    unpicklable_result,
    unreadable_call,
    unsendable_result,
)
from .initializer import Initialized
from .process_state import ProcessState
from .usage_meter import UsageMeter, measuring

_HAND_OVER_AFTER = 0.0005  # s for a result to wait for results of the calls behind, at most
_LOOKING = 0.0001  # s for an idle worker to look for the next call before it sleeps
_SHORT = 0.001  # s; after longer calls it sleeps at once
_MOMENT = 0.005  # s between two attempts to send while the system lacks memory
_NO_OPTIONS: dict[str, Any] = {}


class Server:
    """The state of a worker, and its actions for each kind of frame."""

    def __init__(self, sock: socket.socket, result_log: ResultLog) -> None:
        sock.setblocking(True)  # user code may have changed the default, or the way sockets work
        self.sock = sock
        self.result_log = result_log
        self.reader = frames.FrameReader()
        self.arrived: deque[frames.Frame] = deque()  # frames not dealt with so far
        self.segments = SegmentPool()
        self.packer = Packer(self.segments, to_driver=True)
        self.functions: dict[int, LoadedFunction | UnloadableFunction] = {}
        self.unloaded: dict[int, bytes] = {}  # functions without a call so far
        self.initialized = Initialized()
        self.loans = LentBuffers()  # results that others still use
        self.unused: deque[int] = deque()  # segments of others without a user here
        self.outbox = 0  # bytes in the result log that were not sent yet
        self.oldest = 0.0  # the time of the first of them
        self.last_call = _SHORT  # the last call's duration, s
        self.failure_notes: list[bytes] = []  # about the failure of a cached call that has just ended
        self.meter: UsageMeter | None = None  # of the running call, if its usage is asked for
        self.pid = os.getpid()
        self.state = ProcessState()
        self._actions: dict[int, Callable[[int, int, int, bytes], None]] = {
            HELLO: self.hello,
            PATH: self.path,
            DEFINE: self.define,
            FORGET: self.forget,
            CALL: self.call,
            FREE: self.free,
            FETCH: self.say_content,
        }

    def run(self) -> None:
        """Serve until the driver closes the stream."""
        actions = self._actions
        while True:
            # Before each wait: a result must not lie here while the worker sleeps.
            self.flush()
            data = self.wait_for_frames()
            if not data:
                return
            self.arrived.extend(self.reader.feed(data))
            while self.arrived:
                kind, sequence, number, flags, body = self.arrived.popleft()
                actions[kind](sequence, number, flags, body)

    def wait_for_frames(self) -> bytes:
        """Return the driver's next bytes. After a short call poll for a moment, because a wake-up takes longer."""
        until = perf_counter() + _LOOKING if self.last_call < _SHORT else 0.0
        while perf_counter() < until:
            try:
                return self.receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()  # another process gets this core if it wants to
        return self.receive()

    def receive(self, flags: int = 0) -> bytes:
        while True:
            try:
                return frames.receive(self.sock, self.reader, flags)
            except OSError as error:
                if error.errno not in SCARCE:
                    raise
            sleep(_MOMENT)  # no event tells when the system has memory again

    # -- frames of the driver ---------------------------------------------------------------------------

    def hello(self, sequence: int, number: int, flags: int, body: bytes) -> None:
        greeting = pickle.loads(body)
        sys.argv[:] = greeting["argv"]
        running.cores = greeting["cores"]
        with contextlib.suppress(OSError):  # the directory may have gone; a call's own `cwd` is made
            os.chdir(greeting["cwd"] or ".")
        try:
            self.initialized = Initialized.load(greeting["initializer"])
        except BaseException as error:
            self.send(encode_error(error, 0, 0.0))
            self.flush()
            raise SystemExit(1) from None  # without the initializer no call may run here
        self.state = ProcessState()  # with the changes of the initializer, which are meant to stay
        self.send(frames.encode(READY, 0, self.pid))

    def path(self, sequence: int, number: int, flags: int, body: bytes) -> None:
        sys.path[:], key = pickle.loads(body)
        self.state.path = list(sys.path)
        if key is not None:
            import multiprocessing  # here, because few workers need this

            multiprocessing.current_process().authkey = key

    def define(self, sequence: int, number: int, flags: int, body: bytes) -> None:
        self.unloaded[number] = body

    def forget(self, sequence: int, number: int, flags: int, body: bytes) -> None:
        for gone in pickle.loads(body):
            self.functions.pop(gone, None)
            self.unloaded.pop(gone, None)

    def free(self, sequence: int, number: int, flags: int, body: bytes) -> None:
        self.loans.returned(pickle.loads(body))

    def say_content(self, sequence: int, number: int, flags: int, body: bytes) -> None:
        for lent in pickle.loads(body):
            for piece in self.loans.content(lent):
                self._transmit(piece, [])

    def call(self, sequence: int, number: int, flags: int, body: bytes) -> None:
        # First of all, so that the driver knows the running call after a crash.
        runs = self.result_log.begin(sequence)
        # Also for a withdrawn call: its descriptors have arrived, and must be taken from the reader's queue.
        request = Request.read(body, self.undescribe) if flags & PACKED else None
        if not runs:
            return
        if self.unloaded:
            self.load_function(number)
        started = perf_counter()
        order = request.options.pop(ORDER, None) if request is not None else None
        self.meter = meter = None
        if flags & MEASURED:
            self.meter = meter = measuring(len(body) if request is None else request.size, self.result_log)
        note = b""
        running.begin(_NO_OPTIONS if request is None else request.options)
        try:
            if request is None or order is None:
                value = self.execute(number, body, request)
                self.function_ended()
                result = self.pack_result(value)
                del value  # packed by now, and perhaps large
                if meter is not None:
                    note = pickle.dumps(meter.fields(result.size), 5)
                packed: Packed | None = result
            else:
                from .cached_call import run_cached  # here, because most workers need none of this

                function = self.functions[number].data if number else None
                run, tell = partial(self.execute_and_pack, number, request), self.failure_notes.append
                packed, note = run_cached(order, request, run, function, self.pid, self.state, meter, tell)
        except BaseException as error:
            self.function_ended()
            self.done(started)
            with self.state:
                self.failed(error, sequence, request)
        else:
            self.done(started)
            self.send_result(packed, sequence, note)
        if running.terminated:
            # This process is about to end, so no result may wait here.
            self.flush()
        running.end()

    def load_function(self, number: int) -> None:
        """Load the function of the call that has just begun.

        Loading counts for the call's `run_time`, and not for its measured duration.
        """
        data = self.unloaded.pop(number, None)
        if data is not None:
            try:
                self.functions[number] = LoadedFunction(data)
            except BaseException as error:  # each call of the function fails with the error
                self.functions[number] = UnloadableFunction(error)

    def failed(self, error: BaseException, sequence: int, request: Request | None) -> None:
        """Send the exception of the call; if the call was told to end, only end this process, as others tell why."""
        if isinstance(error, Again):
            self.again(error, sequence)
        elif running.ended_from_outside:
            self.flush()  # the results of other calls
            running.await_term()
            running.die("" if type(error) is SystemExit else traceback_text(error))
        else:
            note = b"" if self.meter is None else pickle.dumps(self.meter.fields(), 5)
            note = self.failure_notes.pop() if self.failure_notes else note
            if request is not None and request.goes_on_after(error):
                note = pickle.dumps(RunAgain(), 5)
            self.send(encode_error(error, sequence, self.last_call, note))

    def function_ended(self) -> None:
        """Begin the handover; the time from here on, as for packing the result, is not the function's."""
        running.hand_over()
        if self.meter is not None:
            self._undo_recursion_limit()
            self.meter.stop()

    def _undo_recursion_limit(self) -> None:
        if sys.getrecursionlimit() < self.state.recursion_limit:  # otherwise the next step here may fail
            sys.setrecursionlimit(self.state.recursion_limit)

    def again(self, error: Again, sequence: int) -> None:
        """Send the arguments of the next run."""
        try:
            packed = self.packer.pack((error.args, error.kwargs))
        except Exception as reason:
            self.send(encode_error(unpicklable_again(error, reason), sequence, self.last_call))
        else:
            self.send_result(packed, sequence, pickle.dumps(RunAgain(), 5))

    def execute(self, number: int, body: bytes, request: Request | None) -> Any:
        """Return the result of the call. Afterwards nothing here refers to its arguments."""
        if request is None:
            return self.apply(*self.load(number, body))
        if not request.options:
            return self.apply(*self.load_request(number, request))
        if "memory" in request.options:
            self.segments.close()  # idle segments would count for the next call
        with arranged(request.options):
            return self.apply(*self.load_request(number, request))

    def apply(self, function: Any, args: Any, kwargs: Any) -> Any:
        running.function = args[0] if function is run_chunk else function
        return self.initialized.apply(function, args, kwargs)

    def execute_and_pack(self, number: int, request: Request) -> tuple[Packed, Any]:
        value = self.execute(number, b"", request)
        self.function_ended()
        return self.pack_result(value), value

    def load(self, number: int, body: bytes) -> Any:
        """Return the function and its arguments; an error here is not the function's own, but for a lack of memory."""
        try:
            return self.functions[number].current(), *pickle.loads(body)
        except MemoryError:
            raise
        except BaseException as error:
            raise unreadable_call(error) from error

    def load_request(self, number: int, request: Request) -> Any:
        try:
            return request.load(self.functions[number].current) if number else request.load()
        except MemoryError:
            raise
        except BaseException as error:
            raise unreadable_call(error) from error

    def pack_result(self, value: Any) -> Packed:
        try:
            return self.packer.pack(value)
        except Exception:  # the call may have changed a limit or a path: only now is it worth a reset
            with self.state:
                return self._pack_again(value)

    def _pack_again(self, value: Any) -> Packed:
        try:
            return self.packer.pack(value)
        except Exception as error:
            error.__context__ = None  # the error of the first attempt, which is the same
            raise unpicklable_result(name_of(running.function), value, error) from error

    def done(self, started: float) -> None:
        self.last_call = perf_counter() - started
        self._undo_recursion_limit()
        if os.getpid() != self.pid:  # the function forked and both came back: only one is the worker
            os._exit(0)

    # -- frames to the driver ---------------------------------------------------------------------------

    def send_result(self, packed: Packed | None, sequence: int, note: bytes) -> None:
        """Send the result, None for a call that did not run, and the note about the cache.

        If no frame can hold the result, nothing of that is sent, but an error.
        """
        number = min(int(self.last_call * 1e6), 0xFFFFFFFF)
        flags = self.result_flags()
        try:
            if note:
                flags, note = flags | NOTED, frames.encode_note(note)
            if packed is None:
                self.send(frames.encode(RESULT, sequence, number, flags, note))
            elif packed.data is not None and not packed.memories:
                self.send(frames.encode(RESULT, sequence, number, flags, note + packed.data))
            else:
                self._send_lent(
                    packed, lambda body: frames.encode(RESULT, sequence, number, flags | PACKED, note + body)
                )
        except frames.FrameTooLarge as error:
            self.send(encode_error(unsendable_result(error), sequence, self.last_call))

    def _send_lent(self, packed: Packed, frame: Callable[[bytes], bytes]) -> None:
        """Send a result in shared memory; as a whole in the stream if the system takes no descriptors."""
        with contextlib.suppress(_NotTaken), self.loans.together():
            body, descriptors = describe(packed, self.loans)
            data = frame(body)
            self.flush()
            self._transmit(data, descriptors)
            return
        self._transmit(frame(describe_whole(packed)), [])

    def result_flags(self) -> int:
        """Return further flags for a result."""
        return 0

    def send(self, frame: bytes) -> None:
        """Put a frame into the result log; send the log when it is full or the first frame has waited long enough."""
        if self.outbox + len(frame) > ROOM:
            self.flush()
            if len(frame) > ROOM:
                self._transmit(frame, [])
                return
        now = perf_counter()
        if self.outbox == 0:
            self.oldest = now
        self.outbox = self.result_log.put(frame, self.outbox)
        if now - self.oldest > _HAND_OVER_AFTER:
            self.flush()

    def flush(self) -> None:
        if self.unused:
            self._transmit(frames.encode_numbers(FREE, self.unused), [])
        if self.outbox:
            self._transmit(self.result_log.outbox(self.outbox), [])
            self.result_log.sent()  # after sending: the driver knows a repeated result by its number
            self.outbox = 0

    def _transmit(self, data: bytes, descriptors: list[int]) -> None:
        """Send all bytes.

        Raises:
            _NotTaken: the system does not take the descriptors now; nothing was sent.
        """
        sent = self._transmit_some(data, descriptors)
        # The descriptors have gone with the first byte.
        while sent < len(data):
            sent += self._transmit_some(memoryview(data)[sent:], [])

    def _transmit_some(self, data: bytes | memoryview, descriptors: list[int]) -> int:
        try:
            return frames.send_with_descriptors(self.sock, data, descriptors)
        except OSError as error:
            if error.errno not in SCARCE:
                raise
            if descriptors:
                raise _NotTaken from None
        sleep(_MOMENT)
        return 0

    def undescribe(self, described: Sequence[Any]) -> list[Packed]:
        """Return the objects of a frame with descriptors; fetch their bytes if the descriptors were lost."""
        opened = undescribe(described, self.reader, partial(note_unused, self.unused))
        return self.fetch(opened) if isinstance(opened, LostBuffers) else opened

    def fetch(self, lost: LostBuffers) -> list[Packed]:
        """Ask the driver for the lost segments and wait; other frames are dealt with later."""
        self._transmit(frames.encode_object(FETCH, lost.numbers), [])
        complete = False
        while not complete:
            data = self.receive()
            if not data:
                raise BrokenPipeError("the driver has gone")
            for frame in self.reader.feed(data):
                kind, _, number, _, body = frame
                if kind == CONTENT:
                    complete = lost.add(number, body)
                else:
                    self.arrived.append(frame)
        return lost.packed()


class _NotTaken(Exception):
    """The error if the system takes no descriptors now, because too many are on their way."""
