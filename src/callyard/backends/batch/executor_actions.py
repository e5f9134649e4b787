"""The actions that the state machine of an executor of jobs decides on; others carry them out."""

from __future__ import annotations

from typing import NamedTuple

from .batch_state import BatchState
from .call import JobCall
from .call_state_machine import Action, Fate

__all__ = [
    "Abandon",
    "Ask",
    "CallAction",
    "Drop",
    "EndCall",
    "ExecutorAction",
    "Look",
    "Settle",
    "Submit",
    "Write",
]


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
