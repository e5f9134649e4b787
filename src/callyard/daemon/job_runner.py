"""The jobs of the daemon: their table, their files and their processes, kept in agreement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ..pool.call_shape import NodeCapacity
from ..schedulers.local.variables import JOB_VARIABLES
from ..system.machine import GPUS
from ..system.process_identity import this_process
from .job_files import JobFiles, StoredJobs
from .job_names import JobNames
from .job_processes import KeeperEnd, Keepers, end_processes_of
from .job_request import begin_of, need_of
from .job_table import Job, JobTable
from .keeper import CLAIMED, NO_ROOM, KeptJob
from .run_file import RunEnd, RunRecord, write_end

__all__ = ["JobRunner"]

_AGAIN = 5.0  # s before another attempt to start a job for which there was no room


class _Place(NamedTuple):
    """The place of a job among those of its submission."""

    stored: StoredJobs
    number: int

    @property
    def own(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.stored.asked["jobs"][self.number]
        return found


class JobRunner:
    """The jobs of one machine."""

    def __init__(
        self,
        files: JobFiles,
        keepers: Keepers,
        capacity: NodeCapacity,
        names: JobNames,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.table = JobTable(capacity)
        self._files, self._keepers, self._capacity, self._names = files, keepers, capacity, names
        self._clock = clock
        self._places: dict[str, _Place] = {}
        self._by_token: dict[str, str] = {}  # the names of jobs
        self._open: dict[str, int] = {}  # submissions, and how many of their jobs have not ended
        self._stored: dict[str, StoredJobs] = {}
        self._orders = 0

    # -- submissions ---------------------------------------------------------------------------------------

    def submit(self, asked: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
        """Add jobs, unless they were added before; return their IDs.

        Raises:
            OSError: there is no room to write them down.
            ValueError: the request makes no sense, or such jobs could never run here.
        """
        own = asked["jobs"]
        if all(each["token"] in self._by_token for each in own):  # the answer was lost
            return [self._by_token[each["token"]] for each in own]
        if why := self.table.placement.why_never(need_of(asked, self._capacity)):
            raise ValueError(why)
        for each in own:
            elsewhere = [name for name in each["after"] if self.is_elsewhere(name)]
            if elsewhere:
                raise ValueError(f"it waits for {elsewhere[0]}, a job of another machine: submit it there")
        now, ids = self._clock(), self._names.new(len(own))
        begin_of(asked, now)  # before it is written down: of a request without a meaning no daemon could go on
        stored = StoredJobs(own[0]["token"], now, ids, asked, environment, None)
        self._files.save(stored)
        self._open[stored.token] = len(ids)
        for job, each in zip(self._jobs(stored), own, strict=True):
            self.table.add(job, each["after"], now)
        return ids

    def _jobs(self, stored: StoredJobs) -> list[Job]:
        asked, jobs = stored.asked, list[Job]()
        self._stored[stored.token] = stored
        need, begin = need_of(asked, self._capacity), begin_of(asked, stored.created)
        for number, (name, own) in enumerate(zip(stored.ids, asked["jobs"], strict=True)):
            self._orders += 1
            jobs.append(Job(name, own["token"], self._orders, need, asked["priority"], own["lane"], begin))
            self._places[name] = _Place(stored, number)
            self._by_token[own["token"]] = name
        return jobs

    def find(self, token: str) -> list[Job]:
        """Return the jobs whose tokens are this one, or belong to it."""
        names = (name for word, name in self._by_token.items() if word == token or word.startswith(f"{token}."))
        return [self.table.jobs[name] for name in names]

    def is_elsewhere(self, name: str) -> bool:
        """Return True for the name of a job of another machine."""
        return name not in self.table.jobs and not self._names.is_own(name)

    def cancel(self, name: str) -> None:
        """End a job, and let it not begin if it waits."""
        job = self.table.jobs.get(name)
        if job is None or job.state == "ended":
            return
        job.cancelled = True
        place = self._places[name]
        with suppress(OSError):  # no room: a later daemon would not know
            self._files.cancel(place.stored.token, place.number)
        if job.state == "running":
            self._keepers.tell(name)
        else:
            self._ended(job, RunEnd("cancelled"))

    def forget_old(self) -> None:
        """Forget jobs that ended long ago."""
        for token in self._files.remove_old():
            stored = self._stored.pop(token, None)  # None for a folder that could not be removed the last time
            for name in () if stored is None else stored.ids:
                del self._by_token[self._places.pop(name).own["token"]]
                self.table.forget([name])

    # -- after an earlier daemon ---------------------------------------------------------------------------

    def load(self) -> None:
        """Go on with the jobs of an earlier daemon.

        Raises:
            OSError, ValueError: their files cannot be read.
        """
        waiting = [job for stored in self._files.load() for job in self._taken_over(stored)]
        for job in waiting:  # after all running ones, which have their resources already
            self.table.add(job, self._places[job.id].own["after"], self._clock())
        for token in list(self._open):
            self._close_if_over(token)

    def _taken_over(self, stored: StoredJobs) -> Iterator[Job]:
        """Take over the jobs of a submission; yield those that wait."""
        jobs = self._jobs(stored)
        if stored.ends is not None:
            for job, end in zip(jobs, stored.ends, strict=True):
                self._remember(job, end)
            return
        cancelled, lost = self._files.cancelled(stored.token), self._files.lost(stored.token)
        self._open[stored.token] = len(jobs)
        for number, job in enumerate(jobs):
            job.cancelled, job.attempt = number in cancelled, lost.get(number, 0)
            run = self._files.run(stored.token, number)
            if run is None and job.cancelled:
                self._remember(job, RunEnd("cancelled"))
            elif run is None or self._is_to_run_again(job, run):
                yield job
            else:
                self._go_on(job, run)

    def _is_to_run_again(self, job: Job, run: RunRecord) -> bool:
        """Return True for a job that was lost with the machine, and may be started again.

        The files are those of this machine, so a keeper of another boot is gone, whatever the machine's name was then.
        """
        stored, number = self._places[job.id]
        stopped = bool(run.keeper.boot) and run.keeper.boot != this_process().boot
        unfinished = run.end is None or run.end.why == "told"
        if not (stopped and unfinished and stored.asked["requeue"]) or job.cancelled:
            return False
        job.attempt += 1
        self._files.set_lost(stored.token, number, job.attempt)
        return True

    def _go_on(self, job: Job, run: RunRecord) -> None:
        state = run.keeper.state()
        if run.end is None and state == "alive":
            job.gpus = run.gpus
            self.table.add_running(job)
            self._keepers.adopt(job.id, run.keeper)
            if job.cancelled:
                self._keepers.tell(job.id)
            return
        stored, number = self._places[job.id]
        run = self._files.run(stored.token, number) or run  # the keeper may have ended only after the first look
        rebooted = run.keeper.boot != this_process().boot or state == "unknown"
        if run.end is None and not rebooted:
            end_processes_of(job.id)
        self._remember(job, run.end or RunEnd("rebooted" if rebooted else "killed"))

    def _remember(self, job: Job, end: RunEnd) -> None:
        """Note the end of a job that was never in the table of this daemon."""
        self.table.add_ended(job)
        job.why, job.code, job.signal = _meant(job, end)
        token = self._places[job.id].stored.token
        if token in self._open:
            self._open[token] -= 1

    # -- runs ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the jobs for which it is time."""
        while jobs := self.table.start(self._clock()):
            for job in jobs:
                try:
                    self._keepers.start(job.id, self._kept(job))
                except OSError as error:
                    self.table.put_back(job, f"no process can be started: {error}", self._clock() + _AGAIN)

    def _kept(self, job: Job) -> KeptJob:
        stored, number = self._places[job.id]
        own, limit = self._places[job.id].own, stored.asked["time"]
        variables = {
            **stored.environment,
            **dict.fromkeys(GPUS, ",".join(job.gpus)),
            JOB_VARIABLES.job: job.id,
            JOB_VARIABLES.restarts: str(job.attempt),
        }
        if own["element"] is not None:
            variables[JOB_VARIABLES.element] = str(own["element"])
        if limit is not None:
            variables[JOB_VARIABLES.ends] = str(int(self._clock() + limit))
        run_file = self._files.run_file(stored.token, number)
        return KeptJob(run_file, stored.asked["script"], own["log"], variables, job.gpus, limit, stored.asked["grace"])

    def patience(self) -> float | None:
        """Return the seconds until the next look at keepers; None where the system tells of each end."""
        return self._keepers.patience()

    def take_ends(self) -> None:
        """Note the ends of keepers and of their jobs."""
        for end in self._keepers.ends():
            self._keeper_ended(self.table.jobs[end.job], end)

    def _keeper_ended(self, job: Job, end: KeeperEnd) -> None:
        stored, number = self._places[job.id]
        run = self._files.run(stored.token, number)
        if end.code == CLAIMED and run is not None and run.end is None and run.keeper.state() == "alive":
            self.table.change_gpus(job, run.gpus)
            self._keepers.adopt(job.id, run.keeper)
        elif run is None and not job.cancelled and (end.code == NO_ROOM or (end.code or 0) < 0):
            self.table.put_back(job, "there is no room for its files or its process", self._clock() + _AGAIN)
        elif run is None or run.end is None:
            self._ended(job, self._clear_up(job, run))
        else:
            self._ended(job, run.end)

    def _clear_up(self, job: Job, run: RunRecord | None) -> RunEnd:
        """End what a killed keeper has left behind; return the end of the job."""
        stored, number = self._places[job.id]
        end_processes_of(job.id)
        if run is not None:
            with suppress(OSError):
                write_end(self._files.run_file(stored.token, number), RunEnd("killed"))
        return RunEnd("killed")

    def _ended(self, job: Job, end: RunEnd) -> None:
        why, code, signal = _meant(job, end)
        self.table.ended(job, why, self._clock(), code, signal)
        token = self._places[job.id].stored.token
        self._open[token] -= 1
        self._close_if_over(token)

    def _close_if_over(self, token: str) -> None:
        if self._open[token]:
            return
        del self._open[token]
        stored = self._stored[token]
        jobs = [self.table.jobs[name] for name in stored.ids]
        with suppress(OSError):  # no room: the files of the single jobs say the same
            self._files.close(token, [RunEnd(job.why, job.code, job.signal) for job in jobs])


def _meant(job: Job, end: RunEnd) -> RunEnd:
    """Return the end of a job with its reason: only the daemon knows who has told the job to end."""
    return end._replace(why="cancelled") if job.cancelled and end.why in ("told", "killed") else end
