"""The driver's end of the zygote, which forks the workers of this node and keeps their limits."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..wire import frames
from ..worker.messages import END, EXITED, KILL, SPAWN, SPAWNED, UNWATCH, UNWATCHED, WATCH, WITHDRAW, WITHDRAWN
from .environment import gpus_of_ranks, needs_fresh_process, worker_environment
from .launcher import as_if_alone, launch_command, launcher_environment
from .pool import Worker
from .stream import Stream

_WHAT = {SPAWNED: "spawned", EXITED: "exited", UNWATCHED: "unwatched", WITHDRAWN: "withdrawn"}
_PACKAGE = str(Path(__file__).parents[2])


class Event(NamedTuple):
    """What the zygote tells of a worker: its process id, its exit code, or the last call that it began."""

    what: str
    number: int
    value: Any = None
    reason: str | None = None


class Keeper:
    """Starts the zygote and speaks with it.

    Made in the thread that lives as long as it: where there is no pidfd, the kernel ends it with that.

    Everything but `receive` wants the node's lock.
    """

    def __init__(self, on_blocked: Callable[[Stream], object]) -> None:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo, theirs:
            undo.enter_context(ours)
            self._process = subprocess.Popen(
                python_command("penstock.worker.zygote", "main", str(theirs.fileno()), str(os.getpid())),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            undo.pop_all()
        self._environment = dict(os.environ)
        self.stream = Stream(ours, on_blocked)

    def _say(self, kind: int, *content: Any, descriptors: list[int] | None = None) -> None:
        self.stream.send(frames.encode_object(kind, content), descriptors or [])

    def spawn(self, worker: Worker, descriptors: list[int], address: str) -> None:
        """Start a worker that gets the descriptors; or ranks that connect to the address."""
        environment = worker_environment(as_if_alone(os.environ) if address else os.environ, worker)
        argv = None
        if address:
            rank = python_command("penstock.worker.mpi", "main", address, *gpus_of_ranks(worker))
            argv = launch_command(worker.shape.ranks, rank)
            environment = {**launcher_environment(os.path.dirname(address)), **environment}
        elif needs_fresh_process(environment, self._environment):
            argv = python_command("penstock.worker.zygote", "serve_alone")
        self._say(SPAWN, worker.number, environment, argv, os.path.dirname(address), descriptors=descriptors)

    def watch(self, number: int, run_time: float | None, memory: int | None) -> None:
        self._say(WATCH, number, run_time, memory)

    def let_end(self, number: int, grace: float) -> None:
        """A rank has gone: the launcher ends the others, or is killed after so many seconds."""
        self._say(WATCH, number, grace, None, "rank")

    def unwatch(self, number: int) -> None:
        self._say(UNWATCH, number)

    def kill(self, number: int, signum: int) -> None:
        self._say(KILL, number, signum)

    def withdraw(self, number: int, last: int) -> None:
        self._say(WITHDRAW, number, last)

    def end(self, grace: float) -> None:
        self._say(END, grace)

    def receive(self) -> list[Event] | None:
        """What has happened; None when the zygote has gone."""
        arrived = self.stream.receive()
        if arrived is None:
            return None
        return [Event(_WHAT[kind], *pickle.loads(body)) for kind, _, _, _, body in arrived]

    def join(self) -> None:
        self._process.wait()

    def close(self) -> None:
        self.stream.close()
        self._process.wait()


# The package is found where this process has it, whatever else is installed. Otherwise neither its directory nor the
# current one is looked at, so that no file there is taken for a module of the standard library. What is loaded here is
# not garbage, and never looked through for any.
_CODE = """
import gc, sys
gc.disable()
sys.path[:] = [place for place in sys.path if place]
import importlib
sys.path.insert(0, sys.argv.pop(1))
import penstock
del sys.path[0]
from {module} import {function}
gc.freeze()
gc.enable()
{function}()
"""


def python_command(module: str, function: str, *arguments: str) -> list[str]:
    """The command that runs a function of this package in a new interpreter with this one's options."""
    options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    code = _CODE.format(module=module, function=function)
    return [sys.executable, *options, "-c", code, _PACKAGE, *arguments]
