"""The successor of a call that goes on in another job, because the scheduler does not start its job again.

The call has asked to be run again, or has lost its node and has a `restart_limit`; or one of its inputs goes on in
another job. The successor is a batch of its own, with the arguments of the next attempt, and has not been submitted. A
process that waits for the call submits it, or `callyard resume`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from ..cache.claims import Claim, Claims
from .batch import CallAgain, CallOutcome
from .find_batches import folders
from .planner import ArrayDependency
from .spool import BatchDirectory

__all__ = ["move_after", "move_to_successor"]


def move_to_successor(folder: BatchDirectory, number: int, *, lost: bool = False) -> bool:
    """Write the successor of a call, and that as its outcome, unless another process is at it.

    Return False, and write nothing, if nothing lets the call run again, or if the scheduler cancels jobs of other calls
    with this very job. `lost`: the job has ended with its node, so `restart_limit` counts.
    """
    kept = _next_attempt(folder, number, lost)
    if kept is None or _has_followers(folder):
        return False
    _move(folder, number, kept, restarts=0 if folder.asks_again(number) else 1)
    return True


def move_after(folder: BatchDirectory, number: int, token: str, input_number: int) -> None:
    """Write the successor of a call that has not begun, as a job that begins after the job of this input."""
    element = BatchDirectory(folder.home, token).batch.element_of(input_number)
    _move(folder, number, folder.again(number), [ArrayDependency("any", token, element)])


def _next_attempt(folder: BatchDirectory, number: int, lost: bool) -> CallAgain | None:
    """Return the next attempt of a call; None if it does not run again."""
    kept = folder.again(number)
    if kept is not None and folder.asks_again(number):
        return kept
    if not lost or folder.batch.restart_limit == 0:
        return None
    run = 0 if folder.begun(number) is None else 1  # its node may have been gone before
    return CallAgain(1 + run, 0, b"") if kept is None else kept.replace(attempt=kept.attempt + run)


def _move(
    folder: BatchDirectory,
    number: int,
    kept: CallAgain | None,
    after: Sequence[ArrayDependency] = (),
    restarts: int = 0,
) -> None:
    """Write the successor, unless another process does. The rest that the call has waited for has ended."""
    claim = Claims(folder.home).take(f"{folder.token}.{number}", "successor")
    if not isinstance(claim, Claim):
        return
    try:
        if folder.ended(number) is None:  # looked at once more, under the claim
            successor = _create(folder, number, kept, after, restarts)
            attempts = 1 if kept is None else kept.attempt
            folder.end(number, CallOutcome("moved", successor.token, attempts=attempts))
    finally:
        claim.release()


def _create(
    folder: BatchDirectory, number: int, kept: CallAgain | None, after: Sequence[ArrayDependency], restarts: int
) -> BatchDirectory:
    batch, call = folder.batch, folder.call(number)
    successor = BatchDirectory(folder.home, os.urandom(8).hex())
    script = folder.script().replace(folder.token, successor.token)
    element = batch.element_of(number)  # an array's again: the script names its exit code after the element
    place, separate = number // batch.calls_per_job, bool(batch.request.get("after_each"))
    resources = {key: value for key, value in batch.request.get("resources", {}).items() if key != "begin"}
    request = {
        **batch.request,
        "resources": resources,
        "after": () if separate else after,
        "after_each": (after,) if separate else (),
        "lanes": batch.request.get("lanes", ())[place : place + 1],
        "predecessors": [*batch.request.get("predecessors", ()), batch.token],
    }
    successor.create(
        batch.replace(
            token=successor.token, calls=(batch.calls[number].replace(at=0),),
            elements=None if element is None else (element,), calls_per_job=1,
            needs=tuple({*batch.needs, *(str(each.array) for each in after)}), request=request,
            restart_limit=batch.restart_limit - restarts, submitter="", created=time.time(),
        ),
        [bytes(call)],
        script,
        None if kept is None else kept.replace(restarts=0),
        folder.buffers(),
    )  # fmt: skip
    return successor


def _has_followers(folder: BatchDirectory) -> bool:
    """Return True if the scheduler cancels jobs of other calls with a job of this batch that has not ended well."""
    for other in folders(folder.home):
        try:
            tied = {token for kind, token, _ in other.batch.request.get("after", ()) if kind != "any"}
            if folder.token in tied and not other.is_over():
                return True
        except Exception:  # damaged, of another version, or being removed: nobody can wait there
            continue
    return False
