"""One rank of a call that runs on several: started by an MPI launcher, it connects to the driver and serves."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import Any

from ..system.machine import GPUS
from ..system.processes import die_with_parent
from ..wire import frames
from ..wire.frames import NO_MPI, RANK, STRAY
from ..wire.ledger import SIZE, Ledger
from ..wire.memory import anonymous_file
from .serve import Server
from .world import check_used_world, join_world, used_world

# How launchers tell a process its rank: Open MPI, PMIx, MPICH and Intel, MVAPICH, Slurm.
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")


def rank_of_process() -> int:
    """Which rank the launcher says this process is."""
    return next(int(os.environ[name]) for name in _RANK_VARIABLES if name in os.environ)


def main() -> None:
    """Run as `python -c "... main()" ADDRESS GPUS GPUS;GPUS`, by the launcher, once for each rank."""
    die_with_parent(os.getppid())
    rank, each, every = rank_of_process(), sys.argv.pop().split(";"), sys.argv.pop()
    for name in GPUS:
        if os.environ.get(name) == every:  # else the user has said something else
            os.environ[name] = each[rank]
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(sys.argv.pop())
    stream.sendall(introduction(rank))
    ledger_fd = anonymous_file(SIZE)
    ledger = Ledger(ledger_fd)
    os.close(ledger_fd)
    with stream, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        RankServer(stream, ledger, len(each)).run()


def introduction(rank: int) -> bytes:
    """The frame that says which rank this is: MPI knows best."""
    world = join_world()
    if world is None:
        return frames.encode(RANK, 0, rank)
    return frames.encode(RANK, world.size, world.rank, 0, world.library.encode())


class RankServer(Server):
    """A worker that also says how the function used MPI."""

    def __init__(self, sock: socket.socket, ledger: Ledger, ranks: int) -> None:
        super().__init__(sock, ledger)
        self._ranks = ranks

    def execute(self, number: int, body: bytes, request: Any) -> Any:
        value = super().execute(number, body, request)
        check_used_world(self._ranks)
        return value

    def result_flags(self) -> int:
        if used_world() is None:
            return NO_MPI
        mpi = sys.modules["mpi4py.MPI"]
        # A message that nobody received would be taken for one of the next call.
        return STRAY if mpi.COMM_WORLD.Iprobe(mpi.ANY_SOURCE, mpi.ANY_TAG) else 0
