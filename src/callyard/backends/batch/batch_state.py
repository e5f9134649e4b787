"""A batch on the way to the scheduler and back, and the actions to decide on, without I/O."""

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
    """A batch with awaited calls: written here, or by another process and attached to."""

    def __init__(self, directory: BatchDirectory, grace: float, *, ours: bool, after: Iterable[str] = ()) -> None:
        self.directory, self.ours = directory, ours
        self.after = frozenset(after)  # the batches for the scheduler to wait for
        self._grace = grace
        self.calls: dict[int, list[JobCall]] = {}  # awaited ones, by number; several callers may wait for one
        self.states: dict[int, CallState] = {}  # of the same numbers
        self.left: dict[int, JobCall] = {}  # the last caller for a call, of calls to let go of
        self.cancelled: set[int] = set()  # without a caller here, made by a job with others
        self.unsent: set[int] = set()  # to be submitted by this executor
        self.is_complete = False  # the scheduler has the whole batch, as far as known
        self.queued = False  # in the queue for a submission by this executor
        self.claim: Claim | None = None  # for the submission of another process's batch
        self.perhaps = False  # an attempt was not answered: the scheduler may have taken the batch
        self.send_at = -inf  # the earliest time of sending: later than for others after an error of this batch
        self._trouble: dict[Hashable, float] = {}  # the time of the first failure to read or write, by subject

    @property
    def token(self) -> str:
        return self.directory.token

    @property
    def is_followed(self) -> bool:
        """True if there are files and jobs to look at."""
        return not self.ours or bool(self.calls.keys() - self.unsent)

    @property
    def is_wanted(self) -> bool:
        """True if a caller here waits for a call still to submit; of another's batch all calls are submitted."""
        return bool(self.calls.keys() & self.unsent if self.ours else self.calls)

    def add(self, call: JobCall) -> None:
        """Wait for a call; several futures may do so."""
        calls = self.calls.setdefault(call.number, [])
        self.states.setdefault(call.number, CallState(self._grace))
        self.left.pop(call.number, None)
        if call not in calls:
            calls.append(call)

    def pop(self, number: int) -> list[JobCall]:
        """Return the calls that waited for this one, and end this wait, so that each is told once."""
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
        """Note a failure to read or write; return True if the failure has lasted too long for a further wait."""
        return now >= self._trouble.setdefault(over, now) + self._grace

    def recovered(self, over: Hashable) -> None:
        self._trouble.pop(over, None)

    def withdraw(self, number: int, together: Collection[int]) -> list[int]:
        """Note a call without a caller; return the calls ended with their common job, if the job is of no more use."""
        self.cancelled.add(number)
        return withdrawn_with(together, self.calls, self.cancelled)


# ------------------------------------------------------------------ actions of the executor's state machine


class Write(NamedTuple):
    """Attach the new calls to earlier submissions of the same, and write the rest to batches."""


class Submit(NamedTuple):
    """Send this batch to the scheduler, as far as accepted."""

    batch: BatchState


class Look(NamedTuple):
    """Look at the files of some batches."""

    batches: list[BatchState]


class Ask(NamedTuple):
    """Ask the scheduler about the jobs of some batches, all at once."""

    batches: list[BatchState]


class Abandon(NamedTuple):
    """Let go of calls, given by batch, number and last caller, and cancel the jobs without further use."""

    calls: list[tuple[BatchState, int, JobCall]]


class Drop(NamedTuple):
    """Forget calls of a batch that nobody submits any more, and the batch if no part of it was submitted."""

    batch: BatchState
    calls: list[JobCall]


class Settle(NamedTuple):
    """Remove the rest of a batch, unless other processes need the files."""

    batch: BatchState


class CallAction(NamedTuple):
    """An action of the state machine of one call."""

    number: int
    action: Action


class EndCall(NamedTuple):
    """The end of the wait of one call; a call to be submitted again is among the new ones already."""

    call: JobCall
    fate: Fate


ExecutorAction = Write | Submit | Look | Ask | Abandon | Drop | Settle
