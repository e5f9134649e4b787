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
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from ...cache.incoming_content import IncomingContent
from ...errors import CallyardError
from ...futures import Future, item, when_ended
from ...hashing.files import take_copies_from
from ...serialize.packed import PackedCall, load_with_inputs
from ...status.executor_status import ExecutorStatus
from ...transport.frames import GarbledFrame
from ...utils.interpreter_exit import Ending
from ...worker.exceptions import unreadable_call
from ..base import Backend, status_of
from ..cached.backend import CachedBackend
from ..cached.cached_future import CachedFuture
from ..unfinished_calls import unfinished_of
from . import protocol
from .contents import ContentSink
from .incomplete_calls import IncompleteCalls
from .late_cancels import LateCancels
from .message_streams import Announced, LargeMessage, MessageReader, MessageWriter, Sink, in_memory
from .protocol import (
    Answer,
    ContentName,
    Message,
    Opening,
    Question,
    SentCall,
    SentFailure,
    SentInput,
    SentPickle,
    WantedContent,
)
from .received_functions import ReceivedFunctions
from .remote_answers import Answers, dumped
from .remote_place import GatewayPlace
from .used_packages import ComparedPackages

__all__ = ["Gateway"]

_SOON, _LATE = 0.05, 1.0  # s between two looks for news


class Gateway:
    """One conversation with a driver."""

    def __init__(self, directory: str, reader: MessageReader, writer: MessageWriter) -> None:
        self._directory = directory
        self._reader, self._writer = reader, writer
        reader.sinks = self._sinks
        self._answers = Answers(writer)
        self._backend: Backend | None = None
        self._place: GatewayPlace  # from the opening on
        self._wanted: set[ContentName] = set()  # contents that were asked for
        self._functions = ReceivedFunctions()
        self._packages = ComparedPackages(socket.gethostname(), sys.executable)
        self._waiting = IncompleteCalls()
        self._futures: dict[int, Future[Any]] = {}  # until the driver forgets them
        self._forgotten: set[int] = set()  # what it will name no more, though calls that wait here may have named it
        self._forgotten_functions: set[int] = set()  # likewise
        self._told: dict[int, tuple[bool, str | None, int]] = {}  # of calls that have not ended, what was said last
        self._late_cancels = LateCancels()
        self._changed = threading.Event()  # a call has come or ended
        self._over = self._left = self._ended = False

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

    def warn(self, text: str, level: int = 0) -> None:
        """Tell the driver's user of something, by a warning; or with a `level` by a line of the log."""
        self._writer.put(protocol.WARNING, level, text)

    def _still_there(self) -> bool:
        return self._ended or not self._reader.is_silent()

    # -- messages --------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        kind, number, content, buffers, problem = message
        backend = self._backend
        if kind == protocol.OPEN:
            self._open(content)
        elif backend is None:  # it was refused
            pass
        elif kind == protocol.FUNCTION:
            self._functions.add(number, content)
        elif kind == protocol.CALL:
            self._take_in(number, content)
        elif kind == protocol.CONTENT:
            self._keep(content.name, buffers, problem)
        elif kind == protocol.WANT:
            self._send_files(content)
        elif kind == protocol.CANCEL:
            self._cancel(number, content)
        elif kind == protocol.FORGET:
            self._forgotten.add(number)
            self._answers.forget(number)
            self._forget()
        elif kind == protocol.FORGET_FUNCTIONS:
            self._forgotten_functions.update(content)
            self._forget()
        else:
            self._end(kind, number, content, backend)

    def _end(self, kind: int, number: int, content: Any, backend: Backend) -> None:
        if kind == protocol.ASK:
            self._writer.put(protocol.ANSWER, number, self._answered(content, backend))
        elif kind == protocol.END_CALL:
            self._end_call(number, backend)
        elif kind == protocol.KILL:
            self._cancel_waiting()
            backend.kill(number)
        elif kind == protocol.LEAVE:
            self._left = True
            self._cancel_late(at_once=True)
            self._end_if_left()
        elif kind == protocol.CLOSE:
            self._cancel_late(at_once=True)
            # In another thread, as a call that was cancelled too late may still run, and messages are signs of life.
            threading.Thread(target=self._close, args=(backend,), name="gateway-end", daemon=True).start()

    def _end_call(self, number: int, backend: Backend) -> None:
        future = self._futures.get(number)
        meant = (future, getattr(future, "inner", None))  # with a cache here, its backend's own
        for call in unfinished_of(backend):
            if call.future not in meant or call.future.cancel():
                continue
            if call.end is None:
                words = f"{call.future.name!r} {call.future.explain()}, and cannot be ended there alone"
                self._writer.put(protocol.WARNING, 0, words)
            else:
                call.end()

    def _end_if_left(self) -> None:
        """End, once a driver that leaves has no call on its way here."""
        if self._left and not self._waiting and not self._over:
            self._over = True
            self._told.clear()  # the driver has no futures any more
            threading.Thread(target=self._leave, args=(self._backend,), name="gateway-end", daemon=True).start()

    def _leave(self, backend: Any) -> None:
        """Let the scheduler have all that it takes now, and say the last word; the log tells of the rest."""
        try:
            inner: Any = getattr(backend, "inner", backend)
            parts: set[Ending] = {part for part in (inner, backend) if hasattr(part, "begin_end")}
            for part in parts:
                part.begin_end()
            for part in parts:
                part.wait_for_end()
        finally:
            self._writer.put(protocol.ENDED)

    def _close(self, backend: Backend) -> None:
        try:
            backend.close(True)
        finally:  # the driver waits for this word
            self._place.close()
            self._over = True
            self._writer.put(protocol.ENDED)

    def _open(self, opening: Opening) -> None:
        try:
            self._place = GatewayPlace(self._directory)
            take_copies_from(self._place.copies)
            factory, settings = pickle.loads(opening.backend)
            self._backend = self._place.open(factory, settings, opening)
        except Exception as error:
            self._writer.put(protocol.REFUSED, 0, dumped(error))
            return
        self._writer.put(protocol.OPENED, 0, self._backend.description)

    # -- calls -----------------------------------------------------------------------------------------

    def _take_in(self, number: int, call: SentCall) -> None:
        """Submit a call, or let it wait for contents, and ask for those that are not on their way yet."""
        self._packages.add(call.packages)
        absent = self._absent(call)
        asked = [name for name in absent if name not in self._wanted]
        if asked:
            self._want(WantedContent(name, self._received(name)) for name in asked)
        if not self._waiting.add(number, call, absent):
            self._submitted(number, call)

    def _want(self, contents: Iterable[WantedContent]) -> None:
        asked = list(contents)
        self._wanted.update(each.name for each in asked)
        self._writer.put(protocol.WANT, 0, asked)

    def _received(self, name: ContentName) -> int:
        place = self._place
        return (place.copies if name.is_file else place.contents).received(name.name)

    def _absent(self, call: SentCall) -> list[ContentName]:
        place = self._place
        files = [ContentName(True, each.content, each.own) for each in place.copies.missing(call.files)]
        return [*(ContentName(False, name) for name in place.contents.missing(self._contents_of(call))), *files]

    def _sinks(self, message: Announced) -> Sequence[Sink]:
        if message.kind != protocol.CONTENT:
            return in_memory(message)
        name, start = message.content
        return [ContentSink(partial(self._incoming, name), start)]

    def _incoming(self, name: ContentName, start: int) -> IncomingContent:
        place = self._place
        return (place.copies if name.is_file else place.contents).incoming(name.name, start)

    def _keep(self, wanted: ContentName, buffers: list[Any], problem: str) -> None:
        """Store a content that has come, and submit the calls that have waited for it alone."""
        self._wanted.discard(wanted)
        if not buffers:  # the call that had it is gone, and perhaps another one has it by now
            if self._waiting.that_need(wanted):
                self._want([WantedContent(wanted)])
            return
        (came,) = buffers
        if not isinstance(came, ContentSink):  # a small one
            came = ContentSink(partial(self._incoming, wanted), data=came)
        place = self._place
        accept = partial(place.copies.accept, wanted.own) if wanted.is_file else place.contents.accept
        problem = problem or came.accepted(accept)
        if came.again:
            self._want([WantedContent(wanted)])
            return
        if problem:
            self._lack(wanted, problem)
        for number, call in self._waiting.arrived(wanted):
            self._submitted(number, call)
        self._forget()
        self._end_if_left()

    def _lack(self, wanted: ContentName, problem: str) -> None:
        """Fail the calls with a content that cannot come."""
        what = f"the file {wanted.own!r}" if wanted.is_file else "a large argument"
        error = CallyardError(f"{what} cannot be used in {self._place.path} on {socket.gethostname()}: {problem}")
        for number in self._waiting.that_need(wanted):
            self._writer.put(protocol.ERROR, number, SentFailure(dumped(error)))
            for freed in self._waiting.drop(number):
                self._submitted(*freed)

    def _submitted(self, number: int, call: SentCall) -> None:
        try:
            for text in self._packages.compare(call.name, call.uses):
                self.warn(text)
            future = self._submit(call)
        except Exception as error:
            self._writer.put(protocol.ERROR, number, SentFailure(dumped(error)))
            return
        self._futures[number] = future
        self._told[number] = (False, None, 1)
        self._changed.set()
        when_ended(future, partial(self._call_ended, number))

    def _forget(self) -> None:
        """Forget what the driver names no more, once no call waits that has named it before."""
        if not self._waiting:
            for number in self._forgotten:
                self._futures.pop(number, None)
            self._functions.forget(self._forgotten_functions)
            self._forgotten.clear()
            self._forgotten_functions.clear()

    def _submit(self, call: SentCall) -> Future[Any]:
        backend = self._backend
        assert backend is not None, "the backend is opened before the first call"
        inputs = list(map(self._input, call.inputs))
        pickles = list(map(self._loaded, call.pickles))
        try:
            # The function first: the arguments may lend values to its globals.
            function: list[Any] = [self._functions.get(call.function, self._loaded)] if call.function else []
            parts: list[Any] = [*function, *load_with_inputs(PackedCall(pickles), inputs)]
            fn, args, kwargs = parts
        except Exception as error:
            raise unreadable_call(error) from error
        if isinstance(backend, CachedBackend):
            return backend.submit(fn, args, kwargs, call.resources, name=call.named)
        return backend.submit(fn, args, kwargs, call.resources)

    def _contents_of(self, call: SentCall) -> list[str]:
        pickles = [*call.pickles, *(given.value for given in call.inputs if given.value is not None)]
        if call.function:
            pickles.append(self._functions.pickle_of(call.function))
        return [name for pickled in pickles for name in pickled.contents]

    def _loaded(self, pickled: SentPickle) -> tuple[bytes, list[Any]]:
        return pickled.data, list(map(self._place.contents.load, pickled.contents))

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

    def _cancel(self, number: int, told_before: bool) -> None:
        for freed in self._waiting.drop(number):
            self._submitted(*freed)
        future = self._futures.get(number)
        if future is not None and told_before and self._backend is not None and self._backend.detached:
            self._late_cancels.add(number, future)
            self._changed.set()
        else:
            self._cancel_now(number)

    def _cancel_now(self, number: int) -> None:
        self._answers.forget(number)
        future = self._futures.pop(number, None)
        if future is not None:
            self._told.pop(number, None)
            if isinstance(future, CachedFuture) and self._backend is not None and self._backend.detached:
                future.cancel_begun()
            else:
                future.cancel()
        self._writer.put(protocol.CANCELLED, number)  # heard

    def _cancel_late(self, at_once: bool = False) -> None:
        for number in self._late_cancels.ready(at_once):
            self._cancel_now(number)

    def _cancel_waiting(self) -> None:
        for number in self._waiting.clear():
            self._writer.put(protocol.CANCELLED, number)

    # -- answers ---------------------------------------------------------------------------------------

    def _answered(self, question: Question, backend: Backend) -> Answer:
        """Return the status of some calls, with the calls before them as words."""
        told: list[tuple[object, ...] | None] = []
        for number in question.calls:
            future = self._futures.get(number)
            status = None if future is None else future.call_status
            told.append(status and tuple(status._replace(words=status.reason or status.words, awaits=())))
        whole = status_of(backend) if question.whole else ExecutorStatus()
        return Answer(told, dict(whole.waiting), whole.capacity, whole.used)

    def _send_files(self, names: Iterable[WantedContent]) -> None:
        """Send the contents of files that results name, or that there are none."""
        for name in names:
            source = self._answers.source(name)
            if source is None:
                self._writer.put(protocol.CONTENT, 0, name)
            else:
                self._writer.put_large(partial(LargeMessage, protocol.CONTENT, 0, name, [source]))

    def _call_ended(self, number: int, future: Future[Any]) -> None:
        self._changed.set()
        if self._told.pop(number, None) is not None:
            self._answers.tell(number, future)

    def _watch(self) -> None:
        """Send news of calls; end this process if the driver is silent for too long, as its link may be cut."""
        pause = _SOON
        while True:
            if self._changed.wait(pause):  # calls have come or ended, so others begin
                self._changed.clear()
                pause = _SOON
                time.sleep(pause)
            if self._ended:
                return
            if not self._still_there():
                os._exit(1)  # the backend's own processes notice, as at any death of the process that submitted
            self._cancel_late()
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
