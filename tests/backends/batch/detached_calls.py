"""What the calls of test_detached.py run: importable in a job, with little to import."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from callyard import Executor, Slurm


def add(*values: Any) -> Any:
    return sum(values)


def successor(value: int) -> int:
    return value + 1


def pair(value: int) -> tuple[int, int]:
    return value, 10 * value


def inverse(value: float) -> float:
    return 1 / value


def variables(*names: str) -> dict[str, str | None]:
    """Return variables of the job's environment; all of Slurm's where none is named."""
    names = names or tuple(name for name in os.environ if name.startswith("SLURM"))
    return {name: os.environ.get(name) for name in names}


def node(number: int) -> str:
    """Return the node's name; the number makes a call of its own."""
    return os.environ["SLURMD_NODENAME"]


def where() -> str:
    return os.getcwd()


def say(text: str) -> None:
    print(text)
    print(text.upper(), file=sys.stderr)


def rank_of_node() -> tuple[int, int, str]:
    """Return rank and size, as MPI sees it, and the node's name."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return world.Get_rank(), world.allreduce(1), os.environ["SLURMD_NODENAME"]


def variables_of_rank(*names: str) -> Any:
    """Return variables of a rank's environment; the call's result is a list of them."""
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
    return {name: os.environ.get(name) for name in names}


def rendezvous(*names: str) -> Any:
    """Let the ranks meet as torch.distributed does; return variables of each."""
    from mpi4py import MPI

    with ExitStack() as stack:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if os.environ["RANK"] == "0":
            stack.enter_context(socket.create_server(("", place[1])))
        MPI.COMM_WORLD.Barrier()
        stack.enter_context(socket.create_connection(place))
        MPI.COMM_WORLD.Barrier()
    return {name: os.environ[name] for name in names}


def trace() -> str:
    return os.environ["CALLYARD_TRACE"]


def job_in_a_job(results: Path) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Return what a job sees, and a job that it submits."""
    with Executor(backend=Slurm(poll=(0.2, 1), result_grace=2, detached=True), cache=results) as ex:
        return variables(), ex.submit(variables).result()
