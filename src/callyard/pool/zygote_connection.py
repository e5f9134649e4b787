"""The driver's end of the zygote, the process that forks the workers of this node and keeps their limits."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..serialize.shared_memory import anonymous_file
from ..system.exit_status import how_it_ended
from ..system.process_title import script_name
from ..system.processes import kill, kill_group, wait_for_end
from ..system.python_command import python_command
from ..transport import frames
from ..transport.stream import FrameStream
from ..transport.zygote_protocol import (
    ALIVE,
    ASK,
    END,
    EXITED,
    KILL,
    SPAWN,
    SPAWNED,
    UNWATCH,
    UNWATCHED,
    WATCH,
    WITHDRAW,
    WITHDRAWN,
)
from .mpi_launcher import as_if_alone, launch_command, launcher_environment
from .worker import Worker
from .worker_environment import gpus_of_ranks, needs_fresh_process, worker_environment

_WHAT = {SPAWNED: "spawned", EXITED: "exited", UNWATCHED: "unwatched", WITHDRAWN: "withdrawn", ALIVE: "alive"}
_END = 15.0  # s to wait for the zygote's end, besides the grace of the ended processes
_TAIL = 2000  # characters of the zygote's output in an error


class ZygoteEvent(NamedTuple):
    """A message of the zygote about a worker: the process id, the exit code, or the last call begun."""

    what: str
    number: int
    value: Any = None
    reason: str | None = None
    used: list[float] | None = None  # of an ended worker: processor time (s), peak of resident memory (bytes)


class ZygoteProcess:
    """The zygote's process and the stream to it.

    The starting thread must live as long: without pidfd, the kernel ends the zygote with that thread.

    All methods but `receive` need the dispatcher's lock.
    """

    _silence = 10.0  # s of silence, where an answer is due, after which the zygote is asked
    _answer = 10.0  # s for the answer

    def __init__(self, on_blocked: Callable[[FrameStream], object]) -> None:
        # `ours` is closed only in case of an error.
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            stream, other = socket.socketpair()
            theirs.enter_context(other)
            ours.enter_context(stream)
            self._errors = anonymous_file(0)  # in the place of stderr until the zygote is ready
            ours.callback(self._close_errors)
            passed = [_copy(other.fileno(), theirs), _copy_of_stderr(theirs)]
            self._process = subprocess.Popen(
                python_command(
                    "callyard.worker.run_zygote", "main", *map(str, [*passed, os.getpid()]), script_name(sys.argv)
                ),
                stdin=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=passed,
                start_new_session=True,  # Ctrl-C in the terminal is for the driver alone
            )
            ours.pop_all()
        # The zygote's: a worker with other start-time variables needs a fresh process.
        self._environment = dict(os.environ)
        self._said = self._heard = 0  # messages to the zygote; the part of them that it has dealt with, as far as known
        self._limited: set[int] = set()  # workers with limits
        self.why_not_started: str | None = None  # known after `close`
        self._asked = False
        self._due: float | None = None  # the time to ask, or to believe that no answer comes
        self.stream = FrameStream(stream, on_blocked)

    def _say(self, kind: int, *content: Any, descriptors: list[int] | None = None) -> None:
        self._said += 1
        self.stream.send(frames.encode_object(kind, content), descriptors or [])

    # -- signs of life -----------------------------------------------------------------------------------

    def patience(self) -> float | None:
        """Return the seconds for which the zygote may be silent; None if no answer is due."""
        if self._heard == self._said and not self._limited:
            self._due = None
            return None
        now = time.monotonic()
        if self._due is None:
            self._due, self._asked = now + self._silence, False
        return max(0.0, self._due - now)

    def answers(self, now: float) -> bool:
        """Ask a zygote after a long silence; return False if it was asked already, without an answer."""
        if self._due is None or now < self._due:
            return True
        if self._asked:
            return False
        self._asked, self._due = True, now + self._answer
        self._say(ASK)
        return True

    def abandon(self, workers: Iterable[int]) -> None:
        """End the zygote, and the workers first: workers would live on if the zygote cannot die now."""
        for pid in workers:  # a zygote that does nothing reaps nothing, so each pid still means a worker
            kill_group(pid, signal.SIGKILL)
        kill(self._process.pid)

    def _why_not_started(self) -> str | None:
        """Return the zygote's own words about a failed start; None after a good one."""
        if self._errors < 0:
            return None
        said = os.pread(self._errors, os.fstat(self._errors).st_size, 0).decode(errors="replace").strip()
        how = how_it_ended(self._process.returncode)
        return f"the process that starts workers {how}" + (f": {said[-_TAIL:]}" if said else "")

    def _close_errors(self) -> None:
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1

    # -- messages to the zygote --------------------------------------------------------------------------

    def spawn(self, worker: Worker, descriptors: list[int], address: str) -> None:
        """Start a worker with the descriptors; or ranks that connect to the address."""
        environment = worker_environment(as_if_alone(os.environ) if address else os.environ, worker)
        argv = None
        if address:
            rank = python_command("callyard.worker.mpi_rank", "main", address, *gpus_of_ranks(worker))
            argv = launch_command(worker.shape.ranks, rank)
            environment = {**launcher_environment(os.path.dirname(address)), **environment}
        elif needs_fresh_process(environment, self._environment):
            argv = python_command("callyard.worker.start", "serve_alone", script_name(sys.argv))
        self._say(SPAWN, worker.number, environment, argv, os.path.dirname(address), descriptors=descriptors)

    def watch(
        self,
        number: int,
        run_time: float | None,
        memory: int | None,
        grace: float = 0.0,
        warning: tuple[float, int] | None = None,
    ) -> None:
        """Have limits kept: SIGTERM at the end of the `run_time`, and SIGKILL `grace` seconds later.

        `warning` is a pair: the seconds before the end of the `run_time`, and the signal to send then.
        """
        self._limited.add(number)
        self._say(WATCH, number, run_time, memory, grace, warning)

    def let_end(self, number: int, grace: float) -> None:
        """Let the launcher end the other ranks after one has gone; have it killed after `grace` seconds."""
        self._limited.add(number)
        self._say(WATCH, number, grace, None, 0.0, None, "rank")

    def unwatch(self, number: int) -> None:
        self._limited.discard(number)
        self._say(UNWATCH, number)

    def kill(self, number: int, signum: int, grace: float | None = 0.0) -> None:
        self._say(KILL, number, signum, grace)

    def withdraw(self, number: int, last: int) -> None:
        self._say(WITHDRAW, number, last)

    def end(self, grace: float) -> None:
        self._say(END, grace)

    def receive(self) -> list[ZygoteEvent] | None:
        """Return the events that have arrived; None if the zygote has gone."""
        arrived = self.stream.receive()
        if arrived is None:
            return None
        events = []
        for kind, heard, _, _, body in arrived:
            # Any frame is a sign of life.
            self._heard, self._due = heard, None
            event = ZygoteEvent(_WHAT[kind], *pickle.loads(body))
            events.append(event)
            if kind == EXITED:
                self._limited.discard(event.number)
        if events:
            # The first event is the sign of a started zygote: no error of the start can follow.
            self._close_errors()
        return events

    def join(self) -> None:
        """Wait for the zygote's end, but not for ever."""
        if not wait_for_end(self._process.pid, _END):
            kill(self._process.pid)

    def close(self) -> None:
        self.stream.close()  # the zygote ends with its stream
        if wait_for_end(self._process.pid, _END):
            self._process.wait()
        else:  # deep in the kernel, where no signal ends it: a wait might take for ever
            self._process.returncode = -signal.SIGKILL
        self.why_not_started = self._why_not_started()
        self._close_errors()


def _copy(fd: int, opened: contextlib.ExitStack) -> int:
    """Copy a descriptor to a number beyond the standard ones, which this process may have closed."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    opened.callback(os.close, copy)
    return copy


def _copy_of_stderr(opened: contextlib.ExitStack) -> int:
    with contextlib.suppress(OSError):
        if os.get_inheritable(2):  # otherwise stderr was closed, and another file has its number
            return _copy(2, opened)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        return _copy(null, opened)
    finally:
        os.close(null)
