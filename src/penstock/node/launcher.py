"""The MPI launcher of this machine."""

from __future__ import annotations

import importlib.util
import shutil


def find_launcher() -> str | None:
    """The path of `mpiexec` or `mpirun`; None if there is neither."""
    return shutil.which("mpiexec") or shutil.which("mpirun")


def why_no_mpi() -> str | None:
    """What is missing for calls with several ranks, and how to get it; None if nothing is."""
    if find_launcher() is None:
        return "neither mpiexec nor mpirun is in PATH; install an MPI, such as Open MPI"
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py is not installed; pip install 'penstock[mpi]'"
    return None
