"""Calls and ranks in an instance of Flux, also for drivers that are processes of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from pretended import visible

import callyard


def node() -> str:
    return os.environ["CALLYARD_FLUX_NODE"]


def time_left() -> float:
    """Return the time left to the job of this call (s)."""
    left = callyard.current().time_left()
    assert left is not None
    return left


# ------------------------------------------------------------------ ranks


def rank_and_node() -> tuple[int, int, str]:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    assert comm.allreduce(1) == comm.Get_size()
    return comm.Get_rank(), comm.Get_size(), node()


def visible_to_rank() -> str:
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
    return visible()


def fail_as_rank() -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.Get_rank() == 1:
        os._exit(3)
    MPI.COMM_WORLD.Barrier()


def wait_as_rank(place: str) -> None:
    """Say that this rank is there, and wait for ever."""
    from mpi4py import MPI

    Path(place, str(os.getpid())).touch()
    MPI.COMM_WORLD.Barrier()
    signal.pause()
