"""The process of a job: the calls of one element of a batch, one after the other.

    python -c "... main()" HOME TRUST TOKEN

This process keeps the limits and writes down the end of each call, so no code of the user's runs in it. A fork makes
each call: it finds the inputs, makes the key if that depends on inputs, claims the key, runs and stores. Its output is
the job's log.
"""

from __future__ import annotations

import os
import select
import sys
import time

from ..cache.claims import Claim, Claims
from ..cache.directory import CacheDirectory
from ..errors import CallyardError, SchedulerError, VersionMismatch
from ..jobs.batch import CallFile, CallOutcome, CallStart
from ..jobs.call_files import CallFiles
from ..schedulers.job_environment import current_job
from ..system.process_title import set_title
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
from ..system.run_clock import LOOK, RunClock, StoppedTime
from ..utils.environment import NESTED, at_start, nested
from ..utils.lite_stdlib import TYPE_CHECKING, Iterator, NoReturn, signal, suppress
from ..version import VERSION
from .current_call import running
from .job_call import load_for, make_call  # here, so that all calls of the job share the loaded modules
from .job_log import JobLog
from .job_outcome import (
    UNWRITTEN,
    error_of_loss,
    failed,
    job_id,
    moves_on,
    node_name,
    printed,
    who,
    write_down,
)
from .job_signals import JobSignals
from .usage_meter import UsageMeter

if TYPE_CHECKING:
    from ..events.usage import Usage
    from ..jobs.batch import CallAgain
    from ..system.memory_control import OomKills
    from .limit_enforcement import Limits

_ENDS_APART = 2.0  # s at most between the signals to two processes of a job that is ended: a busy node is slow
_MOMENT = 0.2  # s between two beats, at least
_BEAT = 15.0  # s at most between two beats
_UNKILLABLE = 5.0  # s to wait for the end of a killed process, which may be deep in the kernel
_STOPPED = 128 + signal.SIGTERM  # exit status of a job that was told to end
_LOOKING = 0.05  # s between two looks at a process, on systems without a better way


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def main() -> None:
    """Make the calls; exit with 1 if a call failed, so that the scheduler does not start dependent jobs."""
    path, trust, token = sys.argv[1:4]
    default_signals()
    become_subreaper()  # processes that a call leaves behind end with the call
    folder = CallFiles(CacheDirectory.open(path, trust=trust or None), token)
    _start_afresh_with(folder.batch.environment)
    sys.argv[:] = [""]
    numbers = folder.batch.of_element(current_job().element)
    set_title("job", folder.batch.calls[numbers[0]].name)
    if folder.batch.python == _python():  # otherwise its paths are for another version
        sys.path[:] = folder.batch.paths
    with suppress(OSError):  # the directory may be gone, or not exist here; a call's own `cwd` is made
        os.chdir(folder.batch.cwd)
    os.umask(folder.batch.umask)
    job = Job(folder)
    job.signals.listen()
    signal.signal(signal.SIGCHLD, job.reap_others)
    ends = [job.make(number) for number in numbers]
    done = all(end.state == "finished" for end in ends)
    os._exit(0 if done else job.exit_status)  # without the teardown of modules, which takes long


def _start_afresh_with(environment: dict[str, str]) -> None:
    """Set the variables of the calls; with one that counts only at the start of a process, start a new interpreter."""
    late = {name for name, value in environment.items() if at_start(name) and os.environ.get(name) != value}
    os.environ.update(environment)
    if late:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], dict(os.environ))


class Job:
    """The calls of one job, and the process of the running one."""

    def __init__(self, folder: CallFiles) -> None:
        self.folder = folder
        self._process = os.getpid()
        self.pid = 0  # of the running call's process
        self.runs: tuple[int, CallFile] | None = None  # the running call
        self.clock = RunClock()
        self.stopped: StoppedTime | None = None  # of the running call, if its time or the job's is limited
        self.signals = JobSignals(self.clock, self._note_stop)
        self.limits: Limits | None = None  # of the calls, if they have any
        self.meter: UsageMeter | None = None  # of the running call, for one that does not tell its usage itself
        self.attempt = 1  # of the running call, as far as it has asked for more
        self.losses = 0  # of the running call
        self.several = folder.batch.calls_per_job > 1
        self.log = JobLog(folder.batch.log_limit)
        self.exit_status = 1  # if a call has failed
        self.oom_kills: OomKills | None = None  # of this job, once one may have ended a call

    def _note_stop(self) -> None:
        with suppress(OSError):
            self.folder.stop(current_job().element)

    def make(self, number: int) -> CallOutcome:
        """Make one call and write down its end, unless an earlier start of this job has done so."""
        try:
            end = self.folder.ended(number)
            if end is None and self.signals.stopped:
                os._exit(_STOPPED)
            if end is None and current_job().restarts is None and self.folder.begun(number) is not None:
                from .earlier_start import outcome_of_earlier_start  # here, because few jobs start twice

                end = outcome_of_earlier_start(self.folder, number)
            return end or self._make(number)
        except (OSError, CallyardError) as error:  # of this call alone: the other calls of the job run
            return self._fault(number, error)

    def _fault(self, number: int, error: OSError | CallyardError) -> CallOutcome:
        """End a call that cannot be made here; in the call's own process, end that process."""
        if self.pid:
            self._kill_call(0.0)
            self.pid = 0
            self.signals.ended()
            end_children(_UNKILLABLE)
        name = self._name(number)
        outcome = failed(type(error)(f"{name} cannot be run on {node_name()}: {error}{printed(self.folder, number)}"))
        with suppress(OSError, CallyardError):
            written = self.folder.ended(number)  # perhaps the call has ended well, and only a later step failed
            outcome = written or self._write_down(number, outcome)
            if self.runs is not None and self.runs[0] == number:
                self._release_claim(*self.runs)
        if os.getpid() != self._process:
            os._exit(self.exit_status)
        return outcome

    def _make(self, number: int) -> CallOutcome:
        self.meter = None
        error = self._refusal(number)
        if error is None:
            call_file = CallFile.load(self.folder.call(number))
            load_for(call_file)
            reason, code = self._run(number, call_file)
            end = self.folder.ended(number)
            while end is None:
                losses = self.losses
                if not self._asks_again(number, code) and (
                    reason is not None or not self._makes_up(number, call_file, code)
                ):
                    break
                lost = self.losses > losses
                if self._goes_on_here(number, (call_file.run_time or 0.0) if lost else 0.0, lost):
                    reason, code = self._run(number, call_file)
                end = self.folder.ended(number)
            if end is None or reason is not None or code:  # otherwise the call has released the claim itself
                self._release_claim(number, call_file)
            if end is not None:
                return end
            if reason is None and self.signals.stopped:  # the scheduler knows the reason
                os._exit(_STOPPED)
            error = error_of_loss(self.folder, number, call_file, reason, code, self.attempt)
            if moves_on(self.folder, number, error) and (end := self.folder.ended(number)) is not None:
                return end
        return self._write_down(number, failed(error, usage=self._usage()).replace(attempts=self.attempt))

    def _write_down(self, number: int, end: CallOutcome) -> CallOutcome:
        if not write_down(self.folder, number, end):
            self.exit_status = UNWRITTEN
        return end

    def _asks_again(self, number: int, code: int) -> bool:
        """Return True if a call without an outcome has written down its next attempt: after `Again`, or a lost rank."""
        if code:
            return False
        before = self.attempt
        self._read_attempt(number)
        return self.attempt > before

    def _read_attempt(self, number: int) -> CallAgain | None:
        kept = self.folder.again(number)
        self.attempt, self.losses = (1, 0) if kept is None else (kept.attempt, kept.losses)
        return kept

    def _makes_up(self, number: int, call_file: CallFile, code: int) -> bool:
        """Return True if a call that has lost its process runs again, as its `restart_limit` says."""
        if code == UNWRITTEN or self.signals.stopped or self.folder.batch.restart_limit == 0:
            return False
        from .job_again import keep_loss  # here, because most calls end well

        if not keep_loss(self.folder, number, self.attempt):
            return False
        self._release_claim(number, call_file)
        self.attempt, self.losses = self.attempt + 1, self.losses + 1
        return True

    def _goes_on_here(self, number: int, least: float, lost: bool) -> bool:
        """Return True if `least` seconds are left for another attempt here; else ask for a new start, and end this job.

        If the scheduler refuses, the call goes on in a job of its own, which others submit. Return False then; the
        outcome is written. `lost`: the call has lost a process, rather than asked for the attempt.
        """
        ends, now = current_job().ends, time.time()
        if not self.signals.stopped and self.signals.warned is None and (ends is None or now + least <= ends):
            return True
        from .job_again import expect_restart, requeue

        expect_restart(self.folder, number)
        if self.signals.stopped and (ends is None or now < ends):
            os._exit(_STOPPED)  # preempted: the scheduler starts the job again; cancelled: no start
        try:
            requeue()
        except (OSError, CallyardError) as error:
            from ..jobs.spool import BatchDirectory
            from ..jobs.successor import move_to_successor

            if not move_to_successor(BatchDirectory(self.folder.home, self.folder.token), number):
                why = "lost a process and was to be run again" if lost else "asked to be run again"
                words = f"{self._name(number)} {why}, and {error}{printed(self.folder, number)}"
                self._write_down(number, failed(SchedulerError(words)))
            return False
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
        kept = self._read_attempt(number)
        if not current_job().restarts or self.folder.begun(number) is None:
            # Slurm also starts a job again whose node was gone before the job began there; then the call has not run.
            return None
        from ..errors import NodeFailure
        from .job_again import keep_restarts, losses

        if (lost := losses(kept)) > batch.restart_limit:
            times = "once" if lost == 1 else f"{lost} times"
            return NodeFailure(
                f"{self._name(number)} was lost {times}, which is more than its restart_limit of "
                f"{batch.restart_limit}{printed(self.folder, number)}"
            )
        if lost > self.losses:
            keep_restarts(self.folder, number, self.attempt)
            self.losses = lost
        return None

    def _run(self, number: int, call_file: CallFile) -> tuple[str | None, int]:
        """Fork a process for the call; return the reason if it was ended here, and the exit code."""
        parent = os.getpid()
        self.runs = number, call_file
        self.log.open(self.folder.log(number) if self.several else None)
        now = self.clock()
        deadline = None if call_file.run_time is None else now + call_file.run_time
        if deadline is not None or current_job().ends is not None:
            self._share_clock()
        self.meter = UsageMeter(counted=self._counted_memory)
        self.pid = self.signals.fork(call_file.options, call_file.run_time)
        if self.pid == 0:
            self._become_call(parent, number, call_file, None if deadline is None else deadline + self.clock.lag)
        if deadline is not None or call_file.memory is not None:
            self._limit(call_file, deadline)
        reason, code = self._wait()
        if reason is None and code == -signal.SIGTERM and deadline is not None and self.clock() >= deadline:
            reason = "run_time"  # the call has ended itself at its deadline, before the look at the limits
        if reason is None and -code in (signal.SIGTERM, signal.SIGKILL):
            # The scheduler may have signalled the call first, and knows the reason.
            self.signals.await_stop(_ENDS_APART)
        pid, self.pid = self.pid, 0
        self.signals.ended()
        end_children(_UNKILLABLE)
        self.log.drain()
        ended = None if self.limits is None else self.limits.ended(pid)
        self.meter.stop()
        return reason or ended or self._killed_for_memory(code), code

    def _usage(self) -> Usage | None:
        return None if self.meter is None else self.meter.usage()

    def _counted_memory(self) -> int:
        return 0 if self.limits is None else max(self.limits.counted().values(), default=0)

    def _share_clock(self) -> None:
        """Share the sum of the stops with the call about to begin."""
        if self.stopped is None:
            import mmap  # here, because few schedulers say nothing of the end of a job

            self.stopped = StoppedTime(mmap.mmap(-1, StoppedTime.SIZE))
        self.stopped.begin(self.clock)

    def _limit(self, call_file: CallFile, deadline: float | None) -> None:
        """Keep the limits of the call that has just been started."""
        from .limit_enforcement import Limits

        self.limits = self.limits or Limits(os.getpid())
        self.limits.watch(self.pid, deadline, call_file.memory, "run_time")

    def _become_call(self, parent: int, number: int, call_file: CallFile, deadline: float | None) -> NoReturn:
        os.setsid()
        die_with_parent(parent)
        running.attempt = self.attempt
        running.listen_in_job(call_file.options, deadline, current_job().ends, self.signals.warned, self.stopped)
        self.log.enter()
        os.environ.update({"CALLYARD_JOB": job_id(), NESTED: str(nested(os.environ) + 1)})
        make_call(
            self.folder, number, call_file, CallStart(job_id(), node_name(), call_file.order.key, _beat_of(call_file))
        )
        raise AssertionError("a call leaves by itself")  # pragma: no cover

    def _wait(self) -> tuple[str | None, int]:
        """Wait for the end of the call's process; return the reason if it was ended here, and the exit code."""
        reason, beats, until = None, self._beats(), float("inf")
        descriptor = watch_end(self.pid)
        watched = [] if descriptor is None else [descriptor]
        while (status := status_of_ended(self.pid)) is None and (now := self.clock()) < until:
            limit = None if self.limits is None else self.limits.patience(now)
            patience = min(next(beats), until - now, until if limit is None else limit, self._next_look(now, until))
            patience = min(patience, self.log.patience())
            ready = [*watched, self.signals.wakes, *self.log.descriptors()]
            select.select(ready, [], [], patience if watched else min(_LOOKING, patience))
            self.signals.drain()
            self.log.copy()
            now = self.clock()
            if self.stopped is not None:
                self.stopped.note(self.clock)
            for why in () if self.limits is None else self.limits.exceeded(now).values():
                reason = reason or why
                if why == "memory":  # SIGTERM would leave it time to take even more
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

    def _next_look(self, now: float, until: float) -> float:
        """Return the seconds to the next reading of the clock, which counts only short times between two readings."""
        due = self.signals.next_at
        if self.stopped is None and due is None and until == float("inf"):
            return until
        return LOOK if due is None else max(0.0, min(LOOK, due - now))

    def _kill_call(self, now: float) -> float:
        """Kill the call and its group; return the latest time to wait for the end."""
        kill_group(self.pid, signal.SIGKILL)
        return now + _UNKILLABLE

    def reap_others(self, signum: int, frame: object) -> None:
        """Reap processes left behind by a call, which are children of this process now."""
        if self.pid:  # otherwise a fork is under way, or `end_children` reaps
            for pid in children():
                if pid != self.pid:
                    reaped(pid)

    def _beats(self) -> Iterator[float]:
        """Beat when it is time, and yield the seconds to the next beat: a sign of life, if the scheduler gives none."""
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
        if call_file.private:  # no other process waits for its claim
            return
        with suppress(OSError, CallyardError):
            begun = self.folder.begun(number)
            if begun is not None and begun.key:
                Claims(CacheDirectory.open(call_file.order.directory, trust=call_file.order.trust)).beat(
                    begun.key, begun.job
                )

    def _release_claim(self, number: int, call_file: CallFile) -> None:
        """Release the claim of a call whose process was ended: only on this node the end can be proved."""
        if call_file.private:  # its directory may be in removal, and must not be made again
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
        """Return "memory" if the kernel killed a process of the job for memory, perhaps by the scheduler's cgroup."""
        if code != -signal.SIGKILL:
            return None
        from ..system.memory_control import OomKills  # here, because few calls end so

        if not current_job().cgroup:
            return None
        self.oom_kills = self.oom_kills or OomKills(current_job().cgroup, explained=0)
        return "memory" if self.oom_kills.explain_one() else None


def _beat_of(call_file: CallFile) -> float:
    return min(_BEAT, max(_MOMENT, call_file.wait / 4))
