"""The errors of calls: exceptions of the function as packed by the worker, and sentences for lost workers."""

from __future__ import annotations

import os
import socket

from ..errors import CallyardError, OutOfMemory, RemoteTraceback, ResourceError, TimeLimitExceeded, WorkerLost
from ..futures import Lazy
from ..system.exit_status import how_it_ended, no_memory_left, too_long, too_much_memory
from ..system.machine import find_memory
from ..worker.communicator import find_launcher, launcher_advice, words_of_alone
from .call import Call


class PackedError:
    """A packed exception of the function; opened, the exception has the remote traceback as its cause."""

    __slots__ = ("_memory", "_name", "packed")

    def __init__(self, packed: Lazy, call: Call) -> None:
        self.packed, self._name, self._memory = packed, call.future.name, call.plan.memory

    def load(self) -> BaseException:
        error, text = self.packed.load()
        if isinstance(error, MemoryError) and self._memory and not isinstance(error, OutOfMemory):
            error = OutOfMemory(too_much_memory(repr(self._name), self._memory))
        set_cause(error, RemoteTraceback(text))
        return error  # type: ignore[no-any-return]


def lost_error(call: Call, pid: int | None, exitcode: int | None, reason: str | None, before: str) -> CallyardError:
    """Return the error of a call that a worker ran to no result; `before` is a text about the time before the end."""
    error = _lost_error(call, pid, exitcode, reason, before)
    error._run = {"host": socket.gethostname(), "pid": pid, "began": call.began}
    return error


def _lost_error(call: Call, pid: int | None, exitcode: int | None, reason: str | None, before: str) -> CallyardError:
    name = call.future.name
    if reason == "run_time":
        return TimeLimitExceeded(too_long(repr(name), call.plan.run_time or 0.0))
    if reason == "memory":
        return OutOfMemory(too_much_memory(repr(name), call.plan.memory or 0))
    if reason == "job memory":
        return OutOfMemory(no_memory_left(repr(name), _owner_of_limit()))
    runs = f" (run {call.restarted + 1} of {call.plan.restarts + 1})" if call.plan.restarts else ""
    log = call.plan.options.get("error_log_file")
    how = "was ended with its zygote, which did not answer" if reason == "silence" else how_it_ended(exitcode)
    if reason == "executor":
        how += ", as its executor was ended by Ctrl-C, terminate_workers() or kill_workers()"
    would_help = not call.plan.restarts and reason != "executor"
    error = WorkerLost(
        f"{name!r} lost its worker{runs}: {before}process {pid} on {socket.gethostname()} {how}"
        + (f", see {log}" if log else "")
        + ("; restart_limit=1 would run such a call again" if would_help else "")
    )
    error.exitcode = exitcode
    return error


def _owner_of_limit() -> str:
    """Return the owner of the limit of memory that all processes here share: a scheduler's job, or a control group."""
    from ..schedulers.registry import job_around  # here, because few calls end so

    limit, how = find_memory()
    job = job_around(os.environ)
    if job.cgroup and f"/{job.cgroup}" in how:
        return f"its job ({job.scheduler} job {job.job}, {limit:.3g} GiB)"
    return f"{how.removeprefix('memory limit of ')} ({limit:.3g} GiB)"


def alone_error(call: Call, ranks: int, alone: tuple[int, str]) -> ResourceError:
    """Return the error of a call of several ranks that was given up because the ranks did not find each other."""
    return ResourceError(f"{words_of_alone(call.future.name, ranks, *alone)}; {launcher_advice(find_launcher())}")


class StartError:
    """The error of a call given up because no worker could be started. To open the error may run the user's code."""

    __slots__ = ("_name", "_node", "exitcode", "initializer_error", "ranks", "reason")

    def __init__(
        self,
        call: Call,
        initializer_error: Lazy | None,
        exitcode: int | None,
        reason: str | None,
        node: str | None = None,
    ) -> None:
        self._name, self.ranks, self.initializer_error = call.future.name, call.plan.shape.ranks, initializer_error
        self.exitcode, self.reason, self._node = exitcode, reason, node

    def load(self) -> BaseException:
        where = f"no worker could be started for {self._name!r} on {self._node or socket.gethostname()}"
        if self.initializer_error is None:
            error = WorkerLost(f"{where}: {self.reason or _start(self.exitcode, self.ranks)}")
            error.exitcode = self.exitcode
            return error
        cause, text = self.initializer_error.load()
        error = WorkerLost(f"{where}: its initializer raised {type(cause).__name__}: {cause}")
        set_cause(cause, RemoteTraceback(text))
        error.__cause__ = cause
        return error


def set_cause(error: BaseException, cause: BaseException) -> None:
    BaseException.__setattr__(error, "__cause__", cause)  # the class may be frozen


def _start(exitcode: int | None, ranks: int) -> str:
    perhaps = ", and whether the mpiexec in PATH is that of the MPI library which mpi4py loads" if ranks > 1 else ""
    return f"its process {how_it_ended(exitcode)} before it was ready; check `env` and what it wrote to stderr{perhaps}"
