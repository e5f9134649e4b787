"""The client of a scheduler: few commands, each with a time limit, and longer intervals without answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event

from ...errors import SchedulerError
from ...hosts.base import Host
from ...hosts.open_host import open_host
from ...resources import amounts
from ...schedulers.base import JobId, JobRequest, Refusal, Scheduler, Status
from ...schedulers.command import Query, Reply
from ...schedulers.registry import open_scheduler
from ...utils.backoff import Backoff

__all__ = ["SchedulerClient", "SubmissionRefused", "client_of", "mistake"]

_log = logging.getLogger("callyard")
_TIME_LIMIT = 60.0  # s for a command
_SLOWER = 2.0  # the growth of the pause after each missing answer, or refusal for a limit
_FIRST_PAUSE = 5.0  # s
_LATEST = 300.0  # s between two attempts
_GIB = 1 << 30
_NO_COMMAND = (126, 127)  # codes of a `Reply` beyond the help of any pause


class SubmissionRefused(Exception):  # not a failure of ours: the scheduler said no
    """The refusal of a job by the scheduler: "limit", "silent" or "mistake", in the scheduler's own words.

    `full`: a limit on the number of jobs was named, even if the scheduler was silent in the end. `absent`: the
    beginning of a sentence about a missing scheduler; the words then give advice.
    """

    def __init__(self, kind: str, words: str, *, full: bool = False, absent: str = "") -> None:
        super().__init__(f"{absent}: {words}" if absent else words)
        self.kind, self.words, self.full, self.absent = kind, words, full, absent


class SchedulerClient:
    """One scheduler, on one host.

    Jobs go in and come out as texts, in the form of batches' files.
    """

    def __init__(self, scheduler: Scheduler, host: Host, pause: float) -> None:
        self._scheduler, self._site, self._host = scheduler, scheduler.site(), host
        self._pauses = Backoff(pause, _LATEST, _SLOWER)
        self.most: int | None = None  # elements of an array, once known
        self._accounts = self._site.history is not None  # the scheduler has a history, as far as known
        self._no_questions = Event()
        self._largest: dict[str | None, str] = {}  # the largest nodes of a partition, in words

    def _run(self, query: Query[object], stop: Event | None = None) -> Reply:
        environment = self._site.environment(self._host.environment())
        return self._host.run(query.argv, timeout=_TIME_LIMIT, env=environment, stop=stop, stdin=query.stdin)

    def _ask(self, query: Query[object]) -> Reply:
        """Run a command for nothing but the progress of jobs."""
        if self._no_questions.is_set():
            return Reply(None, "", "it is not asked any more")
        return self._run(query, self._no_questions)

    def stop_asking(self) -> None:
        """Wait for no answer to a question about jobs any more, at the end."""
        self._no_questions.set()

    def _said(self, reply: Reply) -> str:
        return (reply.err.strip() or reply.out.strip() or "it did not answer").splitlines()[0]

    @property
    def name(self) -> str:
        """The scheduler's name for people."""
        return self._scheduler.name

    @property
    def gaps(self) -> bool:
        """True if the numbers of an array's elements may have gaps."""
        return self._site.numbering.gaps

    @property
    def cancels_dependents(self) -> bool:
        """True if no job is stuck after the failure of a job before it."""
        return self._site.cancels_dependents

    @property
    def forgets(self) -> bool:
        """True if answers about states leave out all ended jobs."""
        return self._site.forgets

    # -- pauses ------------------------------------------------------------------------------------------

    def pause(self) -> float:
        """Return the seconds to wait before the next attempt: more each time, until one succeeds."""
        return self._pauses.next_pause()

    def answered(self) -> None:
        self._pauses.reset()

    # -- commands ------------------------------------------------------------------------------------------

    def most_elements(self) -> int:
        """Return the number of elements that a job array may have.

        Raises:
            SubmissionRefused: there is no answer.
        """
        if self.most is None:
            query = self._site.array_limit
            reply = self._without_configuration() or self._run(query)
            if reply.code != 0:
                self._raise_if_absent(self._site.refusal(reply))
                raise SubmissionRefused("mistake" if reply.code in _NO_COMMAND else "silent", self._said(reply))
            self.most = query.read(reply.out)
        return self.most

    def _without_configuration(self) -> Reply | None:
        """Return the answer without a configuration at once, because commands without a configuration wait a minute."""
        needed = self._site.configuration(self._host.environment())
        return None if needed is None or self._host.exists(needed.path) else needed.reply

    def _raise_if_absent(self, refusal: Refusal) -> None:
        if refusal.absent:
            raise SubmissionRefused(refusal.kind, refusal.words, absent=refusal.absent)

    @property
    def texts(self) -> Scheduler:
        """The scheduler as text, of which nothing is asked."""
        return self._scheduler

    def submit(self, request: JobRequest) -> str:
        """Submit a job and return its ID; where elements are jobs of their own, as a `BatchPart` has them.

        Raises:
            SubmissionRefused: the job was not accepted; after "silent" it may have been accepted all the same.
        """
        query = self._scheduler.submit(request)
        reply = self._run(query)
        if reply.code == 0:
            self.answered()
            try:
                found = query.answer(reply.out)
                return str(found) if isinstance(found, JobId) else "".join(f"{job}," for job in found)
            except SchedulerError as error:  # accepted, but under an unknown name, to be looked up
                raise SubmissionRefused("silent", str(error)) from error
        refusal = self._site.refusal(reply)
        self._raise_if_absent(refusal)
        words = refusal.words
        if refusal.large:
            words += f"; it asks for {amounts(request.resources)}{self.largest(request.resources.partition)}"
        raise SubmissionRefused(refusal.kind, words, full=refusal.full)

    def largest(self, partition: str | None) -> str:
        """Return the end of a message: the most that nodes of a partition have; empty without an answer."""
        if partition not in self._largest:  # asked once, because many calls may be refused for the same reason
            self._largest[partition] = self._ask_largest(partition)
        return self._largest[partition]

    def _ask_largest(self, partition: str | None) -> str:
        if self._site.nodes is None:
            return ""
        query = self._site.nodes(partition)
        reply = self._ask(query)
        kinds = query.read(reply.out) if reply.code == 0 else ()
        if not kinds:
            return ""
        return (
            f", and of {sum(kind.nodes for kind in kinds)} nodes in its partition the largest have "
            f"{max(kind.cores for kind in kinds)} cores, {max(kind.memory for kind in kinds) / _GIB:.3g} GiB and "
            f"{max(kind.gpus for kind in kinds)} GPUs"
        )

    def failed_of(self, nodes: str) -> Sequence[str]:
        """Return those of the nodes of a job that have failed, as far as the scheduler says (`Status.failed_among`)."""
        if self._site.failed_of is None:
            return ()
        query = self._site.failed_of(nodes)
        reply = self._ask(query)
        return query.read(reply.out) if reply.code == 0 else ()

    def look_up(self, token: str) -> dict[str, str]:
        """Return the jobs of the submissions with tokens that begin with this one, by their tokens.

        Raises:
            SubmissionRefused: the scheduler is silent.
        """
        query = self._scheduler.find(token)
        reply = self._run(query)
        if reply.code != 0:
            raise SubmissionRefused("silent", self._said(reply))
        return {word: str(job) for word, job in query.answer(reply.out).items()}

    def statuses(self, jobs: Sequence[str]) -> dict[str, Status] | None:
        """Return the known states of these jobs and their elements; None if the scheduler does not answer."""
        query = self._scheduler.status(_ids(jobs))
        reply = self._ask(query)
        if reply.code != 0:
            _log.info("the scheduler does not answer: %s", self._said(reply))
            return None
        self.answered()
        return {str(job): status for job, status in query.answer(reply.out).items()}

    def times_left(self, jobs: Sequence[str]) -> dict[str, float]:
        """Return the remaining time of jobs (s), as far as the scheduler says."""
        if self._site.time_left is None:
            return {}
        query = self._site.time_left(_ids(jobs))
        reply = self._ask(query)
        return {str(job): left for job, left in query.answer(reply.out).items()} if reply.code == 0 else {}

    def history(self, jobs: Sequence[str]) -> dict[str, Status]:
        """Return the known states of jobs with an end long ago, from a cluster's history."""
        if self._site.history is None or not self._accounts or not jobs:
            return {}
        query = self._site.history(_ids(jobs))
        reply = self._ask(query)
        if reply.code != 0:
            self._accounts = self._site.refusal(reply).kind == "silent"  # otherwise never
            return {}
        return {str(job): status for job, status in query.answer(reply.out).items()}

    def cancel(self, jobs: Sequence[str]) -> None:
        for query in self._scheduler.cancel(_ids(jobs)):
            reply = self._run(query)
            if reply.code != 0 and not self._site.had_ended(reply):
                _log.warning("callyard: %s: %s", " ".join(query.argv[:2]), self._said(reply))


def _ids(jobs: Sequence[str]) -> list[JobId]:
    return list(map(JobId.parse, jobs))


def mistake(name: str, refused: SubmissionRefused) -> SchedulerError:
    """Return the error of a call with a job never to be accepted by the scheduler."""
    if refused.absent:
        return SchedulerError(f"{name!r} was not run: {refused.absent}: {refused.words}")
    return SchedulerError(f"the scheduler refuses the job of {name!r}: {refused.words}")


def client_of(scheduler: str) -> SchedulerClient:
    """Return the client of the named scheduler, on this machine."""
    opened = open_scheduler(scheduler)
    return SchedulerClient(opened, open_host(opened.site()), _FIRST_PAUSE)
