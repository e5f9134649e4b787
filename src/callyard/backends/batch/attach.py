"""What was submitted before, here or by other processes: to wait for that, and to remove what nobody needs."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict

from ...cache.directory import CacheDirectory
from ...errors import CallyardError
from ...jobs.batch import CallOutcome
from ...jobs.spool import BatchDirectory, folders, folders_by_age
from .call import JobCall, cache_at
from .tracker import Tracker

__all__ = ["EarlierBatches"]


class EarlierBatches:
    """The batches in a directory, as far as they are known here."""

    def __init__(self, home: CacheDirectory, following: Tracker) -> None:
        self._home, self._following = home, following
        self._index: dict[str, tuple[str, int]] = {}  # where the call of an id was submitted last
        self.known: dict[str, BatchDirectory] = {}  # by the tokens in it
        self._takers: dict[str, list[BatchDirectory]] = defaultdict(list)  # the batches that take results of one

    def refresh(self) -> None:
        """Read what others have submitted since this was last asked. The last submission of a call counts."""
        for folder in folders_by_age(self._home, self.known):
            self._enter(folder)

    def _enter(self, folder: BatchDirectory) -> None:
        self.known[folder.token] = folder
        for token in folder.batch.needs:
            self._takers[token].append(folder)
        for number, place in enumerate(folder.batch.calls):
            self._index[place.id] = folder.token, number

    # -- batches of ours -----------------------------------------------------------------------------------

    def noted(self, folder: BatchDirectory) -> None:
        """A batch of ours was written. What is left of earlier failures of its calls can go."""
        for place in folder.batch.calls:
            token, number = self._index.get(place.id, ("", 0))
            if token and token not in self._following.batches:
                before = self.known.get(token) or BatchDirectory(self._home, token)
                with contextlib.suppress(OSError):
                    if not before.others(self._following.me):
                        before.superseded(number)
        self._enter(folder)

    def forgotten(self, folder: BatchDirectory, ours: bool) -> None:
        """It was not submitted, and is not going to be; that of others is left to them."""
        if not ours:
            folder.leave(self._following.me)
            return
        for place in folder.batch.calls:
            self._index.pop(place.id, None)
        folder.remove()

    # -- calls that were submitted before --------------------------------------------------------------------

    def attach(self, call: JobCall) -> bool:
        """Wait for a job of the same call, if there is one, or take how it ended."""
        token, number = self._index.get(call.id, ("", 0))
        if not token or (call.order is not None and call.order.afresh):
            return False
        call.number = number
        followed = self._following.batches.get(token)
        call.folder = followed.folder if followed else BatchDirectory(self._home, token)
        try:
            call.folder.attach(self._following.me, number)  # first: who removes a batch looks for others before
            usable = self._is_usable(call.folder, call.number)
        except (OSError, ValueError, CallyardError):
            usable = False
        if usable:
            self._following.follow(call)
        else:
            if followed is None or number not in followed.calls:
                call.folder.leave_one(self._following.me, number)
            call.folder = None
        return usable

    def _is_usable(self, folder: BatchDirectory, number: int) -> bool:
        end = folder.ended(number)
        if end is None:
            return bool(folder.batch) and folder.is_whole()
        if end.state == "failed":
            return folder.news().get(number) == "end"
        return end.state == "finished" and self._has_result(end)

    def _has_result(self, end: CallOutcome) -> bool:
        return cache_at(end.directory, self._home.trust).exists(end.key)

    # -- what can go -----------------------------------------------------------------------------------------

    def settle(self, token: str) -> None:
        """Of a batch nothing is waited for any more: remove it if nobody needs it, and what was kept for its sake."""
        followed = self._following.batches.pop(token)
        followed.folder.leave(self._following.me)
        left = [followed.folder]
        while left:
            folder = left.pop()
            if self._remove_if_over(folder):
                tokens = [token for token in folder.batch.needs if token not in self._following.batches]
                left.extend(self.known[token] for token in tokens if token in self.known)

    def _remove_if_over(self, folder: BatchDirectory) -> bool:
        """Remove a batch in which nothing is left to be known; of calls that failed, what they printed stays."""
        try:
            if not folder.is_over() or folder.others(self._following.me):
                return False
            if self._is_needed(folder) or _is_unheard(folder):
                return False
            if self._following.private:
                folder.remove_results()
            if not folder.keep_failures():
                folder.remove()
        except (OSError, ValueError, CallyardError):  # somebody else has removed it
            return False
        return True

    def _is_needed(self, folder: BatchDirectory) -> bool:
        """Whether calls that have not ended take results of it."""
        self.refresh()
        return any(os.path.exists(other.path) and not other.is_over() for other in self._takers[folder.token])

    def tidy(self) -> None:
        """Remove what is left of calls that have ended, and of processes that have."""
        self._home.sweep("jobs")
        for folder in folders(self._home):
            if folder.token not in self._following.batches:
                self._remove_if_over(self.known.get(folder.token, folder))


def _is_unheard(folder: BatchDirectory) -> bool:
    """Whether there is a failure that nobody has been told."""
    ends = (folder.ended(number) for number, what in folder.news().items() if what == "end")
    return any(end is not None and end.state == "failed" for end in ends)
