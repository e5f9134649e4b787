"""The future of a call on another computer, and the call itself until its end."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import RemoteTraceback
from ...futures import Future, whole_of
from ...resources import Resources
from ...serialize.packed import load_with_inputs
from ..batch.call_pickles import CallPickle, packed_call
from ..cached.cached_future import Arguments, CachedCall, CachedFuture, KeyedResult
from .packed_calls import PackedCallParts
from .transfers import Transfer

__all__ = ["GatewayCall", "GatewayFuture", "InputLink", "SentError"]


class GatewayFuture(Future[Any]):
    """The result of a call on another computer."""

    __slots__ = ("_job_id", "attempts", "call", "transfer", "where")

    def __init__(self, name: str, on_cancel: Callable[[], object]) -> None:
        super().__init__(name, on_cancel)
        self.call: GatewayCall | None = None  # until the end is known to all
        self.attempts = 1
        self.where = ""  # for people: what the call waits for, while there is no connection
        self.transfer: Transfer | None = None  # for people: what of the call is on its way
        self._job_id: str | None = None

    @property
    def job_id(self) -> str | None:
        return self._job_id

    def news(self, running: bool, job_id: str | None, attempts: int) -> None:
        """Take in what the gateway has said."""
        self._job_id, self.attempts = job_id or self._job_id, attempts
        if not running:
            self.again()
        elif not self.running() and not self.done():
            self.set_running_or_notify_cancel()

    def let_go(self) -> None:
        """Let go of the call's data, of which nobody has any more need."""
        if self.done():
            self.call = None

    def sent_arguments(self) -> Arguments:
        """Return the arguments as they were submitted, with results in the places of futures."""
        call = self.call
        return ((), {}) if call is None else call.arguments()

    def doing(self) -> str:
        """Return what holds the call up on its way, in words; "" if nothing does."""
        if self.where:
            return f"waiting for {self.where}"
        return "" if self.transfer is None else self.transfer.text()

    def _state_word(self) -> str:
        return ("" if self.done() else self.doing()) or super()._state_word()


# The call behind an input, and the way to a part of its result; None for a future from elsewhere.
InputLink = tuple["GatewayCall | None", Sequence[tuple[Any, int | None]]]


class GatewayCall:
    """A call that has not ended. Its data stay, as another gateway may have to be told."""

    __slots__ = (
        *("files", "future", "kept", "links", "number", "packed", "resources", "sources", "ticket", "told_before"),
    )

    def __init__(
        self,
        number: int,
        future: GatewayFuture,
        resources: Resources,
        ticket: CachedCall | None,
        packed: PackedCallParts,
        sources: list[Any],
    ) -> None:
        self.number, self.future, self.resources, self.ticket = number, future, resources, ticket
        self.packed, self.sources = packed, sources
        self.links = list(map(_link_of, sources))  # now, as the future of a cached call that ends forgets its call
        self.kept: list[CallPickle] = []  # pickles of inputs
        self.told_before = False  # to an earlier gateway, so that there may be a job of it
        self.files = list(packed.files)  # among the arguments, and later among inputs

    def arguments(self) -> Arguments:
        """Return the arguments, once all futures among them are done."""
        loaded = load_with_inputs(packed_call(self.packed.data), list(map(KeyedResult, self.sources)))
        args, kwargs = loaded if self.packed.function is not None else loaded[1:]
        return args, kwargs


def _link_of(source: Any) -> InputLink:
    whole, path = whole_of(source)
    inner = whole.inner if isinstance(whole, CachedFuture) else whole
    return inner.call if isinstance(inner, GatewayFuture) else None, path


class SentError:
    """A packed exception from the other computer; opened, its cause is the traceback from there."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def load(self) -> BaseException:
        error, text = pickle.loads(self._data)
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))  # the class may be frozen
        return error  # type: ignore[no-any-return]
