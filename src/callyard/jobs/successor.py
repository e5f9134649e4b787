"""The successors of calls that cannot go on in their own job: batches that any process may submit.

Two kinds of calls move to a successor. A call that has asked to be run again, or was lost and has a `restart_limit`, in
a job that the scheduler does not start again, goes on with the arguments of its next attempt; so does a call that has
gone beyond a limit, with the next one of the list that it was given. A call that takes the result of a moved call goes
after it: its own job waits for one that has ended, so the scheduler cancels it or starts it too early.

A successor has not been submitted. A process that waits for the call submits it, or `callyard resume`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, NamedTuple

from ..cache.claims import Claim, Claims
from ..resources import Resources
from .batch import Batch, CallAgain, CallFile, CallOutcome
from .call_files import follow_moves
from .find_batches import folders_by_age
from .next_limits import limits_of, next_resources, with_limits, with_limits_of
from .planner import ArrayDependency
from .spool import BatchDirectory

__all__ = ["move_after", "move_after_inputs", "move_to_successor"]

_LOSSES = ("NodeFailure", "WorkerLost")


class _Attempt(NamedTuple):
    """The next attempt of a call: `kept` for its job, so many used `restarts` of those allowed, and other limits."""

    kept: CallAgain | None
    restarts: int = 0
    resources: Resources | None = None  # None: those of the last attempt


def move_to_successor(folder: BatchDirectory, number: int, error: str = "") -> bool:
    """Write the successor of a call, and that as its outcome, unless another process is at it; dependent calls follow.

    Return False, and write nothing, if nothing lets the call run again. `error`: the name of the error with which its
    job has ended. After "NodeFailure" and "WorkerLost" `restart_limit` counts, after "OutOfMemory" and
    "TimeLimitExceeded" the limits that are left to try.
    """
    attempt = _next_attempt(folder, number, error)
    if attempt is None:
        return False
    if _move_alone(folder, number, attempt):
        _move_dependents(folder)
    return True


def move_after(folder: BatchDirectory, number: int, token: str, input_number: int) -> None:
    """Write the successor of a call that has not begun, as a job that begins after the job of this input."""
    element = BatchDirectory(folder.home, token).batch.element_of(input_number)
    if _move_alone(folder, number, _Attempt(folder.again(number)), [ArrayDependency("any", token, element)]):
        _move_dependents(folder)


def _next_attempt(folder: BatchDirectory, number: int, error: str) -> _Attempt | None:
    """Return the next attempt of a call; None if it does not run again."""
    kept = folder.again(number)
    if kept is not None and folder.asks_again(number):
        return _Attempt(kept.replace(restarts=0, losses=0), kept.losses)
    losses, resources = 0 if kept is None else kept.losses, next_resources(folder.batch, error)
    if resources is None and (error not in _LOSSES or losses >= folder.batch.restart_limit):
        return None
    run = 0 if folder.begun(number) is None else 1  # its job may have ended before
    kept = CallAgain(1, 0, b"") if kept is None else kept.replace(restarts=0, losses=0)
    kept = kept.replace(attempt=kept.attempt + run)
    if resources is None:
        return _Attempt(kept, losses + 1)
    of_its_job = folder.batch.of_element(folder.batch.element_of(number))
    # Another call of its job has used up what the job had. It is alone in the next one.
    keeps_limits = run == 0 and number != of_its_job[0]
    return _Attempt(kept, losses, None if keeps_limits else resources)


def _move_alone(folder: BatchDirectory, number: int, attempt: _Attempt, after: Sequence[ArrayDependency] = ()) -> bool:
    """Move one call; return False if another process is at it."""
    claim = Claims(folder.home).take(f"{folder.token}-{number}", "successor")
    if not isinstance(claim, Claim):
        return False
    try:
        if folder.ended(number) is None:  # looked at once more, under the claim
            _move(folder, [number], attempt, after)
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
                _move(folder, sorted(left), _Attempt(None), waits)
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


def _move(folder: BatchDirectory, numbers: list[int], attempt: _Attempt, after: Sequence[ArrayDependency] = ()) -> None:
    """Write calls to one new batch, after the jobs with their inputs, and that as their outcomes."""
    successor, kept, resources = BatchDirectory(folder.home, os.urandom(8).hex()), attempt.kept, attempt.resources
    calls = [bytes(folder.call(number)) for number in numbers]
    script, scripts, log = folder.script(), folder.scripts(), ""
    if resources is not None:
        calls = [with_limits(CallFile.load(call), resources).dump() for call in calls]
        script, log = scripts.get(limits_of(resources), script), folder.log(numbers[0])
    batch = _successor(folder.batch, successor.token, numbers, list(map(len, calls)), after)
    batch = batch.replace(restart_limit=batch.restart_limit - attempt.restarts)
    if resources is not None:
        batch = with_limits_of(batch, resources)
        _note_in(log, batch)
    script, *others = (text.replace(folder.token, successor.token) for text in (script, *scripts.values()))
    successor.create(
        batch, calls, script, kept, folder.buffers(), scripts=dict(zip(scripts, others, strict=True)), earlier_log=log
    )
    attempts = 1 if kept is None else kept.attempt
    for place, number in enumerate(numbers):
        folder.end(number, CallOutcome("moved", successor.token, attempts=attempts, number=place))


def _note_in(log: str, batch: Batch) -> None:
    """Note in the log of an attempt, which goes on in that of the next one, why there are two."""
    with suppress(OSError):  # none was written, or the disk is full
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"callyard: it went beyond its limit, and runs again with {batch.limit}\n".encode())
        finally:
            os.close(descriptor)


def _successor(
    batch: Batch, token: str, numbers: list[int], sizes: list[int], after: Sequence[ArrayDependency]
) -> Batch:
    each = batch.calls_per_job if len(numbers) > 1 else 1
    firsts = numbers[::each]
    elements = batch.elements
    if elements is not None:  # an array's again: the script names its exit code after the element
        alone = each == 1
        elements = tuple(batch.element_of(n) or 0 for n in numbers) if alone else tuple(range(len(firsts)))
    return batch.replace(
        token=token, elements=elements, calls_per_job=each, submitter="", created=time.time(),
        calls=tuple(
            batch.calls[number].replace(at=end - size, size=size)
            for number, size, end in zip(numbers, sizes, accumulate(sizes), strict=True)
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
