"""Where a scheduler is spoken to: few commands, each with a time limit, and slower when it does not answer."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from threading import Event
from typing import Any

from ...errors import SchedulerError
from ...schedulers.base import JobRequest, Reply, Status

__all__ = ["SchedulerClient", "SubmissionRefused", "desk_of"]

_log = logging.getLogger("callyard")
_PATIENCE = 60.0  # s that a command may take
_SLOWER = 2.0  # after each time that it did not answer, or refused for a limit
_FIRST_PAUSE = 5.0  # s
_LATEST = 300.0  # s between two attempts
_NO_COMMAND = (126, 127)  # what `Reply` has then; no pause will bring it


class SubmissionRefused(Exception):  # not a failure of ours: the scheduler said no
    """The scheduler did not take a job: "limit", "silent" or "mistake", in its own words.

    `full`: it named a limit on how many jobs there may be, even if it was silent in the end. `absent`: that
    there is no scheduler; the words then say what to do.
    """

    def __init__(self, kind: str, words: str, *, full: bool = False, absent: str = "") -> None:
        super().__init__(f"{absent}: {words}" if absent else words)
        self.kind, self.words, self.full, self.absent = kind, words, full, absent


class SchedulerClient:
    """One scheduler, on one machine."""

    def __init__(self, dialect: Any, host: Any, pause: float) -> None:
        self.dialect, self._host = dialect, host
        self._first_pause = self._pause = pause
        self.most: int | None = None  # elements of an array, once that is known
        self._accounts = True  # whether the scheduler keeps a history, as far as is known
        self._no_questions = Event()

    def _run(self, argv: Sequence[str], stop: Event | None = None) -> Reply:
        environment = self.dialect.environment(os.environ)
        reply: Reply = self._host.run(argv, timeout=_PATIENCE, env=environment, stop=stop)
        return reply

    def _ask(self, argv: Sequence[str]) -> Reply:
        """A question whose answer only tells how far jobs are."""
        if self._no_questions.is_set():
            return Reply(None, "", "it is not asked any more")
        return self._run(argv, self._no_questions)

    def stop_asking(self) -> None:
        """At the end: do not wait for an answer to any question of how far jobs are."""
        self._no_questions.set()

    def _said(self, reply: Reply) -> str:
        return (reply.err.strip() or reply.out.strip() or "it did not answer").splitlines()[0]

    # -- how soon it may be asked again ------------------------------------------------------------------

    def pause(self) -> float:
        """S after which the next attempt may be made: longer each time, until one succeeds."""
        pause, self._pause = self._pause, min(self._pause * _SLOWER, _LATEST)
        return pause

    def answered(self) -> None:
        self._pause = self._first_pause

    # -- what is asked -------------------------------------------------------------------------------------

    def most_elements(self) -> int:
        """How many elements a job array may have."""
        if self.most is None:
            reply = self._without_configuration() or self._run(self.dialect.limits())
            self._check_presence(reply)
            if reply.code != 0:
                raise SubmissionRefused("mistake" if reply.code in _NO_COMMAND else "silent", self._said(reply))
            self.most = int(self.dialect.max_array_size(reply.out))
        return self.most

    def _without_configuration(self) -> Reply | None:
        """What it comes to in the end, where the configuration is not there: its commands wait a minute for that."""
        path = self.dialect.configuration(os.environ)
        return (
            None
            if path is None or os.path.exists(path)
            else Reply(1, "", f"{self.dialect.limits()[0]}: cannot stat file {path!r}")
        )

    def _check_presence(self, reply: Reply) -> None:
        absent = self.dialect.why_absent(reply)
        if absent is not None:
            raise SubmissionRefused("mistake", absent[1], absent=absent[0])

    def submit(self, request: JobRequest) -> str:
        """The scheduler's name of the job. Raises Refused; after "silent" it may have been taken all the same."""
        reply = self._run(self.dialect.submit(request))
        if reply.code == 0:
            self.answered()
            try:
                return str(self.dialect.submitted(reply.out))
            except SchedulerError as error:  # it was taken, but under which name has to be looked up
                raise SubmissionRefused("silent", str(error)) from error
        self._check_presence(reply)
        refusal = self.dialect.refusal(reply)
        raise SubmissionRefused(refusal.kind, refusal.words, full=self.dialect.is_full(refusal))

    def look_up(self, token: str) -> dict[str, str]:
        """The jobs with words in their comments that begin with this token. Raises Refused where it is silent."""
        reply = self._run(self.dialect.find(token))
        if reply.code != 0:
            raise SubmissionRefused("silent", self._said(reply))
        found: dict[str, str] = self.dialect.found(reply.out, token)
        return found

    def statuses(self, jobs: Sequence[str]) -> dict[str, Status] | None:
        """What is known of these jobs and their elements; None where the scheduler does not answer."""
        reply = self._ask(self.dialect.status(jobs))
        if reply.code != 0:
            _log.info("the scheduler does not answer: %s", self._said(reply))
            return None
        self.answered()
        found: dict[str, Status] = self.dialect.statuses(reply.out)
        return found

    def times_left(self, jobs: Sequence[str]) -> dict[str, float]:
        """For how many s these jobs may go on, as far as the scheduler says."""
        reply = self._ask(self.dialect.time_left(jobs))
        found: dict[str, float] = self.dialect.times_left(reply.out) if reply.code == 0 else {}
        return found

    def history(self, jobs: Sequence[str]) -> dict[str, Status]:
        """What is known of jobs that have ended long ago, where somebody keeps that."""
        if not self._accounts or not jobs:
            return {}
        reply = self._ask(self.dialect.history(jobs))
        if reply.code != 0:
            self._accounts = self.dialect.refusal(reply).kind == "silent"  # otherwise it is not going to
            return {}
        found: dict[str, Status] = self.dialect.histories(reply.out)
        return found

    def cancel(self, jobs: Sequence[str]) -> None:
        for argv in self.dialect.cancel(jobs):
            reply = self._run(argv)
            if reply.code != 0:
                _log.warning("callyard: %s: %s", " ".join(argv[:2]), self._said(reply))


def mistake(name: str, refused: SubmissionRefused) -> SchedulerError:
    if refused.absent:
        return SchedulerError(f"{refused.absent} to run {name!r}: {refused.words}")
    return SchedulerError(f"the scheduler refuses the job of {name!r}: {refused.words}")


def desk_of(scheduler: str) -> SchedulerClient:
    """The scheduler of that name, on this machine."""
    from ...hosts.this_machine import LocalHost
    from ...schedulers.slurm import commands

    if scheduler != "Slurm":
        raise SchedulerError(f"this version of Callyard does not speak with the scheduler {scheduler!r}")
    return SchedulerClient(commands, LocalHost(), _FIRST_PAUSE)
