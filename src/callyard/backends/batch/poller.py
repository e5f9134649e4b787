"""What the scheduler is asked about jobs, and what follows from its answers.

One command asks about all jobs, less and less often as long as nothing happens. The answers count only for jobs that
wait, or that have ended without a file. Such a job is looked at for a while longer: network file systems show files
late.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from time import monotonic

from ...cache.claims import Claims
from ...errors import CallyardError
from ...jobs.batch import BatchPart, CallOutcome
from ...schedulers.base import Status
from ...utils.command_thread import CommandThread, Steps
from .call import cache_at
from .job_errors import awaits, dependency_failed, hopeless, unseen, why
from .scheduler_client import SchedulerClient
from .submitter import Submitter, claim_of
from .tracker import Heartbeats, TrackedBatch, Tracker, release_claim_of

__all__ = ["Poller"]

_log = logging.getLogger("callyard")
_BEATS = 3  # of a job that do not come before it counts as gone
_LONG = 45.0  # s without a sign of life of somebody else's job


class Poller:
    """Asks about the jobs that are waited for."""

    def __init__(
        self, clerk: CommandThread, desk: SchedulerClient, following: Tracker, sender: Submitter, result_grace: float
    ) -> None:
        self._clerk, self._desk, self._following, self._sender = clerk, desk, following, sender
        self._grace = result_grace
        self._unknown: dict[
            str, dict[str, Heartbeats]
        ] = {}  # jobs that have claims and that the scheduler does not know

    def ask(self) -> None:
        """One question about all jobs, if it is time for that."""
        following = self._following
        if following.batches and not following.asking and monotonic() >= following.questions.at:
            following.asking = True
            self._clerk.run(self._steps())

    def _steps(self) -> Steps:
        following = self._following
        try:
            with _stumbling():
                yield from self._question(monotonic())
        finally:
            following.asking = False
            following.questions.done(monotonic())

    def _question(self, asked: float) -> Steps:
        self._adopt()
        parts = [(each, part) for each in self._following.batches.values() for part in each.folder.parts]
        if parts:
            holders = self._holders()
            statuses = yield partial(self._desk.statuses, [*(part.job for _, part in parts), *holders])
            if statuses is not None:
                self._release_claims_of(holders, statuses)
                for followed, part in parts:
                    with _stumbling():
                        self._heard(followed, part, statuses, asked)

    def _adopt(self) -> None:
        """A process that was killed has not submitted a batch, or has and did not write down the job's name."""
        for followed in self._following.batches.values():
            if followed.folder.unsent is not None:
                claim = claim_of(followed.folder)
                if claim is not None:
                    self._sender.put(followed.folder, followed.all_calls(), claim)

    def _heard(self, followed: TrackedBatch, part: BatchPart, statuses: dict[str, Status], asked: float) -> None:
        """Of a batch that is waited for still: of those of its elements that the question was about."""
        each = followed.folder.batch.calls_per_job
        for number in sorted(followed.calls.keys() & range(part.first * each, part.end * each)):
            self._judge(followed, number, statuses, asked)

    def _judge(self, followed: TrackedBatch, number: int, statuses: dict[str, Status], asked: float) -> None:
        job = followed.folder.job_of(number)
        status = statuses.get(job or "")
        calls = followed.calls[number]
        before = followed.last.get(number)
        if status is None and before is not None and before.phase == "waiting" and _others_listed(job, statuses):
            # Slurm forgets an element at once that is cancelled while it waits.
            status = Status(before.job, "CANCELLED")
        followed.unlisted[number] = followed.unlisted.get(number, 0) + 1 if status is None else 0
        if status is not None:
            followed.last[number] = status
        for call in calls:
            call.future.submitted_as(job)
        if status is None or status.phase == "ended":
            now = monotonic()
            followed.late.setdefault(number, (now, status))
            if status is None and number not in followed.signs:
                followed.signs[number] = Heartbeats(followed.folder.heart(number), now)
            self._following.looks.sooner(now)
            return
        followed.late.pop(number, None)
        followed.signs.pop(number, None)
        if status.phase == "running":
            self._following.is_running(calls)
            return
        for call in calls:
            if call.seen_running < asked:
                call.future.again()  # it was put back into the queue
        error = hopeless(calls[0], status)
        if error is not None and before is not None and before.reason == status.reason:  # twice: it may pass
            self._clerk.do(partial(self._desk.cancel, [job or ""]))
            self._following.fail(followed, number, error)

    # -- jobs that have ended without a word -----------------------------------------------------------------

    def give_up_overdue(self, followed: TrackedBatch, now: float) -> None:
        """Let the calls fail whose jobs have ended some time ago and have not said how."""
        until = now - self._grace
        overdue = [number for number, (since, _) in followed.late.items() if since < until and number in followed.calls]
        certain = [number for number in overdue if followed.has_ended(number)]
        if len(certain) < len(overdue):
            self._following.questions.sooner(now + self._following.questions.first)
        lost = [number for number in certain if not self._lives(followed, number, now)]
        if lost:
            self._clerk.run(self._give_up(followed, lost))

    def _lives(self, followed: TrackedBatch, number: int, now: float) -> bool:
        """Whether its job was there a moment ago: a scheduler that has lost its memory does not know what runs."""
        _, said = followed.late[number]
        signs, begun = followed.signs.get(number), followed.folder.begun(number)
        if said or followed.last_word(number) or number in followed.hidden or signs is None or begun is None:
            return False
        if signs.stillness(followed.folder.heart(number), now) > max(self._grace, _BEATS * begun.beat):
            return False
        followed.late[number] = now, None
        return True

    def _give_up(self, followed: TrackedBatch, numbers: list[int]) -> Steps:
        folder = followed.folder
        since = {number: followed.late[number][0] for number in numbers}
        said = {number: followed.late.pop(number)[1] or followed.last_word(number) for number in numbers}
        for number in followed.hidden & said.keys():
            del said[number]
            self._following.fail(followed, number, unseen(followed.calls[number][0]))
        forgotten = [job for number, status in said.items() if status is None and (job := folder.job_of(number))]
        history = (yield partial(self._desk.history, forgotten)) if forgotten else {}
        with _stumbling():
            for number, last in said.items():
                if number in followed.calls and not self._was_stored(followed, number):
                    self._say_why(followed, number, last or history.get(folder.job_of(number) or ""), since[number])

    def _say_why(self, followed: TrackedBatch, number: int, status: Status | None, since: float) -> None:
        """Let a call fail, unless its job may have more to say, or the job of an input has."""
        if status is not None and status.phase != "ended":
            return
        folder, inherited = followed.folder, None
        if status is not None and status.state == "CANCELLED":
            if awaits(folder, number, self._is_late):  # that tells why, and is going to be known
                followed.late[number] = since, status
                return
            inherited = dependency_failed(folder, number)
        self._following.fail(followed, number, inherited or why(followed.calls[number][0], status))
        self._following.looks.sooner(monotonic())

    def _is_late(self, token: str, number: int) -> bool:
        """Whether it is one of those whose jobs have ended, and are waited for to say how."""
        followed = self._following.batches.get(token)
        return followed is not None and number in followed.calls and number in followed.late

    def _was_stored(self, followed: TrackedBatch, number: int) -> bool:
        """A last look: a listing may be older than the file, and a job may have stored a result and not said so."""
        folder = followed.folder
        if number in followed.hidden:
            return False
        if folder.ended(number) is not None:
            return True  # which the next look at the files finds
        begun = folder.begun(number)
        if begun is None or not begun.key:
            return False
        order = followed.calls[number][0].order
        end = CallOutcome("finished", begun.key, self._following.home.path if order is None else order.directory)
        if not cache_at(end.directory, self._following.home.trust).exists(begun.key):
            return False
        folder.end(number, end)
        return True

    # -- claims of jobs that are gone --------------------------------------------------------------------------

    def _holders(self) -> dict[str, set[str]]:
        """The jobs that have the claims for which jobs of ours wait, with the keys of those calls."""
        found: dict[str, set[str]] = defaultdict(set)
        for followed in self._following.batches.values():
            for number, job in followed.folder.waits().items():
                begun = followed.folder.begun(number) if number in followed.calls else None
                if begun is not None:
                    found[job].add(begun.key)
        return found

    def _release_claims_of(self, holders: dict[str, set[str]], statuses: dict[str, Status]) -> None:
        """A job that was lost with its node leaves a claim behind, which nobody else can prove to be nobody's."""
        claims, now = Claims(self._following.home), monotonic()
        for job, keys in holders.items():
            status = statuses.get(job)
            if status is not None:
                self._unknown.pop(job, None)
            if status is None or status.phase == "ended":
                for key in keys:
                    if status is not None or self._is_still(claims, key, job, now):
                        release_claim_of(claims, key, job)

    def _is_still(self, claims: Claims, key: str, job: str, now: float) -> bool:
        """Whether a job that the scheduler does not know has not been heard of since another question."""
        heart = claims.heart(key)
        signs = self._unknown.setdefault(job, {}).setdefault(key, Heartbeats(heart, now))
        return signs.stillness(heart, now) > max(self._grace, _LONG)


@contextlib.contextmanager
def _stumbling() -> Iterator[None]:
    """A file system may stumble, and a scheduler talk nonsense: the others go on, and the next question is soon."""
    try:
        yield
    except (OSError, ValueError, CallyardError) as error:
        _log.warning("callyard: what has become of jobs is asked again: %s", error)


def _others_listed(job: str | None, statuses: dict[str, Status]) -> bool:
    array, _, element = (job or "").partition("_")
    return bool(element) and any(name.startswith(f"{array}_") for name in statuses)
