"""The calls that a gateway was told of: their messages, and what must be told once more to another gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ...errors import UnpicklableCall
from ...futures import Future
from ...hashing.files import noting_files
from ...jobs.batch import KeyRecipe
from ...serialize.importable import for_another_computer
from ...utils.locks import new_lock, under
from ..batch.call_pickles import CallPickle, LargeContents, pickle_value
from ..cached.cached_future import CallName, KeyedResult
from . import protocol
from .contents import SentContents
from .gateway_call import GatewayCall, InputLink
from .message_streams import LARGE, BytesSource, LargeMessage, MessageWriter, Source, pieces
from .packed_calls import PackedFunction
from .protocol import Opening, SentCall, SentInput, WantedContent
from .transfers import Transfer
from .used_packages import UsedPackages

__all__ = ["ToldCalls"]


class ToldCalls:
    """The calls of one executor that its gateway is, or will be, told of. Any thread may do anything here.

    Attributes:
        keeps_ended: True once this process ends: calls are told then, too, whose futures have been cancelled.
    """

    def __init__(self, run: str, detached: bool, contents: LargeContents, destination: str) -> None:
        self._run, self._detached, self._contents, self._destination = run, detached, contents, destination
        self._transfer: Transfer | None = None
        self._lock = new_lock()  # reentrant: a finalizer may submit while this thread holds it
        self._calls: dict[int, GatewayCall] = {}
        self._cancelled: dict[int, GatewayCall] = {}  # until a gateway says that it has heard of that
        self._writer: MessageWriter | None = None  # of this connection, as is the next
        self._sent = SentContents()
        self._was_connected = False
        self.keeps_ended = False

    def get(self, number: int) -> GatewayCall | None:
        return self._calls.get(number)

    def count(self) -> int:
        """Return the number of calls whose end is not known."""
        return len(self._calls)

    def count_cancelled(self) -> int:
        """Return the number of cancelled calls that may go on, as no gateway has heard of that."""
        return len(self._cancelled)

    # -- a connection ----------------------------------------------------------------------------------

    def connect(
        self,
        writer: MessageWriter,
        opening: Opening,
        enter: Callable[[GatewayCall], object],
        last_word: Callable[[], int | None],
    ) -> None:
        """Tell a new gateway everything: what to open, all calls by `enter`, and perhaps a last word."""
        under(self._lock, self._connect, writer, opening, enter, last_word)

    def _connect(
        self,
        writer: MessageWriter,
        opening: Opening,
        enter: Callable[[GatewayCall], object],
        last_word: Callable[[], int | None],
    ) -> None:
        writer.put(protocol.OPEN, 0, opening)
        calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call.told_before = self._was_connected
        self._writer, self._sent, self._was_connected = writer, SentContents(), True
        for call in calls:
            enter(call)
        self._cancel_again(writer)
        last = last_word()
        if last is not None:
            writer.put(last)

    def _cancel_again(self, writer: MessageWriter) -> None:
        """Cancel calls that were cancelled without a connection; they are named first, so that their jobs are found."""
        for number in sorted(self._cancelled):  # inputs first
            call = self._cancelled[number]
            inputs = list(map(self._input, call.links))
            if all(one is not None or source.done() for one, source in zip(inputs, call.sources, strict=True)):
                writer.put_later(partial(self._message, call, inputs, self._sent))
        for number in self._cancelled:
            writer.put(protocol.CANCEL, number, True)

    def disconnect(self) -> None:
        self._writer = None

    @property
    def connected(self) -> bool:
        """True while there is a gateway to talk to."""
        return self._writer is not None

    def say(self, kind: int, number: int = 0, content: Any = None) -> bool:
        """Send a message; return False without a connection."""
        writer = self._writer
        if writer is not None:
            writer.put(kind, number, content)
        return writer is not None

    def kill(self, signum: int) -> set[Future[Any]]:
        """Let the gateway end its calls; return their futures, of whose ends it will tell."""
        return under(self._lock, self._kill, signum)

    def _kill(self, signum: int) -> set[Future[Any]]:
        return {call.future for call in self._calls.values()} if self.say(protocol.KILL, signum) else set()

    def want(self, names: Sequence[WantedContent]) -> None:
        """Ask for the contents of files that results name."""
        writer = self._writer
        if writer is not None:
            writer.put(protocol.WANT, 0, names)

    def send_contents(self, names: Iterable[WantedContent]) -> None:
        """Send contents, or that no call has them any more."""
        writer = self._writer
        if writer is None:
            return
        for name in names:
            source = self._sent.of(name)
            if source is None:
                writer.put(protocol.CONTENT, 0, name)
            elif source.size < LARGE and isinstance(source, BytesSource):  # it need not wait for large ones
                writer.put_later(partial(pieces, protocol.CONTENT, 0, name, [*source.pieces(LARGE)]))
            else:
                writer.put_large(partial(self._content, name, source))

    def _content(self, wanted: WantedContent, source: Source) -> LargeMessage:
        """Return the message with a content, and let the futures of calls that have it show the progress."""
        transfer = self._transfer = Transfer(("sending", f"to {self._destination}"), source.size)
        for number in self._sent.calls_with(wanted.name):
            call = self._calls.get(number)
            if call is not None:
                call.future.transfer = transfer
        return LargeMessage(protocol.CONTENT, 0, wanted, [source], transfer.came)

    def moved(self) -> float:
        """Return when something of a large content went over last (s)."""
        return 0.0 if self._transfer is None else self._transfer.moved

    # -- a call ----------------------------------------------------------------------------------------

    def enter(self, call: GatewayCall) -> tuple[Any, ...]:
        """Send a call; return the futures that it has to wait for instead, as the gateway does not know them."""
        return under(self._lock, self._enter, call)

    def _enter(self, call: GatewayCall) -> tuple[Any, ...]:
        inputs = list(map(self._input, call.links))
        foreign = tuple(source for source, one in zip(call.sources, inputs, strict=True) if one is None)
        foreign = tuple(source for source in foreign if not source.done())
        if foreign or (call.future.done() and not self.keeps_ended):
            return foreign
        self._calls[call.number] = call
        if self._writer is not None:
            self._writer.put_later(partial(self._message, call, inputs, self._sent))
        return ()

    def _input(self, link: InputLink) -> SentInput | None:
        """Return the number of a call that the gateway knows; None for any other future."""
        call, path = link
        known = call is not None and call in (self._calls.get(call.number), self._cancelled.get(call.number))
        return SentInput(call.number, path) if known and call is not None else None

    def take(self, number: int) -> GatewayCall | None:
        """Return a call that has ended there, of which nothing is named any more; None if it has ended here before."""
        return under(self._lock, self._take, number)

    def _take(self, number: int) -> GatewayCall | None:
        self.say(protocol.FORGET, number)
        self._cancelled.pop(number, None)
        self._sent.ended(number)
        return self._calls.pop(number, None)

    def drop(self, call: GatewayCall) -> None:
        """Let the gateway cancel a call that has ended here before the news of its end."""
        under(self._lock, self._drop, call)

    def _drop(self, call: GatewayCall) -> None:
        if self._calls.pop(call.number, None) is None:
            return
        self._sent.ended(call.number)
        if self._detached and self._was_connected and call.future.cancelled():
            self._cancelled[call.number] = call
        self.say(protocol.CANCEL, call.number, call.told_before)

    # -- in the sending thread -------------------------------------------------------------------------

    def _message(self, call: GatewayCall, inputs: list[SentInput | None], sent: SentContents) -> Iterator[Any]:
        """Yield the message about a call, after that about a function that the gateway does not have yet."""
        try:
            told = [
                one or SentInput(0, (), sent.add(self._pickled_result(call, source)))
                for source, one in zip(call.sources, inputs, strict=True)
            ]
            pickles = [sent.add(each) for each in call.packed.data]
        except Exception as error:
            name = call.future.name
            call.future.fail_with(UnpicklableCall(f"a result that {name!r} waited for cannot be sent to it: {error}"))
            return
        packages, uses = sent.add_packages(call.packed.packages)
        number = 0
        if call.packed.function is not None:
            yield from _definition(call.packed.function, sent)
            number = call.packed.function.definition.id
        files = sent.add_files(call.files)
        named = self._name(call)
        said = SentCall(call.future.name, call.resources, named, number, pickles, told, packages, uses, files)
        sent.note(call.number, said)
        yield from pieces(protocol.CALL, call.number, said)
        if sent.functions:
            yield from pieces(protocol.FORGET_FUNCTIONS, 0, list(sent.functions.take_dropped()))

    def _pickled_result(self, call: GatewayCall, source: Any) -> CallPickle:
        value = KeyedResult(source).result()
        with for_another_computer(UsedPackages()), noting_files() as files:
            pickled = pickle_value(value, self._contents)
        call.files.extend(files)
        call.kept.append(pickled)  # until the end, as the gateway may ask for its contents
        return pickled

    def _name(self, call: GatewayCall) -> CallName | None:
        if call.ticket is None:
            # A key that no other call has: a later gateway finds the call by it.
            return CallName(f"{self._run}-{call.number}", "", None) if self._detached else None
        partial_key = call.ticket.partial_key()
        recipe = partial_key.recipe
        if recipe is not None and recipe.part is not None:  # the modules were sent, so nothing is there to compare
            recipe = KeyRecipe(replace(recipe.part, references=()), recipe.around)
        return CallName(partial_key.key, partial_key.identity, recipe)


def _definition(function: PackedFunction, sent: SentContents) -> Iterator[Any]:
    """Yield the message about a function, unless the gateway has this version."""
    if sent.functions.add(function.definition):
        yield from pieces(protocol.FUNCTION, function.definition.id, sent.add(function.pickle))
