"""The successor of a call that goes on in another job, because the scheduler does not start its job again.

The call has asked to be run again, or has lost its node and has a `restart_limit`. The successor is a batch of its own,
with the arguments of the next attempt, and has not been submitted. A process that waits for the call submits it, or
`callyard resume`.
"""

from __future__ import annotations

import os
import time

from ..cache.claims import Claim, Claims
from .batch import CallAgain, CallOutcome
from .find_batches import folders
from .spool import BatchDirectory

__all__ = ["move_to_successor"]


def move_to_successor(folder: BatchDirectory, number: int, *, lost: bool = False) -> bool:
    """Write the successor of a call, and that as its outcome, unless another process is at it.

    Return False, and write nothing, if nothing lets the call run again, or if jobs of other calls wait for this very
    job, as they take the result: they end with it. `lost`: the job has ended with its node, so `restart_limit` counts.
    """
    kept = _next_attempt(folder, number, lost)
    if kept is None or _is_waited_for(folder):
        return False
    claim = Claims(folder.home).take(folder.token, "successor")
    if isinstance(claim, Claim):
        try:
            if folder.ended(number) is None:  # looked at once more, under the claim
                _move(folder, number, kept)
        finally:
            claim.release()
    return True


def _next_attempt(folder: BatchDirectory, number: int, lost: bool) -> CallAgain | None:
    """Return the next attempt of a call; None if it does not run again."""
    kept = folder.again(number)
    if kept is not None and folder.asks_again(number):
        return kept
    if not lost or folder.batch.restart_limit == 0:
        return None
    run = 0 if folder.begun(number) is None else 1  # its node may have been gone before
    return CallAgain(1 + run, 0, b"") if kept is None else kept.replace(attempt=kept.attempt + run)


def _move(folder: BatchDirectory, number: int, kept: CallAgain) -> None:
    batch, call = folder.batch, folder.call(number)
    successor = BatchDirectory(folder.home, os.urandom(8).hex())
    script = folder.script().replace(folder.token, successor.token)
    element = batch.element_of(number)  # an array's again: the script names its exit code after the element
    # What it waited for has ended. One job of a lane runs at a time, here as well.
    lanes = batch.request.get("lanes", ())[number // batch.calls_per_job :][:1]
    restarted = not folder.asks_again(number)
    successor.create(
        batch.replace(
            token=successor.token, calls=(batch.calls[number].replace(at=0),),
            elements=None if element is None else (element,), calls_per_job=1,
            restart_limit=batch.restart_limit - restarted,
            request={**batch.request, "after": (), "after_each": (), "lanes": lanes}, submitter="", created=time.time(),
        ),
        [bytes(call)],
        script,
        kept.replace(restarts=0),
        folder.buffers(),
    )  # fmt: skip
    folder.end(number, CallOutcome("moved", successor.token, attempts=kept.attempt))


def _is_waited_for(folder: BatchDirectory) -> bool:
    for other in folders(folder.home):
        try:
            if folder.token in other.batch.needs and not other.is_over():
                return True
        except Exception:  # damaged, of another version, or being removed: nobody can wait there
            continue
    return False
