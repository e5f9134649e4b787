"""The futures of a dry run: with the result, if the cache has it, else with an error that says that it is a dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

from ...cache.lookup import CachedResult
from ...dependencies.wait import failure_of
from ...errors import NotComputed
from ...futures import Future
from ...futures.derived import sources_of
from ..cached.cached_future import CachedFuture
from .planned_call import PlannedCall

__all__ = ["PlannedFuture", "failure", "numbers_of", "was_not_computed"]

_NO_FAILURE = -1  # the number of a failure that nobody needs to ask for, see `unasked`


class PlannedFuture(CachedFuture):
    """The future of a planned call. It has ended from the first, so that no program waits for it without end.

    Attributes:
        number: of the call in the plan.
        run: the random name of the executor's run.
    """

    __slots__ = ("_asked_for", "number", "run")

    def __init__(self, name: str, number: int, run: str, asked_for: Callable[[int], object]) -> None:
        super().__init__(name)
        self.number, self.run = number, run
        self._asked_for = asked_for

    def not_computed(self, planned: PlannedCall) -> None:
        """End without a result."""
        self._failure = _NO_FAILURE
        if planned.key is not None:
            self.known_as(planned.key, False)
        how = "is on its way" if planned.state == "running" else "would be computed"
        self.set_exception(NotComputed(
            f"the result of {self.name!r} (call {self.number}) is not there: this is a dry run, and the call {how} "
            f"({planned.reason})", self.number, self.run,
        ))  # fmt: skip

    def found(self, result: CachedResult, directory: str, key: str) -> None:
        """End with what is in the cache."""
        self.known_as(key, True)
        self.stored = directory, key
        self.answered(result, result.token, failed=result.failed)

    def ends_like(self, source: Any) -> None:
        """Fail or be cancelled like an input."""
        if source.cancelled():
            self.left()
        else:
            self.fails_because_of(source)
            self.fail_with(_error(source) or CancelledError())

    def asked(self) -> None:
        if isinstance(self._exception, NotComputed):
            self._asked_for(self.number)
        super().asked()

    def _state_word(self) -> str:
        return "to compute" if isinstance(self._exception, NotComputed) else super()._state_word()


def was_not_computed(future: Any) -> bool:
    """Return True for a future without a result because of a dry run, and for one that has not ended."""
    return not future.done() or (not future.cancelled() and isinstance(_error(future), NotComputed))


def failure(futures: Sequence[Any]) -> Any | None:
    """Return the first future that has failed or was cancelled; None if there is none."""
    ended = (future for future in futures if not was_not_computed(future))
    return next((future for future in ended if future.cancelled() or _error(future) is not None), None)


def numbers_of(futures: Sequence[Any], run: str) -> tuple[int, ...]:
    """Return the numbers of the calls of this run from whose results these futures are made."""
    found = (origin for future in futures for origin in _origins(future))
    return tuple(dict.fromkeys(number for number, of_run in found if of_run == run))


def _origins(future: Any) -> Iterator[tuple[int, str]]:
    """Yield the number and the run of each planned call behind a future."""
    if isinstance(future, PlannedFuture):
        yield future.number, future.run
    elif isinstance(future, Future) and (sources := sources_of(future)):
        for source in sources:
            yield from _origins(source)
    elif future.done() and not future.cancelled() and isinstance(error := _error(future), NotComputed):
        yield error.call, error.run


def _error(future: Any) -> BaseException | None:
    """Return the exception of a future that has ended, and was not cancelled."""
    if isinstance(future, Future):
        return None if failure_of(future) is None else future.peek_exception()
    error: BaseException | None = future.exception()
    return error
