"""One rank of a call on several: started by an MPI launcher, it connects to the driver and serves."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..schedulers.job_environment import current_job
from ..schedulers.launcher_variables import LOCAL_RANK_VARIABLES, RANK_VARIABLES
from ..system.machine import GPUS
from ..system.process_title import set_title
from ..system.processes import default_signals, die_with_parent, open_standard_descriptors
from ..transport import frames
from ..transport.frames import NO_MPI, RANK, STRAY
from ..transport.result_log import ResultLog, make_result_log
from .communicator import Communicator, check_used_world, join_world, used_world
from .current_call import running
from .serve import Server


def rank_of_process() -> int | None:
    """Return the number of this rank by the variables of the launcher: MPI's, or else the scheduler's own."""
    return _first_of(RANK_VARIABLES, os.environ, current_job().rank)


def _first_of(names: Sequence[str], environ: Mapping[str, str], default: int | None) -> int | None:
    return next((int(environ[name]) for name in names if name in environ), default)


def rank_in(world: Communicator | None) -> int:
    """Return the number of this rank: MPI knows best."""
    rank = rank_of_process() if world is None else world.rank
    if rank is None:
        sys.exit("neither MPI nor the variables of its launcher say which rank this process is")
    return rank


def gpus_by_local_rank(environ: Mapping[str, str], each: int) -> dict[str, str]:
    """Return the variables that narrow the GPUs of all ranks on the machine to the rank's own part.

    A rank with no more GPUs in sight than its own got them from the launcher.
    """
    local = _first_of(LOCAL_RANK_VARIABLES, environ, current_job(environ).local_rank) or 0
    seen = {name: environ[name].split(",") for name in GPUS if environ.get(name)}
    return {name: ",".join(gpus[local * each :][:each]) for name, gpus in seen.items() if len(gpus) > each}


def main() -> None:
    """Run as `python -c "... main()" ADDRESS GPUS GPUS;GPUS`, by the launcher, once for each rank."""
    # The launcher's end ends its ranks, also when the launcher was killed and could not do so.
    die_with_parent(os.getppid())
    set_title("rank")
    default_signals()
    open_standard_descriptors()
    rank, each, every = rank_of_process(), sys.argv.pop().split(";"), sys.argv.pop()
    for name in GPUS:
        if os.environ.get(name) == every:  # otherwise the user has set it
            os.environ[name] = each[rank or 0]
    stream = socket.socket(socket.AF_UNIX)
    stream.setblocking(True)  # user code may have changed the default
    stream.connect(sys.argv.pop())
    stream.sendall(introduction(join_world()))
    result_log, log_fd = make_result_log()
    os.close(log_fd)
    running.listen_in_worker()
    with stream, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        RankServer(stream, result_log, len(each)).run()


def introduction(world: Communicator | None) -> bytes:
    """Return the frame with the number of this rank, and the number of ranks, if known."""
    if world is None:
        return frames.encode(RANK, 0, rank_in(world))
    return frames.encode(RANK, world.size, world.rank, 0, world.library.encode())


class RankServer(Server):
    """A worker that also reports how the function has used MPI."""

    def __init__(self, sock: socket.socket, result_log: ResultLog, ranks: int) -> None:
        super().__init__(sock, result_log)
        self._ranks = ranks

    def execute(self, number: int, body: bytes, request: Any) -> Any:
        value = super().execute(number, body, request)
        check_used_world(self._ranks)
        return value

    def result_flags(self) -> int:
        if used_world() is None:
            # PyTorch has ways of its own, and its groups of processes leave no trace once they are destroyed.
            return 0 if "torch" in sys.modules else NO_MPI
        mpi = sys.modules["mpi4py.MPI"]
        # A message without a receiver would be taken for one of the next call.
        return STRAY if mpi.COMM_WORLD.Iprobe(mpi.ANY_SOURCE, mpi.ANY_TAG) else 0
