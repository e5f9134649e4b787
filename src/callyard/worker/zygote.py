"""The zygote: the process that forks the workers of one node, watches over them, and ends them after the driver's end.

It is started once, imports modules for all workers and nothing of the user's, has one thread, and forks a worker in a
millisecond or two. Being beside the workers and free of user code, the zygote also keeps their limits: a slow callback
in the driver delays no time limit.

All ends are watched twice. The zygote sees the driver's end by a pidfd and by the end of the stream (a fork of the
user's may hold the other end open). A worker sees that end by its own stream, and dies with the zygote (PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from ..schedulers.job_environment import current_job
from ..system.exit_status import ROOM
from ..system.memory_control import OomKills
from ..system.processes import children, end_children, exit_code, kill, kill_group, reap
from ..system.run_clock import LOOK, RunClock, StoppedTime
from ..transport import zygote_protocol as protocol
from ..transport.result_log import ResultLog
from .driver_stream import READ, WRITE, DriverStream
from .end_sequence import EndSequence
from .limit_enforcement import Limits
from .start import BIRTH, begin_worker
from .withdrawal import CallWithdrawal

_AGAIN = 1.0  # s after which killed processes are killed again, at the end
_UNKILLABLE = 5.0  # s to wait for the end of a killed process, which may be deep in the kernel


class _Worker:
    """A worker as the zygote sees it."""

    __slots__ = (
        *("directory", "end", "guard", "number", "overdue", "pid"),
        *("reason", "result_log", "stopped", "withdrawal"),
    )

    def __init__(self, number: int, guard: int, result_log: ResultLog | None, directory: str) -> None:
        self.number, self.guard, self.result_log, self.directory = number, guard, result_log, directory
        self.pid = 0  # 0 until the worker has told it
        self.end = EndSequence()  # of the running call
        self.stopped: StoppedTime | None = None  # of the running call, if it has a limit in time
        self.reason: str | None = None  # the reason for its end, if caused here
        self.overdue: float | None = None  # the time to give it up
        self.withdrawal: CallWithdrawal | None = None  # under way


class Zygote:
    def __init__(self, sock: socket.socket, driver: int, watched: int | None) -> None:
        """Serve a driver; `watched` is a descriptor that becomes readable at the end of the process `driver`."""
        self.clock = RunClock()  # for all times here
        self.limits = Limits(driver)
        job = current_job()
        self.oom_kills = OomKills()
        self.job_ends = job.ends  # s since 1970
        self.workers: dict[int, _Worker] = {}  # by number
        self.by_pid: dict[int, _Worker] = {}  # their own ids, and their guards'
        self.ending: float | None = None  # the time to end the rest
        self.selector = selectors.DefaultSelector()
        self.stream = DriverStream(sock, self.selector, self.driver_ready)
        self.driver = watched
        if self.driver is not None:
            self.selector.register(self.driver, READ, self.driver_gone)
        self.wake_read, self.wake_write = _pipe()
        self.birth_read, self.birth_write = _pipe()
        self.selector.register(self.wake_read, READ, self.child_changed)
        self.selector.register(self.birth_read, READ, self.hear_births)
        # Without a handler SIGCHLD would be ignored, and no byte would come through the pipe.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self._actions: dict[int, Callable[..., None]] = {
            protocol.SPAWN: self.spawn,
            protocol.WATCH: self.watch,
            protocol.UNWATCH: self.unwatch,
            protocol.KILL: self.kill,
            protocol.WITHDRAW: self.withdraw,
            protocol.END: self.end,
            protocol.ASK: self.answer,
        }

    def run(self) -> NoReturn:
        loaded = False
        while True:
            first = not loaded and bool(self.workers) and all(worker.pid for worker in self.workers.values())
            ready = self.selector.select(0 if first else self.patience())
            if first and not ready:  # the first workers are on their way
                loaded = _load_for_the_next()
            for key, mask in ready:
                key.data(mask)
            self.keep_limits(self.clock())
            if self.ending is not None and not self.workers:
                self.leave()

    # -- messages of the driver -------------------------------------------------------------------------

    def driver_ready(self, mask: int) -> None:
        if mask & WRITE:
            self.stream.flush()
        if mask & READ:
            self.listen()

    def listen(self) -> None:
        said = self.stream.receive()
        if said is None:
            self.driver_gone()
        self.hear_births()  # the driver may speak of a worker that has only just reported itself
        for kind, content in said:
            self._actions[kind](*content)

    def answer(self) -> None:
        """Answer the driver, which asks for a sign of life."""
        self.stream.say(protocol.ALIVE, 0)

    def spawn(self, number: int, environment: dict[str, str], argv: list[str] | None, directory: str) -> None:
        """Fork a worker; with `argv` it starts afresh.

        The stream and the result log came as descriptors. Ranks have none: the ranks find their socket in `directory`,
        which must not be left behind.
        """
        descriptors = self.stream.take_descriptors(0 if directory else 2)
        zygote = os.getpid()
        try:
            if descriptors is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            # First: a failure after the fork would leave a worker without an account.
            result_log = ResultLog(descriptors[1]) if descriptors else None
            pid = os.fork()
        except OSError as error:  # no more processes, memory or descriptors: the others go on
            for fd in descriptors or ():
                os.close(fd)
            if directory:
                _remove(directory)
            self.stream.say(protocol.EXITED, number, None, f"it cannot be forked: {error}; {ROOM}")
            return
        if pid == 0:
            self.become(zygote, number, descriptors, environment, argv)
        # Only the worker may hold its end of the stream, or the driver would not see the stream end with the worker.
        for fd in descriptors:
            os.close(fd)
        # Even an end before this line is seen later: SIGCHLD only writes a byte to a pipe.
        self.workers[number] = self.by_pid[pid] = _Worker(number, pid, result_log, directory)

    def become(
        self, zygote: int, number: int, descriptors: list[int], environment: dict[str, str], argv: list[str] | None
    ) -> NoReturn:
        """In the fork, become a worker, with a guard and without anything of the zygote's."""
        self.selector.close()
        self.stream.close()
        for fd in (self.wake_read, self.wake_write, self.birth_read, self.driver):
            if fd is not None:
                os.close(fd)
        begin_worker(zygote, number, self.birth_write, descriptors, environment, argv)

    def hear_births(self, mask: int = READ) -> None:
        with contextlib.suppress(BlockingIOError):
            for number, pid in BIRTH.iter_unpack(os.read(self.birth_read, BIRTH.size << 8)):
                worker = self.workers.get(number)
                if worker is not None:
                    worker.pid = pid
                    self.by_pid[pid] = worker
                    self.stream.say(protocol.SPAWNED, number, pid)

    def watch(
        self,
        number: int,
        run_time: float | None,
        memory: int | None,
        grace: float,
        warning: tuple[float, int] | None = None,
        deadline_of: str = "run_time",
    ) -> None:
        """Keep the limits of the worker's next call.

        `warning` is a pair: the seconds before the deadline, or before the end of the job, and the signal to send then.
        A warning that would be due now is left out, because the call has not begun yet, and can see its time.
        """
        worker = self.workers.get(number)
        if worker is None or worker.end.announced:
            return
        now = self.clock()
        deadline = None if run_time is None else now + run_time
        self.limits.watch(worker.pid, deadline, memory, deadline_of)
        job_ends_in = None if self.job_ends is None else self.job_ends - time.time()
        until = min((seconds for seconds in (run_time, job_ends_in) if seconds is not None), default=0.0)
        if warning is None or warning[0] >= until:
            worker.end = EndSequence(grace)
        else:
            worker.end = EndSequence(grace, now + until - warning[0], warning[1])
        if run_time is not None and worker.result_log is not None:
            worker.stopped = worker.result_log.stopped
            worker.stopped.begin(self.clock)

    def unwatch(self, number: int) -> None:
        """Forget the limits of a finished call. After the answer none of the limits can hit the next call."""
        worker = self.workers.get(number)
        if worker is not None and worker.reason is None:
            self.limits.unwatch(worker.pid)
            if worker.result_log is not None:
                worker.result_log.count_memory(0)
            if worker.stopped is not None:
                worker.stopped.end()
                worker.stopped = None
            if not worker.end.announced:
                worker.end = EndSequence()
            self.stream.say(protocol.UNWATCHED, number)

    def kill(self, number: int, signum: int, grace: float | None) -> None:
        """Send a signal; after SIGTERM send SIGKILL, `grace` seconds later if given."""
        worker = self.workers.get(number)
        if worker is None:
            return
        if signum != signal.SIGTERM or not worker.pid:
            self.signal(worker, signum)
        elif not worker.end.announced:
            worker.end = EndSequence(grace)
            self.announce(worker, self.clock())

    def withdraw(self, number: int, last: int) -> None:
        """Take back the calls up to `last` that have not begun, and the results not sent."""
        worker = self.workers.get(number)
        if worker is not None and worker.result_log is not None and worker.pid:
            worker.withdrawal = CallWithdrawal(worker.pid, worker.result_log, last)
            self.go_on_withdrawing(worker, self.clock())

    def go_on_withdrawing(self, worker: _Worker, now: float) -> None:
        found = worker.withdrawal.attempt(now) if worker.withdrawal is not None else None
        if found is not None:
            worker.withdrawal = None
            self.stream.say(protocol.WITHDRAWN, worker.number, found)

    def end(self, grace: float) -> None:
        """Wait for the workers, which were told to end; kill the rest after `grace` seconds."""
        self.ending = self.clock() + grace

    # -- events ----------------------------------------------------------------------------------------

    def child_changed(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 1 << 10)
        self.hear_births()
        self.keep_limits(self.clock())  # before `reap`: a call may have ended itself at its deadline
        # After the births: a short-lived worker has told its process id before its end.
        for pid, status, *used in reap(self.end_group):
            worker = self.by_pid.pop(pid, None)
            # A guard may end before its worker, then a child of this process: only the worker's own end counts.
            if worker is not None and not (worker.pid not in (0, pid) and _is_child(worker.pid)):
                its_own = pid == worker.pid or not worker.pid
                self.exited(worker, exit_code(status) if its_own else None, used if its_own else None)
        self.end_orphans()

    def end_group(self, pid: int) -> None:
        """End the processes left by a worker without a guard, before another process can have the number."""
        worker = self.by_pid.get(pid)
        if worker is not None and pid == worker.pid:
            kill_group(pid, signal.SIGKILL)

    def exited(self, worker: _Worker, code: int | None, used: list[float] | None = None) -> None:
        """Tell the driver of a worker's end, with the processor time (s) and the peak of memory (bytes) if known."""
        del self.workers[worker.number]
        for pid in (worker.pid, worker.guard):
            self.by_pid.pop(pid, None)
        if worker.directory:
            _remove(worker.directory)
        by_the_kernel = self.limits.ended(worker.pid) or self.killed_for_memory(worker, code)
        self.note_memory(worker)
        if worker.result_log is not None:
            worker.result_log.close()
        reason = worker.reason if worker.reason not in (None, "rank") else by_the_kernel or worker.reason
        self.stream.say(protocol.EXITED, worker.number, code, reason, used)

    def killed_for_memory(self, worker: _Worker, code: int | None) -> str | None:
        """Return "job memory" if the kernel ended the worker, or a rank, for want of memory in the job or container."""
        perhaps = bool(code) if worker.directory else code == -signal.SIGKILL  # a launcher outlives its ranks
        return "job memory" if perhaps and self.oom_kills.explain_one() else None

    def end_orphans(self) -> None:
        """End orphans of dead workers.

        Orphans of living workers belong to guards; without guards the two look alike.
        """
        if not any(worker.pid == worker.guard for worker in self.workers.values()):
            for pid in set(children()) - self.by_pid.keys():
                kill(pid)

    def driver_gone(self, mask: int = READ) -> NoReturn:
        directories = [worker.directory for worker in self.workers.values() if worker.directory]
        for worker in self.workers.values():
            self.signal(worker, signal.SIGKILL)
        self.leave(directories)

    def leave(self, directories: Iterable[str] = ()) -> NoReturn:
        """End, but not before all processes of the workers have ended, because these may write to the directories."""
        end_children(_UNKILLABLE, self.by_pid)
        for directory in directories:
            _remove(directory)
        os._exit(0)

    # -- limits ----------------------------------------------------------------------------------------

    def patience(self) -> float | None:
        """Return the seconds for which nothing needs a look; None for any time."""
        now = self.clock()
        times = [worker.overdue for worker in self.workers.values()]
        times += [worker.end.next_at for worker in self.workers.values()]
        times += [worker.withdrawal.next_attempt for worker in self.workers.values() if worker.withdrawal]
        times.append(self.ending)
        limits = self.limits.patience(now)
        first = min([at - now for at in times if at is not None] + ([] if limits is None else [limits]), default=None)
        return None if first is None else max(0.0, min(first, LOOK))

    def keep_limits(self, now: float) -> None:
        exceeded = self.limits.exceeded(now)
        self.note_memory()
        for pid, reason in exceeded.items():
            if reason == "memory":  # SIGTERM would leave it time to take even more
                self.stop(self.by_pid[pid], reason)
            else:
                self.by_pid[pid].reason = self.by_pid[pid].reason or reason
                self.by_pid[pid].end.announce(now)
        for worker in self.workers.values():
            self.send_due(worker, now)
            if worker.stopped is not None:
                worker.stopped.note(self.clock)
        if self.ending is not None and now >= self.ending:
            self.ending = now + _AGAIN
            for worker in self.workers.values():
                self.stop(worker, "end")
        # A copy, because `exited` removes workers.
        for worker in list(self.workers.values()):
            if worker.overdue is not None and now >= worker.overdue:
                self.exited(worker, None)
            elif worker.withdrawal is not None and now >= worker.withdrawal.next_attempt:
                self.go_on_withdrawing(worker, now)

    def note_memory(self, ended: _Worker | None = None) -> None:
        """Note in the result logs how much memory calls with limits have been seen to use."""
        for pid, most in self.limits.counted().items():
            worker = self.by_pid.get(pid, ended)
            if worker is not None and worker.pid == pid and worker.result_log is not None:
                worker.result_log.count_memory(most)

    def announce(self, worker: _Worker, now: float) -> None:
        worker.end.announce(now)
        self.send_due(worker, now)

    def send_due(self, worker: _Worker, now: float) -> None:
        """Send the due signals: first to the worker alone, because the function looks after its children.

        SIGKILL goes to the worker's whole group; the guard ends processes outside of the group.
        """
        for signum in worker.end.due(now):
            if signum == signal.SIGKILL:
                self.signal(worker, signum)
            else:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(worker.pid, signum)

    def stop(self, worker: _Worker, reason: str) -> None:
        worker.reason = worker.reason or reason
        self.signal(worker, signal.SIGKILL)

    def signal(self, worker: _Worker, signum: int) -> None:
        if worker.pid:
            kill_group(worker.pid, signum)
        else:
            kill(worker.guard)  # the guard ends the worker in the making
        if signum == signal.SIGKILL and worker.overdue is None:
            worker.overdue = self.clock() + _UNKILLABLE


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for fd in ends:
        os.set_blocking(fd, False)
    return ends


def _is_child(pid: int) -> bool:
    """Return True if this process is the parent of the other one, perhaps an ended one, and so is told of the end."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _load_for_the_next() -> bool:
    """Import modules that a worker would load for its first call, so that all later workers begin with these."""
    with contextlib.suppress(Exception):  # workers are told the import path, and fail with errors of their own
        from ..serialize import function_registry, reconstruct  # noqa: F401
    gc.freeze()  # these objects are the same in all workers, so the collector need not touch their pages
    return True


def _remove(directory: str) -> None:
    import shutil  # here, because few workers have a directory

    shutil.rmtree(directory, ignore_errors=True)
