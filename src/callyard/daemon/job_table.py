"""The daemon's jobs and their states: which of them may start, without processes, files or a clock of its own.

    waits for other jobs -> waits for its time -> waits for its turn in a lane -> waits for room -> runs -> has ended

A job that is cancelled goes from any of these places to the end. `JobPlacement` decides about room.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Literal

from ..pool.call_shape import NodeCapacity
from .job_placement import JobNeed, JobPlacement

__all__ = ["Job", "JobState", "JobTable"]

JobState = Literal["waiting", "running", "ended"]


class Job:
    """A job.

    Attributes:
        id: its name in the world.
        token: the word by which its submitter finds it.
        order: the number of its submission.
        lane: the name of a lane, in which one job runs at a time; None for no lane.
        begin: the earliest start (s since 1970).
        why: why it waits, or how it ended, as a word of `schedulers/local/states`.
        words: more about `why`, for people.
        attempt: how often it was started before and lost.
        cancelled: True once its end was asked for.
        code: the exit code of its script, if it has ended by itself.
        signal: the signal that has ended its script, if one has.
        gpus: the GPUs given to it.
    """

    __slots__ = (
        *("attempt", "begin", "cancelled", "code", "gpus", "holds_lane", "id", "lane", "missing", "need", "order"),
        *("priority", "signal", "state", "token", "why", "words"),
    )

    def __init__(
        self,
        id: str,  # noqa: A002
        token: str,
        order: int,
        need: JobNeed,
        priority: int = 0,
        lane: str | None = None,
        begin: float = 0.0,
    ) -> None:
        self.id, self.token, self.order, self.need, self.priority = id, token, order, need, priority
        self.lane, self.begin = lane, begin
        self.state: JobState = "waiting"
        self.why, self.words = "", ""
        self.attempt = 0
        self.missing = 0  # jobs that must end first
        self.holds_lane = self.cancelled = False
        self.code: int | None = None
        self.signal: int | None = None
        self.gpus: tuple[str, ...] = ()

    def abandoned(self) -> bool:
        """Return True if it is not to be started any more."""
        return self.state != "waiting"


class JobTable:
    """All jobs that are known."""

    def __init__(self, capacity: NodeCapacity) -> None:
        self.jobs: dict[str, Job] = {}
        self.placement: JobPlacement[Job] = JobPlacement(capacity)
        self.busy = 0  # jobs that have not ended
        self._dependents: dict[str, list[Job]] = {}
        self._lanes: dict[str, list[tuple[int, int, Job]]] = {}  # the jobs that wait for each lane in use
        self._later: list[tuple[float, int, Job]] = []  # those that wait for their time

    def add(self, job: Job, after: Iterable[str], now: float) -> None:
        """Add a waiting job, to be started after the ends of other jobs; unknown ones count as ended."""
        self.jobs[job.id] = job
        self.busy += 1
        others = [other for name in set(after) if (other := self.jobs.get(name)) and other.state != "ended"]
        job.missing = len(others)
        for other in others:
            self._dependents.setdefault(other.id, []).append(job)
        self._move_on(job, now)

    def add_running(self, job: Job) -> None:
        """Add a job that runs already; its `gpus` and `attempt` are set."""
        self.jobs[job.id] = job
        self.busy += 1
        job.state, job.why = "running", ""
        if job.lane is not None:
            self._lanes.setdefault(job.lane, [])
            job.holds_lane = True
        self.placement.occupy(job)

    def add_ended(self, job: Job) -> None:
        """Add a job that is remembered only."""
        self.jobs[job.id] = job
        job.state = "ended"

    def forget(self, names: Iterable[str]) -> None:
        """Forget jobs that have ended."""
        for name in names:
            if (job := self.jobs.get(name)) is not None and job.state == "ended":
                del self.jobs[name]

    def _move_on(self, job: Job, now: float) -> None:
        """Move a waiting job to its next place."""
        if job.missing:
            job.why = "jobs"
        elif job.begin > now:
            job.why = job.why if job.why == "start" else "begin"
            heappush(self._later, (job.begin, job.order, job))
        elif job.lane is not None and not job.holds_lane and job.lane in self._lanes:
            job.why = "turn"
            heappush(self._lanes[job.lane], (-job.priority, job.order, job))
        else:
            if job.lane is not None and not job.holds_lane:
                self._lanes[job.lane] = []
                job.holds_lane = True
            job.why = "room"
            self.placement.add(job)

    def change_gpus(self, job: Job, gpus: tuple[str, ...]) -> None:
        """Note that a running job has other GPUs than those given to it: an earlier daemon has started it."""
        self.placement.vacate(job)
        job.gpus = gpus
        self.placement.occupy(job)

    def put_back(self, job: Job, words: str, begin: float) -> None:
        """Let a job that could not be started wait until `begin` (s since 1970); `words` say why."""
        self.placement.vacate(job)
        job.state, job.why, job.words, job.begin, job.gpus = "waiting", "start", words, begin, ()
        heappush(self._later, (begin, job.order, job))

    def ended(self, job: Job, why: str, now: float, code: int | None = None, signal: int | None = None) -> None:
        """Note the end of a waiting or running job, and let others move on."""
        if job.state == "ended":
            return
        if job.state == "running":
            self.placement.vacate(job)
        job.state, job.why, job.words, job.code, job.signal, job.gpus = "ended", why, "", code, signal, ()
        self.busy -= 1
        if job.holds_lane:
            self._free_lane(job, now)
        for other in self._dependents.pop(job.id, ()):
            other.missing -= 1
            if not other.missing and other.state == "waiting":
                self._move_on(other, now)

    def _free_lane(self, job: Job, now: float) -> None:
        assert job.lane is not None
        job.holds_lane = False
        waiting = self._lanes.pop(job.lane)
        while waiting:
            _, _, other = heappop(waiting)
            if other.state == "waiting":
                self._lanes[job.lane] = waiting
                other.holds_lane = True
                self._move_on(other, now)
                return

    def start(self, now: float) -> list[Job]:
        """Return the jobs to start now; they count as running, with GPUs of their own."""
        while self._later and self._later[0][0] <= now:
            _, _, job = heappop(self._later)
            if job.state == "waiting":
                self._move_on(job, now)
        placed = self.placement.place()
        for job in placed:
            job.state, job.why, job.words = "running", "", ""
        return placed

    def due(self) -> float | None:
        """Return the time (s since 1970) of the next start that waits for its time; None if there is none."""
        while self._later and self._later[0][2].state != "waiting":
            heappop(self._later)
        return self._later[0][0] if self._later else None
