"""Futures of cached calls, and the protocol between a cached call and its backend."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures._base import PENDING
from typing import Any, NamedTuple, Protocol

from ...cache.directory import CacheDirectory
from ...cache.entry import facts_of_run
from ...cache.messages import RunDeclined, RunReport, RunRequest
from ...events.usage import Usage
from ...futures import Future, Lazy
from ...hashing.call_key import Reach
from ...jobs.batch import KeyRecipe
from ...status.call_status import CallStatus

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class SharedCallView(Protocol):
    """A call on its way, from the view of its submitters' futures."""

    inner: Future[object] | None
    where: str

    def leave(self, future: CachedFuture, begun: bool = False) -> bool: ...


class CachedFuture(Future[Any]):
    """The result of a cached call. Several futures may share one call; each can be cancelled by itself."""

    __slots__ = ("_attempts", "_cached", "_call", "_job_id", "_key", "_token", "home", "identity", "stored")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._key: str | None = None
        self._cached: bool | None = None
        self._call: SharedCallView | None = None
        self._token: bytes | None = None
        self._job_id: str | None = None
        self._attempts = 1
        self.home: CacheDirectory | None = None
        self.identity = ""  # the name of the call while its result is unknown
        self.stored: tuple[str, str] | None = None  # directory and key of the result, once known to be stored

    def run_facts(self) -> dict[str, Any] | None:
        """Return what the cache knows of the run, see `RunReport.run`; None for a call that has not run."""
        return None if self.home is None or self._key is None else facts_of_run(self.home, self._key)

    def ends_here(self) -> bool:
        inner = self.inner
        return inner is not None and inner.ends_here()

    @property
    def inner(self) -> Future[Any] | None:
        """The backend's own future, while the call is on its way."""
        call = self._call
        return None if call is None else call.inner

    @property
    def job_id(self) -> str | None:
        inner = self.inner
        return self._job_id if inner is None else inner.job_id

    @property
    def attempts(self) -> int:  # type: ignore[override]  # elsewhere it is set
        inner = self.inner
        return self._attempts if inner is None else inner.attempts

    @property
    def usage(self) -> Usage | None:
        inner = self.inner
        return super().usage if inner is None else inner.usage

    @property
    def result_token(self) -> bytes | None:
        """The token of the result as an argument of other calls; None once opened, since the user may change it."""
        token = self._token
        return token if self._packed is not None or (token is not None and token.startswith(b"=")) else None

    @property
    def key(self) -> str | None:
        return self._key

    @property
    def cached(self) -> bool | None:
        return self._cached

    def joins(self, call: SharedCallView) -> None:
        self._call = call

    def known_as(self, key: str, cached: bool) -> None:
        self._key, self._cached = key, cached

    def answered(self, packed: Lazy | None, token: bytes | None, value: Any = None, failed: bool = False) -> None:
        """End as the call did."""
        # Kept for later: from here on the call is not referred to.
        self._job_id, self._attempts = self.job_id, self.attempts
        usage = self.usage
        if usage is not None:
            self.note_usage(usage)
        self._call = None
        self._token = token  # first: a thread that waits for the end may ask for the token at once
        if packed is None:
            self.fail_with(value) if failed else self._end("FINISHED", None, value, None)
        elif failed:
            self.fail(packed)
        else:
            self.finish(packed)

    def cancel(self) -> bool:
        call = self._call
        return super().cancel() if call is None else call.leave(self)

    def cancel_begun(self) -> bool:
        """Cancel the call although it may have begun: its submitter, on another computer, counts it as cancelled.

        Only for a backend that ends the calls of cancelled futures, as jobs.
        """
        call = self._call
        return super().cancel() if call is None else call.leave(self, begun=True)

    def left(self) -> bool:
        """End as cancelled; the call goes on or ends without this future."""
        # As in `answered`: from here on the call is not referred to.
        self._job_id = self.job_id
        self._call = None
        return super().cancel()

    def running(self) -> bool:
        call = self._call
        inner = call.inner if call is not None else None
        return self._state is PENDING and inner is not None and inner.running()

    def _present_status(self) -> CallStatus | None:
        call = self._call
        if call is None:
            return None
        if call.where:
            return CallStatus("waiting", f"for the same call in another process: {call.where}")
        inner = call.inner
        if inner is None:
            return CallStatus("waiting", "for a look into the cache")
        if inner.done():
            return CallStatus("waiting", "for its result to be stored")
        return inner.call_status

    def _state_word(self) -> str:
        call = self._call
        if call is not None and call.where:
            return f"waiting for {call.where}"
        doing = None if call is None else getattr(call.inner, "doing", None)  # of a backend elsewhere
        return ("" if doing is None else doing()) or super()._state_word()


class KeyedResult:
    """A future that is done, for which only a token is needed: the token of the sent bytes."""

    def __init__(self, source: Any) -> None:
        token = getattr(source, "result_token", None)
        self.packed: Lazy | None = source._packed if isinstance(source, Future) else None
        self.result_token: bytes | None = token if self.packed is not None else None
        if token is not None and token.startswith(b"="):  # a token with no other meaning
            self.result_token = token
        self.opened: Callable[[], Any] = source.result
        self.origins: Callable[[], tuple[tuple[str, str], ...]] = getattr(source, "origins", tuple)

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def result(self) -> Any:
        return self.opened() if self.packed is None else self.packed.load()

    def exception(self) -> BaseException | None:
        return None

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        fn(self)


class PartialKey(NamedTuple):
    """The known part of a key, which may depend on the results among the call's arguments."""

    identity: str  # the name of the call until then
    imported: frozenset[str]  # the user's modules with definitions that are sent by name
    reach: Reach
    recipe: KeyRecipe | None  # the data from which another process makes the key; None for a known key
    key: str = ""  # "" if unknown


class CallName(NamedTuple):
    """The names of a call that another process has made: the submitter, on another computer."""

    key: str  # "" while it depends on results to come
    identity: str  # the name of the call until then
    recipe: KeyRecipe | None  # the data from which the key is made then


class CachedCall(Protocol):
    """A call with a cache, from the view of a backend."""

    held: bool  # the call must be let in by `admit`, although its futures are done

    def order(self) -> RunRequest | None:
        """Return the instructions for the runner; the backend asks at each start of the call."""

    def admit(self, known: Callable[[], Arguments], go: Callable[[], None]) -> None:
        """Let in a call whose futures are done.

        `known()` returns the arguments, with `KeyedResult`s; `go()` starts the call.
        """

    def partial_key(self) -> PartialKey:
        """Return the known part of the key, for backends with calls that outlive them."""

    def noted(self, note: RunReport, key: str | None = None) -> None:
        """Take the runner's report, before the call's future ends; and the key, if the runner has made it."""

    def declined(self, why: RunDeclined, again: Callable[[], None], load: Callable[[], Arguments]) -> None:
        """Take the runner's refusal. `again()` starts the call once more; `load()` returns the unchanged arguments."""
