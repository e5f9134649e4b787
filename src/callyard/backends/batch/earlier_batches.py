"""The batches in a cache, of this process and of others: earlier submissions of calls, and files to remove."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable

from ...cache.directory import CacheDirectory
from ...errors import CallyardError
from ...jobs.batch import CallFile, CallOutcome
from ...jobs.call_files import follow_moves
from ...jobs.find_batches import folders, folders_by_age
from ...jobs.spool import BatchDirectory
from .call import InputSource, JobCall, cache_at
from .delivery import Delivery
from .executor_state_machine import ExecutorState

__all__ = ["EarlierBatches"]


class EarlierBatches:
    """The batches in a cache, of this process and of others, as far as known here."""

    def __init__(
        self, home: CacheDirectory, state: ExecutorState, delivery: Delivery, clock: Callable[[], float]
    ) -> None:
        self._home, self._state, self._delivery, self._clock = home, state, delivery, clock
        self._index: dict[str, tuple[str, int]] = {}  # token and number of the last submission, by a call's ID
        self.known: dict[str, BatchDirectory] = {}  # by their tokens
        self._dependents: dict[str, list[BatchDirectory]] = defaultdict(list)  # the batches with inputs from a batch

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
        """Add a batch written here, and remove the rest of earlier failures of the same calls."""
        for position in directory.batch.calls:
            token, number = self._index.get(position.id, ("", 0))
            batch = self._state.batches.get(token)
            if token and (batch is None or number not in batch.calls):
                before = self.known.get(token) or BatchDirectory(self._home, token)
                with contextlib.suppress(OSError):
                    if not before.others(self._delivery.me):
                        before.superseded(number)
        self._enter(directory)

    def forget_unsent(self, directory: BatchDirectory) -> None:
        """Remove a batch of ours, given up before its submission."""
        self.forget(directory)
        directory.remove()

    def forget(self, directory: BatchDirectory) -> None:
        """Attach no calls to a batch any more."""
        for position in directory.batch.calls:
            if self._index.get(position.id, ("", 0))[0] == directory.token:
                del self._index[position.id]

    # -- calls that were submitted before --------------------------------------------------------------------

    def attach(self, call: JobCall) -> bool:
        """Wait for a job of the same call, or take its outcome; return False if there is none."""
        token, number = self._index.get(call.id, ("", 0))
        if not token or (call.order is not None and call.order.afresh):
            return False
        call.number = number
        batch = self._state.batches.get(token)
        call.directory = directory = batch.directory if batch else BatchDirectory(self._home, token)
        usable, is_complete, job = False, False, None
        with contextlib.suppress(Exception):  # what is damaged, somehow, is submitted anew
            # First, because a process looks for other waiting ones before removing a batch.
            directory.attach(self._delivery.me, number)
            is_complete, job = directory.unsent is None, call.job
            call.ours_before = bool(self._delivery.executor) and directory.batch.executor == self._delivery.executor
            usable = self._is_usable(call, directory)
        if usable:
            self._state.follow(call, self._clock(), is_complete=is_complete, has_job=job is not None)
            call.future.submitted_as(job)
        else:
            call.directory = None
            if batch is None or number not in batch.calls:
                with contextlib.suppress(OSError):
                    directory.leave_one(self._delivery.me, number)
        return usable

    def _is_usable(self, call: JobCall, directory: BatchDirectory) -> bool:
        outcome = directory.ended(call.number)
        if outcome is None:
            return bool(directory.batch) and directory.is_whole() and not self._is_doomed(call, directory)
        if outcome.state == "failed":
            if outcome.inherited and not any(map(self._has_failed, call.inputs)):
                directory.received(call.number)  # with the failure of the input, which now has a result, or runs again
            return directory.news().get(call.number) == "end"
        return outcome.state == "finished" and self._has_result(outcome)

    def _is_doomed(self, call: JobCall, directory: BatchDirectory) -> bool:
        """Return True if the job of a call is going to be cancelled, because an input failed or was submitted again."""
        if not call.inputs:
            return False
        if any(isinstance(given, InputSource) and given.call.directory is None for given in call.inputs):
            return True  # this input is about to be submitted again
        inputs = CallFile.load(directory.call(call.number)).inputs
        return not all(self._may_come(given.token, given.number) for given in inputs if given.token)

    def _has_failed(self, given: object) -> bool:
        """Return True if an input is a call with a failure that has been attached to."""
        if not isinstance(given, InputSource) or given.call.directory is None:
            return False
        _, _, outcome = follow_moves(self._home, given.call.directory.token, given.call.number)
        return outcome is not None and outcome.state == "failed"

    def _may_come(self, token: str, number: int) -> bool:
        """Return True if the result of a submitted call is there or can come."""
        token, number, outcome = follow_moves(self._home, token, number)
        directory = self.known.get(token)
        if directory is None:
            return False
        if outcome is None:  # not ended, or failed and replaced by a later submission of the same call
            return self._index.get(directory.batch.calls[number].id) == (token, number)
        return outcome.state == "finished"

    def _has_result(self, outcome: CallOutcome) -> bool:
        return cache_at(outcome.directory, self._home.trust).exists(outcome.key)

    def leave(self) -> None:
        """Wait for nothing any more; the jobs go on."""
        for batch in self._state.batches.values():
            with contextlib.suppress(OSError):
                batch.directory.leave(self._delivery.me)
        self._state.batches.clear()

    # -- removal ---------------------------------------------------------------------------------------------

    def settle(self, directory: BatchDirectory) -> None:
        """Stop waiting for a batch: remove the batch if not needed, and then the batches kept for its sake."""
        directory.leave(self._delivery.me)
        left = [directory]
        while left:
            directory = left.pop()
            if self._remove_if_over(directory):
                tokens = [token for token in directory.batch.needs if token not in self._state.batches]
                left.extend(self.known[token] for token in tokens if token in self.known)

    def _remove_if_over(self, directory: BatchDirectory) -> bool:
        """Remove a batch without anything left to be known; the output of failed calls stays."""
        try:
            if not directory.is_over() or directory.others(self._delivery.me):
                return False
            if self._is_needed(directory) or _has_untold_failure(directory):
                return False
            if self._delivery.private:
                directory.remove_results()
            if not directory.keep_failures():
                directory.remove()
        except (OSError, ValueError, CallyardError):  # removed by another process
            return False
        return True

    def _is_needed(self, directory: BatchDirectory) -> bool:
        """Return True if unfinished calls have inputs from this batch, or from one whose calls have moved here."""
        # Other processes may have written batches with inputs from this one since the last look.
        self.refresh()
        tokens = (directory.token, *directory.batch.request.get("predecessors", ()))
        dependents = (other for token in tokens for other in self._dependents[token])
        return any(os.path.exists(other.path) and not other.is_over() for other in dependents)

    def tidy(self) -> None:
        """Remove the files of ended calls, and of ended processes."""
        self._home.sweep("jobs")
        for directory in folders(self._home):
            if directory.token not in self._state.batches:
                self._remove_if_over(self.known.get(directory.token, directory))


def _has_untold_failure(directory: BatchDirectory) -> bool:
    """Return True if there is a failure still unknown to all processes."""
    outcomes = (directory.ended(number) for number, furthest in directory.news().items() if furthest == "end")
    return any(outcome is not None and outcome.state == "failed" for outcome in outcomes)
