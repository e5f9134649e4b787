"""The answers of a gateway, on the driver's side: news and ends of calls, and the files that results name.

A result that names files ends its call once all their contents are here; contents that are here already are not asked
for. A call that depends on the result does not wait for them: it has begun on the other computer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ...cache.messages import RunReport
from ...dependencies.wait import when_done
from ...errors import CacheError, CallyardError
from ...events.usage import Usage
from ...futures import Lazy
from ...hashing.files import Copies, copies_from
from ...serialize.packed import Packed
from ...serialize.shared_memory import PrivateBytes
from ..cached.cached_future import CachedCall
from . import protocol
from .contents import ContentSink, FileCopies
from .disk_memory import DiskSink
from .gateway_call import GatewayCall, SentError
from .message_streams import Announced, MemorySink, Sink
from .protocol import ContentName, Message, SentFailure, SentResult, WantedContent
from .told_calls import ToldCalls
from .transfers import Transfer

__all__ = ["ReceivedAnswers"]


class PackedWithFiles:
    """A packed result, with files among its copies on this computer."""

    __slots__ = ("_copies", "_packed")

    def __init__(self, packed: Packed, copies: Copies) -> None:
        self._packed, self._copies = packed, copies

    def load(self) -> Any:
        with copies_from(self._copies):
            return self._packed.load()


class _Incomplete:
    """A result that waits for files."""

    def __init__(self, result: SentResult, packed: Packed, absent: set[ContentName]) -> None:
        self.result, self.packed, self.absent = result, packed, absent


class ReceivedAnswers:
    """Takes in what a gateway says about calls, and ends their futures.

    Args:
        told: the calls that the gateway knows.
        destination: the other computer, for people.
        copies: opens the place for files of results, at the first of them.
    """

    def __init__(self, told: ToldCalls, destination: str, copies: Callable[[], FileCopies]) -> None:
        self._told, self._destination = told, destination
        self._open_copies = copies
        self._copies: FileCopies | None = None
        self._incomplete: dict[int, _Incomplete] = {}
        self._waiting: dict[ContentName, list[int]] = {}  # the calls of these, by contents that were asked for

    def reset(self) -> None:
        """Forget what another gateway will say once more."""
        self._incomplete.clear()
        self._waiting.clear()

    def take_in(self, message: Message) -> None:
        """Take in a message about calls."""
        kind, number, content, _, _ = message
        if kind == protocol.RESULT:
            self._result(number, content, message.buffers)
        elif kind == protocol.CONTENT:
            self._file(content.name, message.buffers, message.problem)
        elif kind == protocol.NEWS:
            self._news(content)
        elif kind == protocol.USAGE:
            self._usage(number, content)
        elif kind == protocol.ERROR:
            self._settle(number, partial(_fail, content))
        elif kind == protocol.CANCELLED:
            self._settle(number, _cancel)

    def sinks(self, message: Announced) -> Sequence[Sink]:
        """Return where the parts of a large message go: files, and what is very large, to the disk."""
        if message.kind == protocol.CONTENT:
            wanted, start = message.content
            came = self._shown(self._waiting.get(wanted, ()), sum(message.sizes))
            return [ContentSink(partial(self._opened().incoming, wanted.name), start, came)]
        came = self._shown([message.number], sum(message.sizes))
        return [DiskSink.of(size, came) or MemorySink(size, came) for size in message.sizes]

    def _shown(self, numbers: Iterable[int], total: int) -> Callable[[int], object]:
        """Let futures show what comes, and return what is to be told of each number of bytes."""
        transfer = Transfer(("receiving", f"from {self._destination}"), total)
        for number in numbers:
            call = self._told.get(number)
            if call is not None:
                call.future.transfer = transfer
        return transfer.came

    # -- calls -----------------------------------------------------------------------------------------

    def _news(self, content: Iterable[tuple[int, bool, str | None, int]]) -> None:
        for number, running, job_id, attempts in content:
            call = self._told.get(number)
            if call is not None:
                call.future.news(running, job_id, attempts)

    def _usage(self, number: int, content: dict[str, Any]) -> None:
        call = self._told.get(number)
        if call is not None:
            call.future.note_usage(Usage.of(content))

    def _settle(self, number: int, end: Callable[[GatewayCall], object]) -> None:
        call = self._told.take(number)
        if call is not None:
            end(call)
            if call.ticket is None:
                call.future.call = None

    def _result(self, number: int, result: SentResult, buffers: list[Any]) -> None:
        memories = tuple(PrivateBytes(each) if isinstance(each, bytearray) else each for each in buffers)
        packed = Packed(result.data, memories, tuple(result.spans))
        if not result.files:
            self._settle(number, lambda call: _finish(call, result, packed))
            return
        if self._told.get(number) is None:  # cancelled meanwhile
            self._settle(number, _cancel)
            return
        try:
            absent = {ContentName(True, each.content, each.own) for each in self._opened().missing(result.files)}
        except (OSError, CacheError) as error:
            self._lack(number, result.files[0].own, str(error))
            return
        self._incomplete[number] = _Incomplete(result, packed, absent)
        new = sorted(name for name in absent if name not in self._waiting)
        for name in absent:
            self._waiting.setdefault(name, []).append(number)
        if new:
            copies = self._opened()
            self._told.want([WantedContent(name, copies.received(name.name)) for name in new])
        self._finish_complete([number])

    def _opened(self) -> FileCopies:
        if self._copies is None:
            self._copies = self._open_copies()
        return self._copies

    # -- files -----------------------------------------------------------------------------------------

    def _file(self, wanted: ContentName, buffers: list[Any], problem: str) -> None:
        """Keep the content of a file that has come."""
        came = buffers[0] if buffers else None
        if isinstance(came, ContentSink):
            problem = problem or came.accepted(partial(self._opened().accept, wanted.own))
            if came.again:
                self._told.want([WantedContent(wanted)])
                return
        else:
            problem = problem or "it is not there any more"
        # Without those that lack another file.
        numbers = [number for number in self._waiting.pop(wanted, ()) if number in self._incomplete]
        for number in numbers:
            if problem:
                self._lack(number, wanted.own, problem)
            else:
                self._incomplete[number].absent.discard(wanted)
        self._finish_complete(numbers)

    def _lack(self, number: int, own: str, problem: str) -> None:
        """Fail a call with a file that cannot come; the result stays on the other computer."""
        self._incomplete.pop(number, None)

        def fail(call: GatewayCall) -> None:
            call.future.fail_with(
                CallyardError(
                    f"the file {own!r} in the result of {call.future.name!r} cannot be had from {self._destination}: "
                    f"{problem}"
                )
            )

        self._settle(number, fail)

    def _finish_complete(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            one = self._incomplete.get(number)
            if one is not None and not one.absent:
                del self._incomplete[number]
                packed = PackedWithFiles(one.packed, self._opened())
                self._settle(number, partial(_finish_with, one.result, packed))


def _finish_with(result: SentResult, packed: Lazy, call: GatewayCall) -> None:
    _finish(call, result, packed)


def _fail(failure: SentFailure, call: GatewayCall) -> None:
    """End a call with its failure, which is kept here, too, if the call has run."""
    ticket = call.ticket
    call.future.attempts = failure.attempts
    end = partial(call.future.fail, SentError(failure.error))
    if ticket is None or failure.run is None:
        end()
        return
    ticket.noted(RunReport(run=failure.run))
    _with_key(call, ticket, end)


def _finish(call: GatewayCall, result: SentResult, packed: Lazy) -> None:
    """End a call with its result, whose place in the cache here may have to be found first."""
    future, ticket = call.future, call.ticket
    future.news(True, result.job_id, result.attempts)
    if ticket is None:
        future.finish(packed)
        return
    ticket.noted(RunReport(result.token, run=result.run))
    _with_key(call, ticket, partial(future.finish, packed))


def _with_key(call: GatewayCall, ticket: CachedCall, end: Callable[[], object]) -> None:
    """End a call once its key is known."""
    if ticket.partial_key().recipe is None:
        end()
        return

    def go() -> None:
        end()

    # The key is made here, too, as the gateway's would say nothing about a code's text that is here alone.
    when_done(tuple(call.sources), call.future, partial(ticket.admit, call.arguments, go))


def _cancel(call: GatewayCall) -> None:
    call.future.again()
    call.future.cancel()
