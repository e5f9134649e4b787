"""A batch on its way to the scheduler and back, and the actions that are decided on. It does no I/O."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from math import inf
from typing import NamedTuple

from ...cache.claims import Claim
from ...jobs.spool import BatchDirectory
from .call import JobCall
from .call_state_machine import Action, CallState, Fate, withdrawn_with

__all__ = [
    "Abandon",
    "Ask",
    "BatchState",
    "CallAction",
    "Drop",
    "EndCall",
    "ExecutorAction",
    "Look",
    "Settle",
    "Submit",
    "Write",
]


class BatchState:
    """A batch with calls that are waited for: written here, or by others and attached to."""

    def __init__(self, directory: BatchDirectory, grace: float, *, ours: bool, after: Iterable[str] = ()) -> None:
        self.directory, self.ours = directory, ours
        self.after = frozenset(after)  # the batches for which the scheduler is to wait
        self._grace = grace
        self.calls: dict[int, list[JobCall]] = {}  # those that are waited for, by number; several may wait for one
        self.states: dict[int, CallState] = {}  # of the same numbers
        self.left: dict[int, JobCall] = {}  # the last that waited for a call, of those to be let go of
        self.cancelled: set[int] = set()  # those that nobody here waits for any more, made by a job with others
        self.unsent: set[int] = set()  # those that this executor is to submit
        self.is_complete = False  # the scheduler has got all of it, as far as is known
        self.queued = False  # it is this executor that submits it
        self.claim: Claim | None = None  # to submit what another process has written
        self.perhaps = False  # an attempt was not answered: the scheduler may have got it
        self.send_at = -inf  # when it may be sent: later than others after an error of its own
        self._trouble: dict[Hashable, float] = {}  # since when something cannot be read or written

    @property
    def token(self) -> str:
        return self.directory.token

    @property
    def is_followed(self) -> bool:
        """Whether there are files and jobs to look at."""
        return not self.ours or bool(self.calls.keys() - self.unsent)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody here waits for what is to be submitted of it; of another's batch all is submitted."""
        return bool(self.calls.keys() & self.unsent if self.ours else self.calls)

    def add(self, call: JobCall) -> None:
        """Wait for a call, which several futures may do."""
        calls = self.calls.setdefault(call.number, [])
        self.states.setdefault(call.number, CallState(self._grace))
        self.left.pop(call.number, None)
        if call not in calls:
            calls.append(call)

    def pop(self, number: int) -> list[JobCall]:
        """Return the calls that waited for this one; nobody does any more, so that each is told once."""
        if number in self.states:
            self.states.pop(number).told()
        self.unsent.discard(number)
        return self.calls.pop(number, [])

    def leave(self, call: JobCall) -> bool:
        """Let go of one that waits; return whether nobody waits for that call any more."""
        calls = self.calls.get(call.number, [])
        if call not in calls:
            return False
        calls.remove(call)
        if calls:
            return False
        del self.calls[call.number]
        self.states.pop(call.number).told()
        self.left[call.number] = call  # it may be among the unsent ones still, unless the others are let go of, too
        return True

    def all_calls(self) -> list[JobCall]:
        return [call for calls in self.calls.values() for call in calls]

    def stumbled(self, over: Hashable, now: float) -> bool:
        """Note that something cannot be read or written; return whether that has lasted too long to wait for it."""
        return now >= self._trouble.setdefault(over, now) + self._grace

    def recovered(self, over: Hashable) -> None:
        self._trouble.pop(over, None)

    def withdraw(self, number: int, together: Collection[int]) -> list[int]:
        """Return the calls whose job can be cancelled, now that nobody waits for this one of those that it makes."""
        self.cancelled.add(number)
        return withdrawn_with(together, self.calls, self.cancelled)


# ------------------------------------------------------------------ actions of the executor's state machine


class Write(NamedTuple):
    """Attach the new calls to earlier submissions of the same, and write the rest to batches."""


class Submit(NamedTuple):
    """Send this batch to the scheduler, as far as it takes it."""

    batch: BatchState


class Look(NamedTuple):
    """Look at the files of these batches."""

    batches: list[BatchState]


class Ask(NamedTuple):
    """Ask the scheduler about the jobs of these batches, all at once."""

    batches: list[BatchState]


class Abandon(NamedTuple):
    """Let go of calls, given by batch and number with the last that waited, and cancel the jobs that nobody needs."""

    calls: list[tuple[BatchState, int, JobCall]]


class Drop(NamedTuple):
    """Forget these calls of a batch, which are not submitted any more, and the batch if nothing of it was."""

    batch: BatchState
    calls: list[JobCall]


class Settle(NamedTuple):
    """Remove what is left of a batch, if nobody else needs it."""

    batch: BatchState


class CallAction(NamedTuple):
    """An action of the state machine of one call."""

    number: int
    action: Action


class EndCall(NamedTuple):
    """The end of the wait of one call; one that is submitted again is among the new ones already."""

    call: JobCall
    fate: Fate


ExecutorAction = Write | Submit | Look | Ask | Abandon | Drop | Settle
