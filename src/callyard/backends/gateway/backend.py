"""The backend in front of a gateway: packs calls, sends them to another computer, and ends their futures.

    any thread                     the thread "callyard-gateway"
    -----------------------------  -----------------------------------------------------------------------
    submit: pack, note inputs ---> connect; tell the gateway all calls that have not ended; take in its messages
    cancel                         connection lost: jobs go on there; connect again, after longer and longer pauses

A call names the calls that it waits for by their numbers. So a whole graph goes over at once, and results that only
feed other calls need not come here first. A new gateway is told all calls again, and finds by its cache those that an
earlier one has submitted.
"""

from __future__ import annotations

import logging
import os
import queue
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

from ...cache.lookup import tell
from ...dependencies.wait import when_done
from ...errors import CallyardError, WorkerLost
from ...futures import Future, ends_futures, when_ended
from ...resources import Resources
from ...status.call_status import CallStatus
from ...status.executor_status import ExecutorStatus
from ...transport.frames import GarbledFrame
from ...utils import interpreter_exit
from ...utils.backoff import Backoff
from ...utils.quantities import counted
from ...utils.threads import LazyThread, next_item
from ..batch.call_pickles import LargeContents
from ..cached.cached_future import CachedCall
from ..live_base import FORKED, unpicklable
from ..unfinished_calls import UnfinishedCall
from . import protocol
from .connection import Address, Connection, NoConnection
from .contents import FileCopies
from .disk_memory import on_disk
from .gateway_call import GatewayCall, GatewayFuture, SentError
from .gateway_status import GatewayQuestions
from .message_streams import Sinks
from .packed_calls import CallPacker
from .private_copies import private_copies
from .protocol import Message, Opening
from .received_answers import ReceivedAnswers
from .ssh_words import last_words
from .told_calls import ToldCalls

_log = logging.getLogger("callyard")
_FIRST, _LONGEST, _SLOWER = 1.0, 60.0, 2.0  # s between two attempts to connect again, and their growth
_LEAVING = 60.0  # s at the end of the interpreter, for jobs to be submitted
_LASTING = 60.0  # s after which a connection has not failed at once


class GatewayBackend:
    """The calls of one executor on another computer."""

    elsewhere = True

    def __init__(
        self,
        address: Address,
        detached: bool,
        opening: Opening,
        description: str,
        check: Callable[[Resources], object],
        connect: Callable[[Address, Callable[[], bool], Sinks], Connection] = Connection,
        copies: Callable[[], FileCopies] = private_copies,
    ) -> None:
        self.detached = detached
        self._address, self._opening = address, opening
        self._description, self._check, self._connect = description, check, connect
        contents = LargeContents(on_disk)
        self._packer = CallPacker(contents)
        self._numbers = count(1)
        self._told = ToldCalls(opening.run, detached, contents, address.destination)
        self._answers = ReceivedAnswers(self._told, address.destination, copies)
        self._unfinished: set[Future[Any]] = set()  # each change is atomic
        self._thread = LazyThread("callyard-gateway")
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.on_cancel = self._nudge  # one bound method for all futures
        self._connected_once = self._closing = self._killed = self._leaving = self._left = self._over = False
        self._leave_until: float | None = None
        self._failure: CallyardError | None = None  # no call can be made any more
        self._questions = GatewayQuestions(self._told, address.destination, self.on_cancel)
        self._forked = False
        # Last, after all attributes: a fork, or the end of the interpreter, may come at any moment.
        _backends.add(self)
        interpreter_exit.register(self)

    # -- any thread ------------------------------------------------------------------------------------

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        resources: Resources,
        ticket: CachedCall | None = None,
    ) -> Future[Any]:
        if self._forked:
            raise RuntimeError(FORKED)
        for each in resources.attempts():
            self._check(each)
        name = getattr(fn, "__name__", None) or type(fn).__name__
        future = GatewayFuture(name, self.on_cancel)
        sources: list[Any] = []
        try:
            packed = self._packer.pack(fn, args, kwargs, sources)
        except Exception as error:
            future.fail_with(unpicklable(fn, args, kwargs, error))
            return future
        call = future.call = GatewayCall(next(self._numbers), future, resources, ticket, packed, sources)
        try:
            # First: an executor being closed looks here for calls to wait for.
            self._unfinished.add(future)
            when_ended(future, self._ended)
            if self._failure is not None:
                future.fail_with(self._failure)
                return future
            self._thread.start(self._run)
            if sources:
                when_done(tuple(sources), future, _nothing)  # a failure of one is at once the call's failure
            self._enter(call)
        except BaseException:  # no user is going to have this future, so nothing must come of this call
            future.cancel()
            self._ended(future)
            raise
        return future

    def _enter(self, call: GatewayCall) -> None:
        """Tell the gateway of a call, at once or after the ends of futures that it does not know."""
        foreign = self._told.enter(call)
        if foreign:
            when_done(foreign, call.future, partial(self._enter, call))

    def _ended(self, future: Future[Any]) -> None:
        """Forget a call that has ended here; the gateway is told of one that was cancelled."""
        call = getattr(future, "call", None)
        if call is not None and not self._leaving:
            self._told.drop(call)
        if future in self._unfinished:
            self._unfinished.discard(future)
            self._questions.ended_calls.note_end(future)
        self._end_if_over()

    def status_of(self, future: GatewayFuture) -> CallStatus | None:
        """Return the status of a call that has not ended."""
        return self._questions.status_of(future)

    def status(self, ask: bool = True) -> ExecutorStatus:
        return self._questions.status(list(self._unfinished), ask)

    def unfinished(self) -> list[UnfinishedCall]:
        """Return the calls that have not ended."""
        found = []
        for future in list(self._unfinished):
            call = getattr(future, "call", None)
            if call is not None:
                found.append(UnfinishedCall(call.number, future, "", partial(self._end_call, call)))
        return found

    def _end_call(self, call: GatewayCall) -> bool:
        """End a call although it runs; return False if it has ended."""
        future = call.future
        if not self.detached:
            return self._told.say(protocol.END_CALL, call.number) and not future.done()
        while not future.done():  # the gateway may tell meanwhile that it runs
            future.again()
            future.cancel()  # the gateway hears of it, and ends the job
        return future.cancelled()

    def _nudge(self) -> None:
        self._wake.put(None)

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        ends_futures(self.on_cancel)
        pauses = Backoff(_FIRST, _LONGEST, _SLOWER)
        try:
            while not self._is_over():
                begun = monotonic()
                self._converse()
                if monotonic() - begun > _LASTING:
                    pauses.reset()
                self._pause(pauses.next_pause())
        except CallyardError as error:
            self._fail_all(error)
        except BaseException as error:
            _log.exception("callyard: the connection to %s cannot be looked after", self._address.destination)
            self._fail_all(
                CallyardError(f"calls on {self._address.destination} are not looked after any more: {error!r}")
            )
        if self._leaving and not self._left and (count := self._told.count()):
            why = str(self._failure or f"no gateway has answered for {_LEAVING:g} s")
            tell(
                f"{counted(count, 'call')} may not have been submitted on {self._address.destination}: {why}. Run the "
                "script again: those that were submitted are attached to"
            )
        if cancelled := self._told.count_cancelled():
            tell(
                f"{counted(cancelled, 'cancelled call')} may go on on {self._address.destination}, as there was no "
                "connection to say so; `callyard cancel` ends them there"
            )

    def _is_over(self) -> bool:
        if self._leave_until is not None and monotonic() > max(self._leave_until, self._told.moved() + _LEAVING):
            return True
        return self._over or (self._closing and not self._unfinished and not self._leaving)

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while not self._is_over() and (left := until - monotonic()) > 0:
            try:
                next_item(self._wake, min(left, 1.0) if self._leave_until else left)
            except queue.Empty:
                return

    def _converse(self) -> None:
        """Connect, and take in messages until the connection ends.

        Raises:
            CallyardError: no further attempt is of use.
        """
        try:
            connection = self._connect(self._address, self._is_over, self._answers.sinks)
        except NoConnection as error:
            if self._is_over():
                return
            if not (error.passes and self._connected_once):
                raise self._final(error) from None
            self._tell_down(str(error))
            return
        try:
            self._told.connect(connection.writer, self._opening, self._enter, self._last_word)
            while not self._over and (message := connection.receive()) is not None:
                self._on_message(message)
        except GarbledFrame as error:
            _log.warning("callyard: %s on %s: %s", "the gateway", self._address.destination, error)
        finally:
            self._told.disconnect()
            self._answers.reset()
            connection.close(_LEAVING if self._closing or self._leaving else 0.0)
        if not self._is_over():
            self._lost(connection)

    def _last_word(self) -> int | None:
        """Return what a new gateway is told after all calls, if this executor has ended meanwhile."""
        if self._leaving:
            return protocol.LEAVE
        return protocol.CLOSE if self._closing and not self._unfinished else None

    def _lost(self, connection: Connection) -> None:
        """Live calls are lost with their gateway; jobs go on.

        Raises:
            CallyardError: the first gateway has ended before it had opened the backend, as the next one would.
        """
        words = last_words(connection.words(), own_only=self._connected_once and not self.detached)
        if not self._connected_once:
            raise CallyardError(f"the gateway on {self._address.destination} ended before it took calls{words}")
        why = f"the connection to {self._address.destination} was lost{words}"
        if self.detached:
            self._tell_down(why)
            return
        for future in list(self._unfinished):
            future.fail_with(WorkerLost(f"{future.name!r} lost its worker: {why}; with detached=True calls outlive it"))

    def _tell_down(self, why: str) -> None:
        """Let futures say that there is no connection, and warn once."""
        if self._killed:  # nobody is left to tell of the ends
            self.kill(0)
            return
        first = False
        for future in list(self._unfinished):
            if isinstance(future, GatewayFuture):
                first |= not future.where
                future.where = f"the connection to {self._address.destination}"
        if first:
            tell(f"{why}; its calls go on there, and their results come once there is a connection again")

    def _final(self, error: NoConnection) -> CallyardError:
        if not self._connected_once:
            return error
        return CallyardError(
            f"{error}; calls that were submitted go on there: make them again later to get the results"
        )

    def _fail_all(self, error: CallyardError) -> None:
        self._failure = error
        for future in list(self._unfinished):
            future.fail_with(error)
        self._over = True

    # -- messages --------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        kind, number, content, _, _ = message
        if kind == protocol.WANT:
            self._told.send_contents(content)
        elif kind == protocol.OPENED:
            self._opened(content)
        elif kind == protocol.REFUSED:
            raise SentError(content).load()
        elif kind == protocol.WARNING:
            self._warned(number, content)
        elif kind == protocol.ANSWER:
            self._questions.answered(number, content)
        elif kind == protocol.ENDED:
            self._left = self._over = True
        else:
            self._answers.take_in(message)

    def _warned(self, level: int, text: str) -> None:
        if level:
            _log.log(level, "callyard: on %s: %s", self._address.destination, text.removeprefix("callyard: "))
        else:
            tell(text)

    def _opened(self, description: str) -> None:
        self._connected_once = True
        self._description = f"{description}, through {self._address.destination}"
        for future in list(self._unfinished):
            if isinstance(future, GatewayFuture):
                future.where = ""
        _log.info("callyard: connected to %s: %s", self._address.destination, description)

    # -- the end ---------------------------------------------------------------------------------------

    def _end_if_over(self) -> None:
        if self._closing and not self._unfinished and not self._leaving:
            self._told.say(protocol.CLOSE)
            self._nudge()

    def cancel_pending(self) -> None:
        for future in list(self._unfinished):
            future.cancel()

    def kill(self, signum: int) -> None:
        self._closing = self._killed = True
        told = self._told.kill(signum)
        for future in list(self._unfinished):
            if future not in told:
                future.again()
                future.cancel()
        self._end_if_over()

    def interrupt(self) -> None:
        """End for Ctrl-C: jobs stay, unless no process could ever have their results."""
        if self.detached and self._opening.remembers:
            self.begin_end()
        else:
            self.kill(15)

    def close(self, wait: bool) -> None:
        self._closing = True
        self._end_if_over()
        if wait:
            self.wait_for_end()

    def begin_end(self) -> None:
        self._closing = True
        if not self.detached or self._leaving:
            self._end_if_over()
            return
        self._leaving, self._leave_until = True, monotonic() + _LEAVING
        self._told.keeps_ended = True
        self._told.say(protocol.LEAVE)
        for future in list(self._unfinished):
            future.on_cancel = None
            future.again()
            future.cancel()
        self._nudge()

    def wait_for_end(self) -> None:
        if not self._forked:
            self._thread.join()

    def after_fork(self) -> None:
        """Refuse calls in a forked child without the thread: the calls are the parent's."""
        self._forked = True

    @property
    def description(self) -> str:
        return self._description


def _nothing() -> None:
    """Do nothing: a call whose inputs have ended is told to the gateway before."""


_backends: weakref.WeakSet[GatewayBackend] = weakref.WeakSet()


def _in_forked_child() -> None:
    for backend in list(_backends):
        backend.after_fork()


os.register_at_fork(after_in_child=_in_forked_child)
