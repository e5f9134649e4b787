"""One rank of a call that runs on several: started by an MPI launcher, it connects to the driver and serves.

This module must not import mpi4py: whether the function did is what tells a parallel function from one whose author
meant something else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from ..system.machine import GPUS
from ..system.processes import default_signals, die_with_parent, open_standard_descriptors
from ..wire import frames
from ..wire.frames import NO_MPI, RANK, STRAY
from ..wire.ledger import make_ledger
from .serve import Server

# How launchers tell a process its rank: Open MPI, PMIx, MPICH and Intel, MVAPICH, Slurm.
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")


def rank_of_process() -> int:
    """Which rank the launcher says this process is."""
    return next(int(os.environ[name]) for name in _RANK_VARIABLES if name in os.environ)


def main() -> None:
    """Run as `python -c "... main()" ADDRESS GPUS GPUS;GPUS`, by the launcher, once for each rank."""
    die_with_parent(os.getppid())
    default_signals()
    open_standard_descriptors()
    rank = rank_of_process()
    own, every = sys.argv.pop().split(";")[rank], sys.argv.pop()
    for name in GPUS:
        if os.environ.get(name) == every:  # else the user has said something else
            os.environ[name] = own
    stream = socket.socket(socket.AF_UNIX)
    stream.setblocking(True)  # whatever the default is here
    stream.connect(sys.argv.pop())
    stream.sendall(frames.encode(RANK, 0, rank))
    ledger, ledger_fd = make_ledger()
    os.close(ledger_fd)
    with stream, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        RankServer(stream, ledger).run()


class RankServer(Server):
    """A worker that also says how the function used MPI."""

    def result_flags(self) -> int:
        mpi = sys.modules.get("mpi4py.MPI")
        if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
            return NO_MPI
        # A message that nobody received would be taken for one of the next call.
        return STRAY if mpi.COMM_WORLD.Iprobe(mpi.ANY_SOURCE, mpi.ANY_TAG) else 0
