"""The process of a job: it makes the calls of one element of a batch, one after the other.

    python -c "... main()" HOME TRUST TOKEN

This process keeps the limits and says how each call ended, so no code of the user's runs in it. Each call is made by
a fork: it looks for its inputs, makes the key if that had to wait for them, claims, runs and stores. What it prints is
the job's log.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the part in C: `signal` makes enumerations of it
import os
import select
import sys
import time

from ..cache.claims import Claim, Claims
from ..cache.directory import CacheDirectory
from ..errors import CacheError, CallyardError, OutOfMemory, SchedulerError, TimeLimitExceeded, VersionMismatch
from ..jobs.batch import CallFile
from ..jobs.spool import BatchDirectory, CallOutcome, CallStart
from ..schedulers.job_environment import current_job
from ..system.processes import (
    become_subreaper,
    children,
    default_signals,
    die_with_parent,
    end_children,
    exit_code,
    kill_group,
    reaped,
    status_of_ended,
    watch_end,
)
from ..utils.environment import NESTED, at_start, nested
from ..utils.lite_stdlib import TYPE_CHECKING, Iterator, NoReturn, suppress
from ..version import VERSION
from .current_call import running
from .job_call import make_call  # here, so that all calls of the job share what it loads
from .job_log import JobLog
from .job_outcome import UNWRITTEN, failed, job_id, node_name, printed, who, write_down
from .job_signals import JobSignals

if TYPE_CHECKING:
    from .limit_enforcement import Limits

_ENDS_APART = 2.0  # s at most between the signals to two processes of a job that is ended: a busy node is slow
_MOMENT = 0.2  # s between two beats, at the least
_BEAT = 15.0  # s at most between two beats
_UNKILLABLE = 5.0  # s after which what was killed and has not ended, deep in the kernel, is waited for no longer
_STOPPED = 128 + signal.SIGTERM  # exit status of a job that was told to end
_LOOKING = 0.05  # s between two looks at a process, where the system has no better way


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def main() -> None:
    """Make the calls; the exit status is 1 if one of them failed, which tells the scheduler what not to start."""
    path, trust, token = sys.argv[1:4]
    default_signals()
    become_subreaper()  # what a call leaves behind is to end with it
    folder = BatchDirectory(CacheDirectory.open(path, trust=trust or None), token)
    _start_afresh_with(folder.batch.environment)
    sys.argv[:] = [""]
    if folder.batch.python == _python():  # otherwise what is found there is for another one
        sys.path[:] = folder.batch.paths
    with suppress(OSError):  # it may be gone, or not be there; a call's own `cwd` is made
        os.chdir(folder.batch.cwd)
    os.umask(folder.batch.umask)
    job = Job(folder)
    job.signals.listen()
    signal.signal(signal.SIGCHLD, job.reap_others)
    ends = [job.make(number) for number in folder.batch.of_element(current_job().element)]
    done = all(end.state == "finished" for end in ends)
    os._exit(0 if done else job.exit_status)  # modules are not taken apart, which takes long


def _start_afresh_with(environment: dict[str, str]) -> None:
    """Set the variables of the calls; what the interpreter or the loader reads at its start needs a new one."""
    late = {name for name, value in environment.items() if at_start(name) and os.environ.get(name) != value}
    os.environ.update(environment)
    if late:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], dict(os.environ))


class Job:
    """The calls of one job, and the process of the one that runs."""

    def __init__(self, folder: BatchDirectory) -> None:
        self.folder = folder
        self.pid = 0  # of the call that runs
        self.runs: tuple[int, CallFile] | None = None  # that call
        self.signals = JobSignals()
        self.log = JobLog(folder.batch.log_limit)
        self.limits: Limits | None = None  # of the calls, if they have any
        self.attempt = 1  # of the call that runs, as far as it has asked for more
        self.several = folder.batch.calls_per_job > 1
        self.oom_kills = 0  # that were seen in this job
        self.exit_status = 1  # if a call has failed

    def make(self, number: int) -> CallOutcome:
        """Make one call and write down how it ended, unless that was done before this job was started again."""
        end = self.folder.ended(number)
        if end is None and self.signals.stopped:
            os._exit(_STOPPED)
        return end or self._make(number)

    def _make(self, number: int) -> CallOutcome:
        error = self._refusal(number)
        if error is None:
            call_file = CallFile.load(self.folder.call(number))
            reason, code = self._run(number, call_file)
            refused: CallyardError | None = None
            while self._asks_again(number, code):
                if (refused := self._restart(number)) is not None:
                    break
                reason, code = self._run(number, call_file)
            end = self.folder.ended(number)
            if refused is not None:
                end = self._write_down(number, failed(refused))
            if end is None or reason is not None or code:  # otherwise it has let go of it itself
                self._release_claim(number, call_file)
            if end is not None:
                return end
            if reason is None and self.signals.stopped:  # the scheduler knows why
                os._exit(_STOPPED)
            error = self._loss(number, call_file, reason, code)
        return self._write_down(number, failed(error))

    def _write_down(self, number: int, end: CallOutcome) -> CallOutcome:
        if not write_down(self.folder, number, end):
            self.exit_status = UNWRITTEN
        return end

    def _asks_again(self, number: int, code: int) -> bool:
        """Return whether the call has raised `Again`: it has written down the arguments, and no outcome."""
        if code or self.folder.ended(number) is not None:
            return False
        kept = self.folder.again(number)
        before, self.attempt = self.attempt, 1 if kept is None else kept.attempt
        return self.attempt > before

    def _restart(self, number: int) -> CallyardError | None:
        """Return if there is time for another attempt here; otherwise end this job, to be started again."""
        ends, now = current_job().ends, time.time()
        if not self.signals.stopped and self.signals.warned is None:
            return None
        from .job_again import expect_restart, requeue

        expect_restart(self.folder, number)
        if self.signals.stopped and (ends is None or now < ends):
            os._exit(_STOPPED)  # preempted: the scheduler starts it again; cancelled: it does not
        try:
            requeue()
        except (OSError, CallyardError) as error:
            return SchedulerError(
                f"{self._name(number)} asked to be run again, and {error}{printed(self.folder, number)}"
            )
        os._exit(_STOPPED)

    def _name(self, number: int) -> str:
        return who(self.folder.batch.calls[number].name)

    def _refusal(self, number: int) -> CallyardError | None:
        batch = self.folder.batch
        python = _python()
        if (batch.python, batch.callyard) != (python, VERSION):
            return VersionMismatch(
                f"{self._name(number)} finds Python {python} with callyard {VERSION} there, and was submitted from "
                f"Python {batch.python} with callyard {batch.callyard}: choose the same with python= and setup="
                f"{printed(self.folder, number)}"
            )
        restarts = current_job().restarts
        kept = self.folder.again(number) if restarts else None
        self.attempt = 1 if kept is None else kept.attempt
        restarts -= 0 if kept is None else kept.restarts
        # Slurm starts a job again, too, whose node was gone before it began there; then the call has not run.
        if restarts > batch.restart_limit and self.folder.begun(number) is not None:
            from ..errors import NodeFailure

            return NodeFailure(
                f"{self._name(number)} was started again {restarts} times, which is more than its restart_limit of "
                f"{batch.restart_limit}{printed(self.folder, number)}"
            )
        return None

    def _run(self, number: int, call_file: CallFile) -> tuple[str | None, int]:
        """Fork a process that makes the call; return why that was ended, if it was, and its exit code."""
        parent = os.getpid()
        self.runs = number, call_file
        self.log.open(self.folder.log(number) if self.several else None)
        deadline = None if call_file.run_time is None else time.monotonic() + call_file.run_time
        self.pid = self.signals.fork(call_file.options, call_file.run_time)
        if self.pid == 0:
            self._become_call(parent, number, call_file, deadline)
        if deadline is not None or call_file.memory is not None:
            self._limit(call_file, deadline)
        reason, code = self._wait()
        if reason is None and -code in (signal.SIGTERM, signal.SIGKILL):
            self.signals.await_stop(_ENDS_APART)  # the scheduler may have reached the call first, and knows why
        pid, self.pid = self.pid, 0
        self.signals.ended()
        end_children(_UNKILLABLE)
        self.log.drain()
        ended = None if self.limits is None else self.limits.ended(pid)
        return reason or ended or self._killed_for_memory(code), code

    def _limit(self, call_file: CallFile, deadline: float | None) -> None:
        """Keep the limits of the call that has just been started."""
        from .limit_enforcement import Limits

        self.limits = self.limits or Limits(os.getpid())
        self.limits.watch(self.pid, deadline, call_file.memory, "run_time")

    def _loss(self, number: int, call_file: CallFile, reason: str | None, code: int) -> CallyardError:
        """Return the error of a call whose process has ended without an outcome."""
        from ..system.exit_status import how_it_ended, too_long, too_much_memory  # here, because most calls end well

        name = self._name(number)
        if reason == "run_time":
            return TimeLimitExceeded(too_long(name, call_file.run_time or 0) + printed(self.folder, number))
        if reason == "memory":
            return OutOfMemory(too_much_memory(name, call_file.memory) + printed(self.folder, number))
        if code == UNWRITTEN:
            return CacheError(f"{name} could not write down how it ended{printed(self.folder, number)}")
        from ..errors import WorkerLost  # here, because it loads much, and a call that goes well needs none of it

        error = WorkerLost(f"{name} lost its process, which {how_it_ended(code)}{printed(self.folder, number)}")
        error.exitcode = code
        return error

    def _become_call(self, parent: int, number: int, call_file: CallFile, deadline: float | None) -> NoReturn:
        os.setsid()
        die_with_parent(parent)
        running.attempt = self.attempt
        running.listen_in_job(call_file.options, deadline, current_job().ends, self.signals.warned)
        self.log.enter()
        os.environ.update({"CALLYARD_JOB": job_id(), NESTED: str(nested(os.environ) + 1)})
        make_call(
            self.folder, number, call_file, CallStart(job_id(), node_name(), call_file.order.key, _beat_of(call_file))
        )
        raise AssertionError("a call leaves by itself")  # pragma: no cover

    def _wait(self) -> tuple[str | None, int]:
        """Wait until the call's process has ended; return why it was ended, if it was, and its exit code."""
        reason, beats, until = None, self._beats(), float("inf")
        descriptor = watch_end(self.pid)
        watched = [] if descriptor is None else [descriptor]
        while (status := status_of_ended(self.pid)) is None and time.monotonic() < until:
            now = time.monotonic()
            limit = None if self.limits is None else self.limits.patience(now)
            due = self.signals.next_at
            patience = min(next(beats), until - now, until if limit is None else limit)
            patience = min(patience, self.log.patience(now), float("inf") if due is None else max(0.0, due - now))
            ready = [*watched, self.signals.wakes, *self.log.descriptors(now)]
            select.select(ready, [], [], patience if watched else min(_LOOKING, patience))
            self.signals.drain()
            self.log.copy()
            now = time.monotonic()
            for why in () if self.limits is None else self.limits.exceeded(now).values():
                reason = reason or why
                if why == "memory":  # which it would go on taking meanwhile
                    until = self._kill_call(now)
                else:
                    self.signals.announce(now)
            for signum in self.signals.due(now):
                if signum == signal.SIGKILL:
                    until = self._kill_call(now)
                else:
                    self.signals.send(signum)
        if descriptor is not None:
            os.close(descriptor)
        return reason, -signal.SIGKILL if status is None else exit_code(status)

    def _kill_call(self, now: float) -> float:
        """Kill the call and its group; return when it is waited for no longer."""
        kill_group(self.pid, signal.SIGKILL)
        return now + _UNKILLABLE

    def reap_others(self, signum: int, frame: object) -> None:
        """Reap processes that a call has left behind: they are children of this one, and nobody else waits for them."""
        if self.pid:  # else it is just being forked, or all are being ended
            for pid in children():
                if pid != self.pid:
                    reaped(pid)

    def _beats(self) -> Iterator[float]:
        """Beat when it is time, and yield the s until the next: it shows that the call runs if the scheduler cannot."""
        assert self.runs is not None
        number, call_file = self.runs
        at = time.monotonic() + _beat_of(call_file)
        while True:
            now = time.monotonic()
            if now >= at:
                self._beat(number, call_file)
                at = now + _beat_of(call_file)
            yield at - now

    def _beat(self, number: int, call_file: CallFile) -> None:
        self.folder.beat(number)
        if call_file.private:  # nobody else waits for its claim
            return
        with suppress(OSError, CallyardError):
            begun = self.folder.begun(number)
            if begun is not None and begun.key:
                Claims(CacheDirectory.open(call_file.order.directory, trust=call_file.order.trust)).beat(
                    begun.key, begun.job
                )

    def _release_claim(self, number: int, call_file: CallFile) -> None:
        """Release the claim of a call whose process was ended: only on this node that can be proven gone."""
        if call_file.private:  # its directory may be removed just now, and must not be made again
            return
        begun = self.folder.begun(number)
        key = call_file.order.key if begun is None else begun.key
        with suppress(OSError, CallyardError):
            claims = Claims(CacheDirectory.open(call_file.order.directory, trust=call_file.order.trust))
            holder = claims.holder(key) if key else None
            if holder is not None and holder.state() == "gone":
                claim = claims.take(key, "release")
                if isinstance(claim, Claim):
                    claim.release()

    def _killed_for_memory(self, code: int) -> str | None:
        """Return whether the kernel killed a process of the job for memory: the scheduler may keep it in a cgroup."""
        if code != -signal.SIGKILL:
            return None
        from ..system.memory_control import oom_kills_within

        before, self.oom_kills = self.oom_kills, oom_kills_within(current_job().cgroup)
        return "memory" if self.oom_kills > before else None


def _beat_of(call_file: CallFile) -> float:
    return min(_BEAT, max(_MOMENT, call_file.wait / 4))
