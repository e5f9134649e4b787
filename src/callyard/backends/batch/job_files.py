"""What has become of calls that are jobs, from their files.

A look costs one listing for each batch, and is taken less and less often as long as nothing happens. What the files do
not say is asked: see `questions`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic

from ...cache.lookup import find
from ...cache.messages import RunReport
from ...errors import CacheError, CallyardError, SchedulerError
from ...jobs.batch import CallOutcome
from .attach import EarlierBatches
from .call import JobCall, PackedJobError, cache_at
from .job_errors import gone, vanished
from .poller import Poller
from .tracker import TrackedBatch, Tracker

__all__ = ["FileWatcher"]


class FileWatcher:
    """Looks at the files. `again` is called with calls that are to be submitted once more."""

    def __init__(
        self,
        following: Tracker,
        earlier: EarlierBatches,
        questions: Poller,
        result_grace: float,
        again: Callable[[JobCall], object],
    ) -> None:
        self._following, self._earlier, self._questions = following, earlier, questions
        self._grace, self._again = result_grace, again

    def look(self) -> None:
        """Look at all batches, if it is time for that."""
        following, now = self._following, monotonic()
        if not following.batches or now < following.looks.at:
            return
        before = sum(1 for _ in following.calls())
        for followed in list(following.batches.values()):
            try:
                self._look_at(followed, now)
                followed.trouble = None
            except (OSError, ValueError, CallyardError) as error:  # a file system that stumbles; the others go on
                self._note_trouble(followed, now, error)
        following.looks.done(monotonic(), news=sum(1 for _ in following.calls()) < before)

    def _look_at(self, followed: TrackedBatch, now: float) -> None:
        news = followed.folder.news()
        if not news and not os.path.exists(followed.folder.path):
            self._vanished(followed)
        for number in list(followed.calls):
            state = news.get(number)
            if state in ("end", "seen"):
                self._read_end(followed, number, now)
            elif state == "begun":
                self._following.is_running(followed.calls[number])
        self._questions.give_up_overdue(followed, now)
        if not followed.calls:
            self._earlier.settle(followed.folder.token)

    def _note_trouble(self, followed: TrackedBatch, now: float, error: Exception) -> None:
        followed.trouble = followed.trouble or now
        if now < followed.trouble + self._grace:
            return
        del self._following.batches[followed.folder.token]
        for call in followed.all_calls():
            where = followed.folder.path
            failure = SchedulerError(f"{call.name!r}: what its job wrote in {where} cannot be read: {error}")
            failure.__cause__ = error
            call.future.fail_with(failure)
            self._following.tell(call)

    def _vanished(self, followed: TrackedBatch) -> None:
        """Whoever removed it did not see us come; or somebody removes what should stay."""
        for number in list(followed.calls):
            for call in followed.calls.pop(number):
                if call.ours:
                    call.future.fail_with(vanished(call))
                    self._following.tell(call)
                else:
                    self._once_more(call)

    def _once_more(self, call: JobCall) -> None:
        """What it was attached to is not going to be made: that was given up by those who had submitted it."""
        call.folder = None
        call.future.again()
        self._again(call)

    def _read_end(self, followed: TrackedBatch, number: int, now: float) -> None:
        end = followed.folder.ended(number)
        if end is None:
            return
        if end.state == "finished":
            self._finish(followed, number, end, now)
            return
        if end.state == "failed":
            followed.folder.received(number)
        for call in followed.calls.pop(number):
            if end.state == "withdrawn" and not call.ours:
                self._once_more(call)
                continue
            if end.failure:
                call.future.fail(PackedJobError(end))
            elif not call.future.cancel():
                call.future.fail_with(gone(call, "was cancelled"))
            self._following.tell(call)

    def _finish(self, followed: TrackedBatch, number: int, end: CallOutcome, now: float) -> None:
        following = self._following
        cache = cache_at(end.directory, following.home.trust)
        try:
            found = find(cache, end.key, whole=following.private)
        except CacheError as error:
            for call in followed.calls.pop(number):
                call.future.fail_with(error)
                following.tell(call)
            return
        if found is None:  # written, but not visible here yet
            followed.late.setdefault(number, (now, None))
            followed.hidden.add(number)
            return
        for call in followed.calls.pop(number):
            call.future.stored = None if following.private else (cache.path, end.key)
            if call.ticket is not None:
                call.ticket.named(end.key)
                call.ticket.noted(RunReport(found.token, stored=True))
            call.future.fail(found) if found.failed else call.future.finish(found)
            following.tell(call)
