"""The gateway: the program on the other computer that holds the backend for a driver elsewhere.

    driver == ssh: standard input ===> Gateway --> the backend that would run if the user had logged in
    driver <== standard output ======= answers <-- its futures

There are three threads beside those of the backend: the main one takes in messages, another sends, a third one looks
for news of calls. Whoever can start this process can run any program as this user already, so that what comes through
the link is unpickled.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader, FileIO
from typing import Any

from ...errors import CallyardError, RemoteTraceback
from ...futures import Future, item, when_ended
from ...hashing.files import keep_copies
from ...result_cache import Cache
from ...serialize.dump import Dump
from ...serialize.namespace_replica import LoadedFunction
from ...serialize.packed import Packed, PackedCall, load_with_inputs
from ...status.executor_status import ExecutorStatus
from ...transport.frames import GarbledFrame
from ...worker.exceptions import dump_error, traceback_text, unreadable_call
from ..base import Backend, Settings
from ..cached.backend import CachedBackend
from ..registry import open_backend
from ..run_directories import remove_if_over
from . import protocol
from .contents import ContentFiles, FileCopies
from .protocol import (
    Answer,
    Message,
    MessageReader,
    MessageWriter,
    Opening,
    Question,
    SentCall,
    SentInput,
    SentPickle,
    SentResult,
    pieces,
)
from .used_packages import compare

__all__ = ["Gateway", "main"]

_PLACE = ".callyard"  # below the directory that the user has named
_SOON, _LATE = 0.05, 1.0  # s between two looks for news
_LARGE = 1 << 16  # bytes of a buffer that is sent beside the pickle
_KEPT = 7 * 24 * 3600.0  # s for which the directories of calls without a cache stay after their last change


class _Function:
    """A version of a function, opened at the first call."""

    def __init__(self, pickle: SentPickle) -> None:
        self.pickle = pickle
        self.loaded: LoadedFunction | None = None


class Gateway:
    """One conversation with a driver."""

    def __init__(self, directory: str, reader: MessageReader, writer: MessageWriter) -> None:
        self._directory, self._place = directory, os.path.join(directory, _PLACE)
        self._reader, self._writer = reader, writer
        self._backend: Backend | None = None
        self._run_directory = ""  # of calls without a cache
        self._contents: ContentFiles  # from the opening on
        self._wanted: set[str] = set()  # contents that were asked for
        self._functions: dict[int, _Function] = {}  # until the driver forgets them
        self._waiting: deque[tuple[int, SentCall]] = deque()  # in their order, until all contents are there
        self._futures: dict[int, Future[Any]] = {}  # until the driver forgets them
        self._forgotten: set[int] = set()  # what it will name no more, though calls that wait here may have named it
        self._forgotten_functions: set[int] = set()  # likewise
        self._told: dict[int, tuple[bool, str | None, int]] = {}  # of calls that have not ended, what was said last
        self._over = self._ended = False

    def run(self) -> bool:
        """Serve until the end of the conversation; return True if the driver has ended it."""
        sender = threading.Thread(
            target=self._writer.run, args=(self._still_there,), name="gateway-sender", daemon=True
        )
        watcher = threading.Thread(target=self._watch, name="gateway-news", daemon=True)
        sender.start()
        watcher.start()
        try:
            while (message := self._reader.read()) is not None:
                self._on_message(message)
        except GarbledFrame:
            pass
        finally:
            self._ended = True
        return self._over

    def warn(self, text: str) -> None:
        self._writer.put(protocol.WARNING, 0, text)

    def _still_there(self) -> bool:
        return self._ended or not self._reader.is_silent()

    # -- messages --------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        kind, number, content, buffers = message
        backend = self._backend
        if kind == protocol.OPEN:
            self._open(content)
        elif backend is None:  # it was refused
            pass
        elif kind == protocol.FUNCTION:
            self._functions[number] = _Function(content)
        elif kind == protocol.CALL:
            self._take_in(number, content)
        elif kind == protocol.CONTENT:
            self._keep(content, buffers)
        elif kind == protocol.CANCEL:
            self._cancel(number)
        elif kind == protocol.FORGET:
            self._forgotten.add(number)
            self._forget()
        elif kind == protocol.FORGET_FUNCTIONS:
            self._forgotten_functions.update(content)
            self._forget()
        elif kind == protocol.ASK:
            self._writer.put(protocol.ANSWER, number, self._answered(content, backend))
        else:
            self._end(kind, number, backend)

    def _end(self, kind: int, number: int, backend: Backend) -> None:
        if kind == protocol.KILL:
            self._cancel_waiting()
            backend.kill(number)
        elif kind == protocol.LEAVE:
            self._over = True
            self._writer.put(protocol.ENDED)
        elif kind == protocol.CLOSE:
            # In another thread, as a call that was cancelled too late may still run, and messages are signs of life.
            threading.Thread(target=self._close, args=(backend,), name="gateway-end", daemon=True).start()

    def _close(self, backend: Backend) -> None:
        try:
            backend.close(True)
        finally:  # the driver waits for this word
            if self._run_directory:
                shutil.rmtree(self._run_directory, ignore_errors=True)
            self._over = True
            self._writer.put(protocol.ENDED)

    def _open(self, opening: Opening) -> None:
        try:
            self._make_place()
            factory, settings = pickle.loads(opening.backend)
            self._backend = self._opened(factory, settings, opening)
        except Exception as error:
            self._writer.put(protocol.REFUSED, 0, _dumped(error))
            return
        self._writer.put(protocol.OPENED, 0, self._backend.description)

    def _make_place(self) -> None:
        """Make the directories, for this user alone, and enter the one in which calls begin.

        Raises:
            CallyardError: they cannot be used, or others could write there.
        """
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            os.chdir(self._directory)
            self._contents = ContentFiles(os.path.join(self._place, "contents"))
            keep_copies(FileCopies(os.path.join(self._place, "files")).keep)
        except OSError as error:
            raise CallyardError(
                f"calls on {socket.gethostname()} cannot begin in {self._directory}: {error}; name a directory of "
                "yours there, as SSH(directory=...)"
            ) from None

    def _opened(self, factory: Any, settings: Settings, opening: Opening) -> Backend:
        self._remove_old_runs()
        if opening.remembers:
            path = os.path.join(self._place, "cache")
            return open_backend(factory, settings, Cache(path, mode=opening.mode, failures=opening.failures))  # type: ignore[arg-type]
        if not factory.detached:
            return open_backend(factory, settings)
        self._run_directory = os.path.join(self._place, "runs", opening.run)
        return open_backend(factory, settings, Cache(self._run_directory))

    def _remove_old_runs(self) -> None:
        """Remove what executors without a cache have left that did not end in order."""
        runs = os.path.join(self._place, "runs")
        os.makedirs(runs, mode=0o700, exist_ok=True)
        for entry in os.scandir(runs):
            try:
                if entry.stat().st_mtime < time.time() - _KEPT:
                    remove_if_over(Cache(entry.path)._directory)
            except (OSError, CallyardError):  # another gateway removes it
                continue

    # -- calls -----------------------------------------------------------------------------------------

    def _take_in(self, number: int, call: SentCall) -> None:
        wanted = [name for name in self._contents.missing(self._contents_of(call)) if name not in self._wanted]
        if wanted:
            self._wanted.update(wanted)
            self._writer.put(protocol.WANT, 0, wanted)
        self._waiting.append((number, call))
        self._submit_waiting()

    def _keep(self, name: str, buffers: list[bytearray]) -> None:
        """Store a content; without a buffer the call that had it is gone, and perhaps another one has it by now."""
        self._wanted.discard(name)
        if not buffers:
            if any(name in self._contents_of(call) for _, call in self._waiting):
                self._wanted.add(name)
                self._writer.put(protocol.WANT, 0, [name])
            return
        try:
            self._contents.keep(name, buffers[0])
        except OSError as error:
            why = CallyardError(f"a large argument cannot be stored in {self._place}: {error.strerror}")
            for number, call in list(self._waiting):
                if name in self._contents_of(call):
                    self._waiting.remove((number, call))
                    self._writer.put(protocol.ERROR, number, _dumped(why))
        self._submit_waiting()

    def _submit_waiting(self) -> None:
        """Submit the calls whose contents are there, in their order, as a later one may depend on one before."""
        while self._waiting and not self._contents.missing(self._contents_of(self._waiting[0][1])):
            number, call = self._waiting.popleft()
            try:
                for text in compare(call.name, call.packages, socket.gethostname(), sys.executable):
                    self.warn(text)
                future = self._submit(call)
            except Exception as error:
                self._writer.put(protocol.ERROR, number, _dumped(error))
                continue
            self._futures[number] = future
            self._told[number] = (False, None, 1)
            when_ended(future, partial(self._call_ended, number))
        self._forget()

    def _forget(self) -> None:
        """Forget what the driver names no more, once no call waits that has named it before."""
        if not self._waiting:
            for number in self._forgotten:
                self._futures.pop(number, None)
            for number in self._forgotten_functions:
                self._functions.pop(number, None)
            self._forgotten.clear()
            self._forgotten_functions.clear()

    def _submit(self, call: SentCall) -> Future[Any]:
        backend = self._backend
        assert backend is not None, "the backend is opened before the first call"
        inputs = list(map(self._input, call.inputs))
        pickles = list(map(self._loaded, call.pickles))
        try:
            # The function first: the arguments may lend values to its globals.
            function: list[Any] = [self._function(call.function)] if call.function else []
            parts: list[Any] = [*function, *load_with_inputs(PackedCall(pickles), inputs)]
            fn, args, kwargs = parts
        except Exception as error:
            raise unreadable_call(error) from error
        if isinstance(backend, CachedBackend):
            return backend.submit(fn, args, kwargs, call.resources, name=call.named)
        return backend.submit(fn, args, kwargs, call.resources)

    def _function(self, number: int) -> Callable[..., Any]:
        """Return a function, with the values of its globals as they were when the call was submitted."""
        function = self._functions[number]
        if function.loaded is None:
            data, buffers = self._loaded(function.pickle)
            function.loaded = LoadedFunction(data or bytes(buffers[0]))
        return function.loaded.current()

    def _contents_of(self, call: SentCall) -> list[str]:
        pickles = [*call.pickles, *(given.value for given in call.inputs if given.value is not None)]
        if call.function:
            pickles.append(self._functions[call.function].pickle)
        return [name for pickled in pickles for name in pickled.contents]

    def _loaded(self, pickled: SentPickle) -> tuple[bytes, list[Any]]:
        return pickled.data, list(map(self._contents.load, pickled.contents))

    def _input(self, given: SentInput) -> Any:
        """Return a value, or the future of another call or of a part of its result."""
        if given.value is not None:
            return PackedCall([self._loaded(given.value)]).load()
        future: Any = self._futures.get(given.number)
        if future is None:
            raise CallyardError("another call, of which this one needs the result, could not be submitted")
        for key, length in given.path:
            future = item(future, key) if length is None else item_of(future, key, length)
        return future

    def _cancel(self, number: int) -> None:
        for waiting in list(self._waiting):
            if waiting[0] == number:
                self._waiting.remove(waiting)
        future = self._futures.pop(number, None)
        if future is not None:
            self._told.pop(number, None)
            future.cancel()

    def _cancel_waiting(self) -> None:
        while self._waiting:
            self._writer.put(protocol.CANCELLED, self._waiting.popleft()[0])

    # -- answers ---------------------------------------------------------------------------------------

    def _answered(self, question: Question, backend: Backend) -> Answer:
        """Return the status of some calls, with the calls before them as words."""
        told: list[tuple[object, ...] | None] = []
        for number in question.calls:
            future = self._futures.get(number)
            status = None if future is None else future.call_status
            told.append(status and tuple(status._replace(words=status.reason or status.words, awaits=())))
        whole = backend.status() if question.whole else ExecutorStatus()
        return Answer(told, dict(whole.waiting), whole.capacity, whole.used)

    def _call_ended(self, number: int, future: Future[Any]) -> None:
        if self._told.pop(number, None) is not None:
            self._writer.put_later(partial(_answer, number, future))

    def _watch(self) -> None:
        """Send news of calls; end this process if the driver is silent for too long, as its link may be cut."""
        pause = _SOON
        while True:
            time.sleep(pause)
            if self._ended:
                return
            if not self._still_there():
                os._exit(1)  # the backend's own processes notice, as at any death of the process that submitted
            news = self._news()
            pause = _SOON if news else min(pause * 1.5, _LATE)
            if news:
                self._writer.put(protocol.NEWS, 0, news)

    def _news(self) -> list[tuple[int, bool, str | None, int]]:
        news = []
        for number, told in list(self._told.items()):
            future = self._futures.get(number)
            if future is None:
                continue
            now = future.running(), future.job_id, future.attempts
            if now != told and number in self._told:
                self._told[number] = now
                news.append((number, *now))
        return news


def item_of(future: Future[Any], key: int, length: int) -> Future[Any]:
    """Return the future of one of so many parts."""
    from ...futures import unzip

    return unzip(future, length)[key]


def _answer(number: int, future: Future[Any]) -> Iterator[Any]:
    """Return the message about the end of a call, in the sending thread: a result may have to be opened."""
    if future.cancelled():
        return pieces(protocol.CANCELLED, number)
    try:
        future.take()
        if not future.failed():
            return _result(number, future)
        future.asked()  # by the other side
        packed = future.packed_failure()
        error = packed.load() if packed is not None else future.exception()
        assert error is not None, "the call has failed"
    except Exception as failure:  # what cannot be opened, or packed again
        error = failure
    return pieces(protocol.ERROR, number, _dumped(error))


def _result(number: int, future: Future[Any]) -> Iterator[Any]:
    packed = future._packed
    if isinstance(packed, Packed):
        data, spans = packed.data, packed.spans
        memories = [memory.read() for memory in packed.memories]
    else:
        data, memories = _pickled(future.result() if packed is None else packed.load())
        spans = tuple((place, 0, memory.nbytes) for place, memory in enumerate(memories))
    token = getattr(future, "_token", None)
    return pieces(protocol.RESULT, number, SentResult(data, spans, token, future.job_id, future.attempts), memories)


def _pickled(value: Any) -> tuple[bytes | None, list[memoryview]]:
    """Pickle a result, and return the large buffers beside; None for a large pickle, which is the first of these."""
    buffers: list[pickle.PickleBuffer] = []
    dump = Dump(value, buffer_callback=_keep_large(buffers), to_driver=True, again=buffers.clear)
    memories = [buffer.raw() for buffer in buffers]
    if len(dump.data) < _LARGE:
        return dump.data, memories
    return None, [memoryview(dump.data), *memories]


def _keep_large(buffers: list[Any]) -> Callable[[pickle.PickleBuffer], bool]:
    def callback(buffer: pickle.PickleBuffer) -> bool:
        try:
            large = buffer.raw().nbytes >= _LARGE
        except BufferError:  # not contiguous: pickle copies the bytes
            return True
        if large:
            buffers.append(buffer)
        return not large

    return callback


def _dumped(error: BaseException) -> bytes:
    """Pickle an exception with the text of its traceback."""
    cause = error.__cause__
    return dump_error(error, str(cause) if isinstance(cause, RemoteTraceback) else traceback_text(error))


def main(directory: str) -> None:
    """Talk to a driver over standard input and output, which no one else shall read or write from here on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reading, writing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what a user's module prints is no message
    os.close(nothing)
    directory = os.path.abspath(os.path.expanduser(directory or "~"))
    with BufferedReader(FileIO(reading, "rb"), 1 << 16) as stream:
        gateway = Gateway(directory, MessageReader(stream), MessageWriter(writing))
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: gateway.warn(str(message))
        orderly = gateway.run()
    if not orderly and not getattr(gateway._backend, "detached", False):
        os._exit(0)  # live calls end with their driver, and with them their workers
