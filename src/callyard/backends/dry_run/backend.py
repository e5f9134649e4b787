"""The backend of a dry run: it says what each call would do, answers from the cache what is there, and runs nothing.

Nothing is opened, asked or written; the cache is read. The futures of calls that would be computed end at once, with an
error: so no program waits for them without end, and calls that take their results are seen as such.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from ...dependencies.replace_futures import find_futures
from ...hashing.bind_arguments import bind
from ...hashing.call_key import description_of
from ...resources import Resources
from ...result_cache import Cache
from ...status.executor_status import ExecutorStatus
from ...utils import interpreter_exit
from ..base import Settings
from ..cached.cached_future import CachedCall
from .plan import Plan
from .planned_call import PlannedCall
from .planned_future import PlannedFuture, failure, numbers_of, was_not_computed
from .predict import Prediction, Predictor

__all__ = ["DryRunBackend"]

_MOST = 3  # inputs that a reason names


class DryRunBackend:
    """The planned calls of one executor.

    Args:
        description: the resources, for people.
        check: raises ResourceError for resources that the backend would refuse.
        settings: the executor's.
        cache: where results are looked up; None for an executor without a cache.
        tell: takes the plan at the end, unless the program has asked for it.
    """

    detached = False

    def __init__(
        self,
        description: str,
        check: Callable[[Resources], object],
        settings: Settings,
        cache: Cache | None,
        tell: Callable[[Plan], object],
    ) -> None:
        self.description = f"dry run of {description}" + ("" if cache is None else f", cache in {cache.path}")
        self._check, self._tell, self._cache = check, tell, cache
        self._predictor = None if cache is None else Predictor(cache, settings)
        self._run = os.urandom(8).hex()
        self._numbers = count()
        self._calls: dict[int, PlannedCall] = {}  # by number; each change is atomic, as in the next one
        self._first: dict[tuple[str, str], int] = {}  # the first call with a key, by directory and key
        self._asked: int | None = None
        self._shown: int | None = None  # the number of calls when the plan was last given out
        interpreter_exit.register(self)

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        resources: Resources,
        ticket: CachedCall | None = None,
    ) -> PlannedFuture:
        """Plan a call; the future has the result, if that is in the cache."""
        name = getattr(fn, "__name__", None) or type(fn).__name__
        inputs = find_futures((args, dict(kwargs)))
        origins = numbers_of(inputs, self._run)  # first: a future whose failure is looked at forgets its origin
        found = self._predict(fn, args, kwargs, resources)
        number = next(self._numbers)  # only now, as a call that is refused has none
        planned = PlannedCall(
            number, name, found.state, found.reason, origins, _arguments(fn, args, kwargs), found.key, found.nearest,
            found.differences, found.diffs, asked=resources.asked(),
        )  # fmt: skip
        future = PlannedFuture(name, number, self._run, self._note_asked)
        if found.found is not None:
            future.found(found.found, found.directory, found.key or "")
        elif (broken := failure(inputs)) is not None:
            future.ends_like(broken)
            planned = planned.but(state="failed", reason=f"its input {_name(broken)} has failed or was cancelled")
        else:
            planned = self._to_compute(planned, found, inputs)
            future.not_computed(planned)
        self._calls[number] = planned
        return future

    def _predict(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], resources: Resources
    ) -> Prediction:
        if self._predictor is not None:
            known = self._predictor.settings_of(resources)
            self._check_attempts(known.resources)
            return self._predictor.predict(fn, args, kwargs, known)
        self._check_attempts(resources)
        waits = any(map(was_not_computed, find_futures((args, dict(kwargs)))))
        return Prediction("after inputs") if waits else Prediction("to compute", "there is no cache")

    def _check_attempts(self, resources: Resources) -> None:
        for each in resources.attempts():
            self._check(each)

    def _to_compute(self, planned: PlannedCall, found: Prediction, inputs: Sequence[Any]) -> PlannedCall:
        """Return a call without a result, with its reason."""
        if planned.state == "after inputs":
            return planned.but(reason=f"after {self._named(list(filter(was_not_computed, inputs)))}")
        first = planned.number
        if planned.key is not None:
            first = self._first.setdefault((found.directory, planned.key), planned.number)
        if first == planned.number:
            return planned
        return planned.but(same_as=first, reason=f"the same call as {first}", differences=(), diffs={})

    def _named(self, inputs: Sequence[Any]) -> str:
        names = [f"{self._calls[number].name} ({number})" for number in numbers_of(inputs, self._run)]
        names = names or ["a future of another executor"]
        return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST:,} more" if len(names) > _MOST else "")

    def _note_asked(self, number: int) -> None:
        if self._asked is None:
            self._asked = number

    def plan(self) -> Plan:
        """Return the plan so far."""
        calls = [self._calls[number] for number in sorted(self._calls.copy())]
        self._shown = len(calls)
        return Plan(tuple(calls), None if self._cache is None else self._cache.path, self._asked)

    def status(self, ask: bool = True) -> ExecutorStatus:
        """Return the numbers of calls, by what they would do."""
        status = ExecutorStatus()
        for call in self._calls.copy().values():
            status.add(call.name, "planned" if call.state in ("to compute", "after inputs") else call.state)
        return status

    # -- the end ---------------------------------------------------------------------------------------

    def cancel_pending(self) -> None:
        """Do nothing: no call is pending."""

    def kill(self, signum: int) -> None:
        """Do nothing: no call runs."""

    def interrupt(self) -> None:
        """Do nothing: no call runs."""

    def close(self, wait: bool) -> None:
        """Tell the plan, unless the program has seen it."""
        if self._shown != len(self._calls):
            self._tell(self.plan())

    def begin_end(self) -> None:
        self.close(False)

    def wait_for_end(self) -> None:
        """Do nothing: no call runs."""


def _name(future: Any) -> str:
    number = f" ({future.number})" if isinstance(future, PlannedFuture) else ""
    return f"{getattr(future, 'name', 'future')}{number}"


def _arguments(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    bound = (pair for pair in bind(fn, args, kwargs)[0] if pair[0] != "positional")  # a number of arguments
    return ", ".join(f"{name}={_shown(value)}" for name, value in bound)


def _shown(value: Any) -> str:
    return f"the result of {_name(value)}" if isinstance(value, PlannedFuture) else description_of(value)
