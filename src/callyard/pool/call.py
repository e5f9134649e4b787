"""One call on its way through a pool: function, arguments, plan, and the future to end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..cache.messages import RunDeclined, RunReport, RunRequest
from ..events.usage import Usage
from ..futures import Future, Lazy
from ..serialize.function_registry import FunctionDefinition
from ..serialize.packed import Packed
from ..transport.frames import ORDER
from ..worker.current_call import AGAIN, ATTEMPT, DEADLINE, GRACE, LOG, WARN_BEFORE, WARN_SIGNAL
from .call_shape import NodeNeed, WorkerShape

_FORGET = 0.95  # after a long run a function counts as short again after some tens of short calls
_UNKNOWN = 1.0  # s; the time of a function before its first call, so an unknown function counts as long


class CallDurations:
    """The duration of the calls of one function: the largest of the recent ones.

    `finished` counts the calls that have ended with a result; `name` is the function's.
    """

    __slots__ = ("finished", "name", "seconds")

    def __init__(self, name: str = "") -> None:
        self.seconds = _UNKNOWN
        self.name, self.finished = name, 0

    def note(self, seconds: float) -> None:
        if self.seconds is _UNKNOWN:
            # The identity tells the start value from a real second.
            self.seconds = seconds
        else:
            self.seconds = max(seconds, self.seconds * _FORGET)


class CallPlan:
    """The meaning of a call's resources on a node. Calls with the same resources share one plan.

    `after` has the plans for the next run of a call, by the name of the error that has ended the run before.
    """

    __slots__ = (
        *("after", "alone", "grace", "limited", "measured", "memory", "need", "options"),
        *("priority", "restarts", "run_time", "shape", "warning"),
    )

    def __init__(
        self,
        shape: WorkerShape,
        priority: int = 0,
        restarts: int = 0,
        run_time: float | None = None,
        options: dict[str, Any] | None = None,
        need: NodeNeed | None = None,
    ) -> None:
        self.need = need or NodeNeed(shape)
        self.shape, self.priority, self.restarts, self.run_time = shape, priority, restarts, run_time
        self.memory = shape.memory or None
        self.options = options or {}
        self.measured = False  # what its calls use
        self.after: dict[str, CallPlan] = {}
        self.grace: float | None = self.options.get(GRACE)
        before = self.options.get(WARN_BEFORE)
        self.warning = None if before is None else (before, self.options[WARN_SIGNAL])
        self.limited = run_time is not None or bool(shape.memory) or self.warning is not None
        self.alone = self.limited or shape.ranks > 1


class Call:
    """A call that waits or runs.

    Attributes:
        definition: the function, or None if the function is packed with the arguments.
        inputs: the results of the futures among the arguments, in the order of their numbers.
        again: the arguments of the next run, if the function has raised `Again`.
        remember: with a cache, the instructions for the runner of the call.
        note: with a cache, the runner's answer at the end of the call.
        noted: a function `noted(call, note)` that takes in the answer, and returns True if the call did not run.
    """

    __slots__ = (
        *("again", "arguments", "asks_again", "attempt", "began", "deadline", "definition", "future", "inputs", "log"),
        *("note", "noted", "order", "pace", "plan", "remember", "restarted", "used_by_ranks"),
        "unwanted",  # set for a running call that is to end, by a person's word
    )

    unwanted: bool

    def __init__(
        self,
        future: Future[Any],
        definition: FunctionDefinition | None,
        arguments: Packed,
        plan: CallPlan,
        pace: CallDurations,
        order: int,
    ) -> None:
        self.future, self.definition, self.arguments = future, definition, arguments
        self.plan, self.pace, self.order = plan, pace, order
        self.inputs: tuple[Packed, ...] = ()
        self.restarted = 0
        self.attempt = 1
        self.log: str | None = None  # the path of a file for its output
        self.again: Any = None  # packed; for several ranks `RankResults`
        self.began = 0.0  # the last run: s since 1970
        self.deadline: float | None = None  # of this run: s of the monotonic clock
        self.remember: RunRequest | None = None
        self.note: RunReport | RunDeclined | None = None
        self.noted: Callable[[Call, RunReport | RunDeclined], bool] | None = None
        self.asks_again = False  # the result is the arguments of another run; an error asks for more memory
        self.used_by_ranks: tuple[Usage, ...] = ()  # in this run, so far

    @property
    def shape(self) -> WorkerShape:
        return self.plan.shape

    @property
    def need(self) -> NodeNeed:
        return self.plan.need

    @property
    def priority(self) -> int:
        return self.plan.priority

    @property
    def alone(self) -> bool:
        return self.plan.alone

    def expected(self) -> float:
        return self.pace.seconds

    def options(self) -> dict[str, Any]:
        """Return the options that the worker gets beside the arguments."""
        options = self.plan.options
        if self.deadline is None and self.attempt == 1 and self.remember is None and self.log is None:
            return options
        # A copy, because all calls of a plan share these options.
        options = {**options, ATTEMPT: self.attempt, DEADLINE: self.deadline}
        if self.again is not None:
            options[AGAIN] = True
        if self.remember is not None:
            options[ORDER] = self.remember
        if self.log is not None:
            options[LOG] = self.log
        return options

    def run_again(self, arguments: Lazy) -> None:
        """Prepare another run, with the arguments of the `Again` that the function has raised."""
        self.again, self.asks_again = arguments, False
        self.next_attempt()

    def run_with_more(self, error: str) -> bool:
        """Prepare another run with the next limit after this error; return False if there is none."""
        plan = self.plan.after.get(error)
        if plan is None:
            return False
        self.plan, self.asks_again = plan, False
        self.next_attempt()
        return True

    def next_attempt(self) -> None:
        self.attempt += 1
        self.used_by_ranks = ()
        self.future.attempts = self.attempt

    @property
    def measured(self) -> bool:
        """True if its worker measures what the call uses."""
        return self.remember is not None or self.plan.measured

    def used(self, usage: Usage) -> None:
        """Take in what the call has used, or one of its ranks."""
        if self.shape.ranks > 1:
            self.used_by_ranks = (*self.used_by_ranks, usage)
            usage = Usage.together(self.used_by_ranks)
        self.future.note_usage(usage)

    def begin(self) -> bool:
        self.began = time.time()
        return self.future.set_running_or_notify_cancel()

    def abandoned(self) -> bool:
        return self.future.cancelled()


def refuse(inbox: deque[Any]) -> None:
    """Fail the calls that were submitted while the executor was being shut down.

    Several threads may do this at once: each call leaves the inbox only after its future has ended, and to end a future
    twice does no harm.
    """
    # A copy, because other threads add and remove events meanwhile.
    for event in tuple(inbox):
        if type(event) is Call:
            event.future.fail_with(RuntimeError("cannot schedule new futures after shutdown"))
        with suppress(ValueError):  # removed by another thread
            inbox.remove(event)
