"""The tracker: the submitted calls for which this process waits, and the batches that were submitted before."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from time import monotonic

from ...cache.claims import Claims
from ...cache.directory import CacheDirectory
from ...errors import CallyardError
from ...jobs.batch import CallFile, CallOutcome
from ...jobs.spool import BatchDirectory, folders, folders_by_age
from ...system.process_identity import this_process
from ...utils.backoff import Backoff
from ...worker.job_outcome import failed, write_down
from .call import InputSource, JobCall, PackedJobError, cache_at
from .call_state_machine import CallState

__all__ = ["EarlierBatches", "TrackedBatch", "Tracker", "release_claim_of"]

_SOONEST, _LATEST, _RARER = 0.05, 2.0, 1.15  # s between two looks at the files, and how they grow
_SLOWER = 1.3  # how the time between two questions grows


class TrackedBatch:
    """A batch with calls that are waited for."""

    def __init__(self, directory: BatchDirectory, grace: float) -> None:
        self.directory = directory
        self._grace = grace
        self.calls: dict[int, list[JobCall]] = {}
        self.states: dict[int, CallState] = {}  # of the same numbers
        self.cancelled: set[int] = set()  # those that nobody here waits for any more, made by a job with others
        self.trouble: float | None = None  # since when the files cannot be read

    def add(self, call: JobCall) -> None:
        """Wait for a call, which several futures may do."""
        calls = self.calls.setdefault(call.number, [])
        self.states.setdefault(call.number, CallState(self._grace))
        if call not in calls:
            calls.append(call)

    def pop(self, number: int) -> list[JobCall]:
        """Return the calls that waited for this one; nobody does any more, so that each is told once."""
        if number in self.states:
            self.states.pop(number).told()
        return self.calls.pop(number, [])

    def all_calls(self) -> list[JobCall]:
        return [call for calls in self.calls.values() for call in calls]


class Tracker:
    """The batches that are waited for. `tell` is called with each call that has ended; `clock` returns seconds."""

    def __init__(
        self,
        home: CacheDirectory,
        private: bool,
        poll: tuple[float, float],
        grace: float,
        tell: Callable[[JobCall], object],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.home, self.grace, self.tell, self.clock = home, grace, tell, clock
        self.private = private  # results are of no use to others
        self.me = f"{this_process().label}+{os.urandom(4).hex()}"  # among those who wait
        self.batches: dict[str, TrackedBatch] = {}
        self.asking = False  # the scheduler's answer is waited for
        self.looks = Backoff(_SOONEST, _LATEST, _RARER)
        self.questions = Backoff(*poll, _SLOWER)

    def calls(self) -> Iterator[JobCall]:
        for tracked in self.batches.values():
            yield from tracked.all_calls()

    def due(self) -> float | None:
        """Return when something is to be looked at next."""
        if not self.batches:
            return None
        return self.looks.at if self.asking else min(self.looks.at, self.questions.at)

    def lacks_job(self, token: str) -> bool:
        """Return whether it is a batch that is waited for and was perhaps never submitted, or not all of it."""
        tracked = self.batches.get(token)
        return tracked is not None and tracked.directory.unsent is not None

    def is_overdue(self, token: str, number: int) -> bool:
        """Return whether it is a call that is waited for, whose job has ended and has not said how yet."""
        tracked = self.batches.get(token)
        state = None if tracked is None else tracked.states.get(number)
        return state is not None and state.overdue_since is not None

    def follow(self, call: JobCall) -> None:
        """Wait for its end."""
        directory = call.directory
        assert directory is not None
        tracked = self.batches.get(directory.token)
        if tracked is None:
            tracked = self.batches[directory.token] = TrackedBatch(directory, self.grace)
            if call.ours:
                directory.attach(self.me)
        tracked.add(call)
        call.future.submitted_as(call.job)
        now = self.clock()
        self.looks.begin(min(self.looks.at, now) if self.looks.at else now)
        self.questions.begin(now + self.questions.first if call.job is not None else now)

    def show_running(self, calls: list[JobCall]) -> None:
        """Let the futures say that the call runs."""
        for call in calls:
            if not call.future.done() and not call.future.running():
                call.future.set_running_or_notify_cancel()

    def fail(
        self, tracked: TrackedBatch, number: int, error: BaseException | CallOutcome, *, has_ended: bool = True
    ) -> None:
        """Let a call fail. Why is written down first, so that nobody attaches to a job that is gone.

        Its claim is released, too: the scheduler says that the job `has_ended`, wherever that ran.
        """
        directory = tracked.directory
        if has_ended:
            self._release_claim(directory, number)
        # Where the disk takes nothing its futures are told all the same; who attaches to the job later, finds out anew.
        write_down(directory, number, error if isinstance(error, CallOutcome) else failed(error))
        directory.received(number)
        for call in tracked.pop(number):
            if isinstance(error, CallOutcome):
                call.future.fail(PackedJobError(error))
            else:
                call.future.fail_with(error)
            self.tell(call)

    def _release_claim(self, directory: BatchDirectory, number: int) -> None:
        with contextlib.suppress(OSError, CallyardError):  # whoever wants to claim the call finds out anew
            begun = directory.begun(number)
            if begun is not None and begun.key:
                release_claim_of(Claims(self.home), begun.key, begun.job)

    def leave(self) -> None:
        """Wait for nothing any more; the jobs go on."""
        for tracked in self.batches.values():
            tracked.directory.leave(self.me)
        self.batches.clear()


def release_claim_of(claims: Claims, key: str, job: str) -> None:
    """Release the claim to a key, if a job holds it that has ended."""
    holder = claims.holder(key)
    if holder is not None and holder.job_id == job:
        claims.force(key)


class EarlierBatches:
    """The batches in a cache, of this process and of others, as far as they are known here."""

    def __init__(self, home: CacheDirectory, tracker: Tracker) -> None:
        self._home, self._tracker = home, tracker
        self._index: dict[str, tuple[str, int]] = {}  # token and number of the last submission of a call, by its ID
        self.known: dict[str, BatchDirectory] = {}  # by their tokens
        self._dependents: dict[str, list[BatchDirectory]] = defaultdict(list)  # the batches that take results of one

    def refresh(self) -> None:
        """Read the batches that others have submitted since the last time. The last submission of a call counts."""
        for directory in folders_by_age(self._home, self.known):
            self._enter(directory)

    def _enter(self, directory: BatchDirectory) -> None:
        self.known[directory.token] = directory
        for token in directory.batch.needs:
            self._dependents[token].append(directory)
        for number, position in enumerate(directory.batch.calls):
            self._index[position.id] = directory.token, number

    # -- batches of this executor ----------------------------------------------------------------------------

    def add_own(self, directory: BatchDirectory) -> None:
        """Add a batch that was written here. The rest of earlier failures of its calls can go."""
        for position in directory.batch.calls:
            token, number = self._index.get(position.id, ("", 0))
            tracked = self._tracker.batches.get(token)
            if token and (tracked is None or number not in tracked.calls):
                before = self.known.get(token) or BatchDirectory(self._home, token)
                with contextlib.suppress(OSError):
                    if not before.others(self._tracker.me):
                        before.superseded(number)
        self._enter(directory)

    def forget_unsent(self, directory: BatchDirectory, ours: bool) -> None:
        """Remove a batch that is not going to be submitted; one of others is left to them."""
        if not ours:
            directory.leave(self._tracker.me)
            return
        for position in directory.batch.calls:
            self._index.pop(position.id, None)
        directory.remove()

    # -- calls that were submitted before --------------------------------------------------------------------

    def attach(self, call: JobCall) -> bool:
        """Wait for a job of the same call, or take its outcome; return whether there is one."""
        token, number = self._index.get(call.id, ("", 0))
        if not token or (call.order is not None and call.order.afresh):
            return False
        call.number = number
        tracked = self._tracker.batches.get(token)
        call.directory = tracked.directory if tracked else BatchDirectory(self._home, token)
        try:
            # First, because a process that removes a batch looks for others who wait before it does.
            call.directory.attach(self._tracker.me, number)
            usable = self._is_usable(call, call.directory)
        except (OSError, ValueError, CallyardError):
            usable = False
        if usable:
            self._tracker.follow(call)
        else:
            if tracked is None or number not in tracked.calls:
                call.directory.leave_one(self._tracker.me, number)
            call.directory = None
        return usable

    def _is_usable(self, call: JobCall, directory: BatchDirectory) -> bool:
        outcome = directory.ended(call.number)
        if outcome is None:
            return bool(directory.batch) and directory.is_whole() and not self._is_doomed(call, directory)
        if outcome.state == "failed":
            return directory.news().get(call.number) == "end"
        return outcome.state == "finished" and self._has_result(outcome)

    def _is_doomed(self, call: JobCall, directory: BatchDirectory) -> bool:
        """Return whether the job of a call will be cancelled, because an input of it failed or was submitted again."""
        if not call.inputs:
            return False
        if any(isinstance(given, InputSource) and given.call.directory is None for given in call.inputs):
            return True  # that input is about to be submitted again
        inputs = CallFile.load(directory.call(call.number)).inputs
        return not all(self._may_come(given.token, given.number) for given in inputs if given.token)

    def _may_come(self, token: str, number: int) -> bool:
        """Return whether the result of a submitted call is there or can come."""
        directory = self.known.get(token)
        if directory is None:
            return False
        outcome = directory.ended(number)
        if outcome is None:  # it has not ended, or it failed and gave way to a later submission of the same call
            return self._index.get(directory.batch.calls[number].id) == (token, number)
        return outcome.state == "finished"

    def _has_result(self, outcome: CallOutcome) -> bool:
        return cache_at(outcome.directory, self._home.trust).exists(outcome.key)

    # -- removal ---------------------------------------------------------------------------------------------

    def settle(self, token: str) -> None:
        """Stop waiting for a batch: remove it if nobody needs it, and then the batches that were kept for its sake."""
        tracked = self._tracker.batches.pop(token)
        tracked.directory.leave(self._tracker.me)
        left = [tracked.directory]
        while left:
            directory = left.pop()
            if self._remove_if_over(directory):
                tokens = [token for token in directory.batch.needs if token not in self._tracker.batches]
                left.extend(self.known[token] for token in tokens if token in self.known)

    def _remove_if_over(self, directory: BatchDirectory) -> bool:
        """Remove a batch of which nothing is left to be known; of calls that failed, what they printed stays."""
        try:
            if not directory.is_over() or directory.others(self._tracker.me):
                return False
            if self._is_needed(directory) or _has_untold_failure(directory):
                return False
            if self._tracker.private:
                directory.remove_results()
            if not directory.keep_failures():
                directory.remove()
        except (OSError, ValueError, CallyardError):  # somebody else has removed it
            return False
        return True

    def _is_needed(self, directory: BatchDirectory) -> bool:
        """Return whether calls that have not ended take results of it."""
        self.refresh()
        return any(os.path.exists(other.path) and not other.is_over() for other in self._dependents[directory.token])

    def tidy(self) -> None:
        """Remove the files of calls, and of processes, that have ended."""
        self._home.sweep("jobs")
        for directory in folders(self._home):
            if directory.token not in self._tracker.batches:
                self._remove_if_over(self.known.get(directory.token, directory))


def _has_untold_failure(directory: BatchDirectory) -> bool:
    """Return whether there is a failure of which nobody has been told."""
    outcomes = (directory.ended(number) for number, furthest in directory.news().items() if furthest == "end")
    return any(outcome is not None and outcome.state == "failed" for outcome in outcomes)
