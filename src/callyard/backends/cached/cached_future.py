"""Futures of cached calls, and what a backend is told of such a call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures._base import PENDING
from typing import Any, NamedTuple, Protocol

from ...cache.messages import RunDeclined, RunReport, RunRequest
from ...futures import Future, Lazy
from ...jobs.batch import KeyRecipe

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class SharedCallView(Protocol):
    """A call on its way, as the futures of those who submitted it see it."""

    inner: Future[object] | None
    where: str

    def leave(self, future: CachedFuture) -> bool: ...


class CachedFuture(Future[Any]):
    """The result of a cached call. Several futures may share one call; each can be cancelled by itself."""

    __slots__ = ("_attempts", "_cached", "_call", "_job_id", "_key", "_token", "identity", "stored")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._key: str | None = None
        self._cached: bool | None = None
        self._call: SharedCallView | None = None
        self._token: bytes | None = None
        self._job_id: str | None = None
        self._attempts = 1
        self.identity = ""  # what the call counts as where its result is not known yet
        self.stored: tuple[str, str] | None = None  # directory and key of its result, once that is known to be there

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
    def result_token(self) -> bytes | None:
        """What the result counts as where it is an argument. None once it was opened: it may have been changed."""
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
        self._job_id, self._attempts = self.job_id, self.attempts
        self._call = None
        self._token = token  # first: who waits for the end may ask for it at once
        if packed is None:
            self.fail_with(value) if failed else self._end("FINISHED", None, value, None)
        elif failed:
            self.fail(packed)
        else:
            self.finish(packed)

    def cancel(self) -> bool:
        call = self._call
        return super().cancel() if call is None else call.leave(self)

    def left(self) -> bool:
        """The call goes on or ends without this one."""
        self._job_id = self.job_id
        self._call = None
        return super().cancel()

    def running(self) -> bool:
        call = self._call
        inner = call.inner if call is not None else None
        return self._state is PENDING and inner is not None and inner.running()

    def _state_word(self) -> str:
        call = self._call
        return super()._state_word() if call is None or not call.where else f"waiting for {call.where}"


class KeyedResult:
    """A future that is done, of which only the meaning of its result is needed: of what is sent, or was, for it."""

    def __init__(self, source: Any) -> None:
        token = getattr(source, "result_token", None)
        self.packed: Lazy | None = source._packed if isinstance(source, Future) else None
        self.result_token: bytes | None = token if self.packed is not None else None
        if token is not None and token.startswith(b"="):  # it has no other meaning
            self.result_token = token
        self.opened: Callable[[], Any] = source.result

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
    """The known part of a key, which may have to wait for the results that the call takes."""

    identity: str  # what the call counts as until then
    modules: frozenset[str]  # the user's, in which is what was keyed and is sent by name
    recipe: KeyRecipe | None  # what another process needs to make the key; None if it is known


class CachedCall(Protocol):
    """A call with a cache, as the backend that runs it knows it."""

    held: bool  # whether the call has to be let in, although its futures are done

    def order(self) -> RunRequest | None:
        """What the runner is told. Asked each time that the call is started."""

    def admit(self, known: Callable[[], Arguments], go: Callable[[], None]) -> None:
        """The futures are done. `known()` gives the arguments, with `KeyedResult` for each; `go()` starts the call."""

    def partial_key(self) -> PartialKey:
        """Return what is known of the key by now; for backends whose calls outlive them."""

    def noted(self, note: RunReport, key: str | None = None) -> None:
        """Take the runner's report, before the call's future ends; and the key, if the runner has made that."""

    def declined(self, why: RunDeclined, again: Callable[[], None], load: Callable[[], Arguments]) -> None:
        """The runner did not run it. `again()` starts it once more; `load()` gives the arguments as they were."""
