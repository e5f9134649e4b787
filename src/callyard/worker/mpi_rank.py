"""One rank of a call that runs on several: started by an MPI launcher, it connects to the driver and serves."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import CallyardError
from ..schedulers.job_environment import current_job
from ..schedulers.launcher_variables import LOCAL_RANK_VARIABLES, RANK_VARIABLES
from ..system.machine import GPUS
from ..system.processes import default_signals, die_with_parent, open_standard_descriptors
from ..transport import frames
from ..transport.frames import NO_MPI, RANK, STRAY
from ..transport.result_log import ResultLog, make_result_log
from .communicator import Communicator, check_used_world, join_world, used_world
from .current_call import Again, running
from .exceptions import encode_error
from .serve import Server


def rank_of_process() -> int | None:
    """Return which rank the launcher says this process is: one for MPI, or else the scheduler's own."""
    return _first_of(RANK_VARIABLES, os.environ, current_job().rank)


def _first_of(names: Sequence[str], environ: Mapping[str, str], default: int | None) -> int | None:
    return next((int(environ[name]) for name in names if name in environ), default)


def rank_in(world: Communicator | None) -> int:
    """Return which rank this process is; of that MPI knows most."""
    rank = rank_of_process() if world is None else world.rank
    if rank is None:
        sys.exit("neither MPI nor the variables of its launcher say which rank this process is")
    return rank


def gpus_by_local_rank(environ: Mapping[str, str], each: int) -> dict[str, str]:
    """Return the variables by which a rank sees its own GPUs alone, of those that all ranks on its machine see."""
    local = _first_of(LOCAL_RANK_VARIABLES, environ, current_job(environ).local_rank) or 0
    seen = {name: environ[name].split(",") for name in GPUS if environ.get(name)}
    return {name: ",".join(gpus[local * each : (local + 1) * each]) for name, gpus in seen.items()}


def main() -> None:
    """Run as `python -c "... main()" ADDRESS GPUS GPUS;GPUS`, by the launcher, once for each rank."""
    die_with_parent(os.getppid())
    default_signals()
    open_standard_descriptors()
    rank, each, every = rank_of_process(), sys.argv.pop().split(";"), sys.argv.pop()
    for name in GPUS:
        if os.environ.get(name) == every:  # else the user has said something else
            os.environ[name] = each[rank or 0]
    stream = socket.socket(socket.AF_UNIX)
    stream.setblocking(True)  # whatever the default is here
    stream.connect(sys.argv.pop())
    stream.sendall(introduction(join_world()))
    result_log, log_fd = make_result_log()
    os.close(log_fd)
    running.listen_in_worker()
    with stream, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        RankServer(stream, result_log, len(each)).run()


def introduction(world: Communicator | None) -> bytes:
    """Return the frame that says which rank this is, and of how many, if that is known."""
    if world is None:
        return frames.encode(RANK, 0, rank_in(world))
    return frames.encode(RANK, world.size, world.rank, 0, world.library.encode())


class RankServer(Server):
    """A worker that also says how the function used MPI."""

    def __init__(self, sock: socket.socket, result_log: ResultLog, ranks: int) -> None:
        super().__init__(sock, result_log)
        self._ranks = ranks

    def execute(self, number: int, body: bytes, request: Any) -> Any:
        value = super().execute(number, body, request)
        check_used_world(self._ranks)
        return value

    def again(self, error: Again, sequence: int) -> None:
        """Refuse: each rank would have arguments of its own."""
        words = f"a call on {self._ranks} ranks has raised callyard.Again, which only calls on one rank can"
        self.send(encode_error(CallyardError(words), sequence, self.last_call))

    def result_flags(self) -> int:
        if used_world() is None:
            return NO_MPI
        mpi = sys.modules["mpi4py.MPI"]
        # A message that nobody received would be taken for one of the next call.
        return STRAY if mpi.COMM_WORLD.Iprobe(mpi.ANY_SOURCE, mpi.ANY_TAG) else 0
