"""The successors of calls that cannot go on in their own job: batches that any process may submit.

Two kinds of calls move to a successor. A call that has asked to be run again, or was lost and has a `restart_limit`, in
a job that the scheduler does not start again, goes on with the arguments of its next attempt. A call that takes the
result of a moved call goes after it: its own job waits for one that has ended, so the scheduler cancels it or starts it
too early.

A successor has not been submitted. A process that waits for the call submits it, or `callyard resume`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

from ..cache.claims import Claim, Claims
from .batch import Batch, CallAgain, CallFile, CallOutcome
from .call_files import follow_moves
from .find_batches import folders_by_age
from .planner import ArrayDependency
from .spool import BatchDirectory

__all__ = ["move_after", "move_after_inputs", "move_to_successor"]


def move_to_successor(folder: BatchDirectory, number: int, *, lost: bool = False) -> bool:
    """Write the successor of a call, and that as its outcome, unless another process is at it; dependent calls follow.

    Return False, and write nothing, if nothing lets the call run again. `lost`: the job has ended with its node, so
    `restart_limit` counts.
    """
    kept = _next_attempt(folder, number, lost)
    if kept is None:
        return False
    restarts = kept.losses + (0 if folder.asks_again(number) else 1)
    if _move_alone(folder, number, kept.replace(restarts=0, losses=0), restarts=restarts):
        _move_dependents(folder)
    return True


def move_after(folder: BatchDirectory, number: int, token: str, input_number: int) -> None:
    """Write the successor of a call that has not begun, as a job that begins after the job of this input."""
    element = BatchDirectory(folder.home, token).batch.element_of(input_number)
    if _move_alone(folder, number, folder.again(number), [ArrayDependency("any", token, element)]):
        _move_dependents(folder)


def _next_attempt(folder: BatchDirectory, number: int, lost: bool) -> CallAgain | None:
    """Return the next attempt of a call; None if it does not run again."""
    kept = folder.again(number)
    if kept is not None and folder.asks_again(number):
        return kept
    losses = 0 if kept is None else kept.losses
    if not lost or losses >= folder.batch.restart_limit:
        return None
    run = 0 if folder.begun(number) is None else 1  # its node may have been gone before
    return CallAgain(1 + run, 0, b"") if kept is None else kept.replace(attempt=kept.attempt + run)


def _move_alone(
    folder: BatchDirectory,
    number: int,
    kept: CallAgain | None,
    after: Sequence[ArrayDependency] = (),
    restarts: int = 0,
) -> bool:
    """Move one call; return False if another process is at it."""
    claim = Claims(folder.home).take(f"{folder.token}-{number}", "successor")
    if not isinstance(claim, Claim):
        return False
    try:
        if folder.ended(number) is None:  # looked at once more, under the claim
            _move(folder, [number], kept, after, restarts)
    finally:
        claim.release()
    return True


def move_after_inputs(folder: BatchDirectory, numbers: Iterable[int] | None = None) -> bool:
    """Move the calls of a batch, or these of them, that wait where their inputs do not come; return if there are any.

    Their inputs go on in other batches. A call that has begun has its inputs.
    """
    if not folder.batch.needs or not _moved_after_inputs(folder, numbers):
        return False
    _move_dependents(folder)
    return True


def _moved_after_inputs(folder: BatchDirectory, numbers: Iterable[int] | None) -> bool:
    wanted = range(len(folder.batch.calls)) if numbers is None else list(numbers)
    found = False
    # Again after the release: another process that has just moved an input, and found a claim taken, relies on that.
    while left := _left_behind(folder, wanted):
        found = True
        taken = {number: Claims(folder.home).take(f"{folder.token}-{number}", "successor") for number in left}
        claims = {number: claim for number, claim in taken.items() if isinstance(claim, Claim)}
        if not claims:
            break
        try:
            left = _left_behind(folder, claims)  # looked at once more, under the claims
            if left:
                waits = [ArrayDependency("any", token) for token in sorted(set().union(*left.values()))]
                _move(folder, sorted(left), None, waits)
        finally:
            for claim in claims.values():
                claim.release()
    return found


def _move_dependents(folder: BatchDirectory) -> None:
    """Move the calls that take results of a batch whose calls have moved, and those that take theirs, and so on."""
    moved, known = [folder.token], dict[str, BatchDirectory]()
    while moved:
        token = moved.pop(0)
        # Anew each time: a successor written here may need a batch whose calls move only now.
        known.update((found.token, found) for found in folders_by_age(folder.home, known))
        for other in list(known.values()):
            # Damaged, in removal, or a full disk: it is tried again where the call is waited for.
            with suppress(Exception):
                if token in other.batch.needs and _moved_after_inputs(other, None):
                    moved.append(other.token)


def _left_behind(folder: BatchDirectory, numbers: Iterable[int]) -> dict[int, set[str]]:
    """Return the calls that wait where an input does not come any more, with the batches in which their inputs go on.

    A batch needs the batches with its inputs, so a successor that was written after the move is not left behind.
    """
    news, found = folder.news(), dict[int, set[str]]()
    for number in numbers:
        if number in news:
            continue
        inputs = CallFile.load(folder.call(number)).inputs
        places = [follow_moves(folder.home, given.token, given.number) for given in inputs if given.token]
        if any(outcome is not None and outcome.state != "finished" for _, _, outcome in places):
            continue  # it fails as its input did
        tokens = {token for token, _, _ in places}
        if not tokens <= set(folder.batch.needs):
            found[number] = tokens
    return found


def _move(
    folder: BatchDirectory,
    numbers: list[int],
    kept: CallAgain | None,
    after: Sequence[ArrayDependency] = (),
    restarts: int = 0,
) -> None:
    """Write calls to one new batch, after the jobs with their inputs, and that as their outcomes.

    `restarts` of those that the calls are allowed are used up.
    """
    successor = BatchDirectory(folder.home, os.urandom(8).hex())
    calls = [bytes(folder.call(number)) for number in numbers]
    script = folder.script().replace(folder.token, successor.token)
    batch = _successor(folder.batch, successor.token, numbers, after)
    batch = batch.replace(restart_limit=batch.restart_limit - restarts)
    successor.create(batch, calls, script, kept, folder.buffers())
    attempts = 1 if kept is None else kept.attempt
    for place, number in enumerate(numbers):
        folder.end(number, CallOutcome("moved", successor.token, attempts=attempts, number=place))


def _successor(batch: Batch, token: str, numbers: list[int], after: Sequence[ArrayDependency]) -> Batch:
    each = batch.calls_per_job if len(numbers) > 1 else 1
    firsts = numbers[::each]
    elements = batch.elements
    if elements is not None:  # an array's again: the script names its exit code after the element
        alone = each == 1
        elements = tuple(batch.element_of(n) or 0 for n in numbers) if alone else tuple(range(len(firsts)))
    ends = list(accumulate(batch.calls[number].size for number in numbers))
    return batch.replace(
        token=token, elements=elements, calls_per_job=each, submitter="", created=time.time(),
        calls=tuple(
            batch.calls[number].replace(at=end - batch.calls[number].size)
            for number, end in zip(numbers, ends, strict=True)
        ),
        needs=tuple(dict.fromkeys((*batch.needs, *(str(each.array) for each in after)))),
        request=_request(batch, [number // batch.calls_per_job for number in firsts], after),
    )  # fmt: skip


def _request(batch: Batch, places: list[int], after: Sequence[ArrayDependency]) -> dict[str, Any]:
    """Return the request of elements of a batch. The rest that they have waited for has ended, or their jobs look."""
    asked = batch.request
    resources = {key: value for key, value in asked.get("resources", {}).items() if key != "begin"}
    predecessors = [*asked.get("predecessors", ()), batch.token]
    request = {**asked, "after": after, "resources": resources, "predecessors": predecessors}
    if asked.get("after_each"):  # elements are jobs of their own
        request.update(after=(), after_each=[after for _ in places])
    if asked.get("throttle"):
        request["behind"] = True
    if asked.get("lanes"):
        request["lanes"] = [asked["lanes"][place] for place in places]
    return request
