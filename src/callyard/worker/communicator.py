"""The communicator of a rank: made before any code of the user's runs, as a check that the ranks know each other.

With a launcher that does not fit the MPI library, each rank silently becomes rank 0 of 1, and a parallel function
computes a wrong result. So MPI is initialised first, and the size is compared. Then `mpi4py.MPI` is hidden until the
user's code imports it: an import shows that a function is really parallel.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import SchedulerError

_NAME = "mpi4py.MPI"
MPIEXEC = "mpiexec"  # in the words that start ranks: the launcher that is found there


class Communicator(NamedTuple):
    """The place of this rank, by the MPI library."""

    rank: int
    size: int
    library: str


def join_world() -> Communicator | None:
    """Initialise MPI; return None without mpi4py, or if mpi4py's variables leave the start of MPI to the function.

    The ranks then also agree on the variables for programs other than MPI.
    """
    try:
        from mpi4py import MPI
    except Exception:  # a function in need of mpi4py meets the same error
        return None
    world = world_of(MPI)
    if world is not None:
        from .rank_variables import set_variables  # here, because drivers load this module, too

        set_variables(MPI.COMM_WORLD, os.environ)
    _hide(MPI)
    return world


def world_of(mpi: Any) -> Communicator | None:
    """Return the place of this rank by the module `mpi4py.MPI`; None if MPI is not in use."""
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return None
    lines = mpi.Get_library_version().strip("\0 \n").splitlines() or ["MPI"]
    return Communicator(mpi.COMM_WORLD.rank, mpi.COMM_WORLD.size, " ".join(lines[0].partition(",")[0].split()))


def used_world() -> Communicator | None:
    """Return the place of this rank, if the user's code has imported mpi4py."""
    return world_of(sys.modules.get(_NAME))


def check_used_world(ranks: int) -> None:
    """Raise an error if the function has initialised MPI by itself, and was alone: only its run could show this."""
    world = used_world()
    if world is not None and world.size != ranks:
        raise SchedulerError(
            f"the {ranks} ranks of the call did not know each other, {world.library} had each be one of {world.size}: "
            "without MPI4PY_RC_INITIALIZE that is seen before it runs"
        )


def find_launcher() -> str | None:
    """Return the path of `mpiexec` or `mpirun`; None if there is neither."""
    import shutil  # here, because the ranks, which load this module, do not need it

    return shutil.which(MPIEXEC) or shutil.which("mpirun")


def words_of_alone(name: str, ranks: int, size: int, library: str) -> str:
    """Return the beginning of the message for a call whose ranks do not know each other."""
    return f"{name!r} was not run: its {ranks} ranks do not know each other, {library} has each be one of {size}"


def words_of_none(name: str, ranks: int, why: str, advice: str) -> str:
    """Return the message for a call whose ranks ended without a word: some MPI libraries end them."""
    return f"{name!r} was not run: its {ranks} ranks did not begin: {why}; if that is for MPI, {advice}"


def launcher_advice(launcher: str | None) -> str:
    """Return the advice for a launcher that does not fit the library: the end of such a message."""
    return (
        f"{launcher} is not the launcher of that library: put the library's own mpiexec first in PATH, or let mpi4py "
        "load the launcher's (MPI4PY_LIBMPI)"
    )


def _hide(mpi: ModuleType) -> None:
    package: Any = sys.modules["mpi4py"]
    sys.meta_path.insert(0, _Hidden(mpi, package))
    del sys.modules[_NAME], package.MPI


class _Hidden:
    """A finder of the hidden module, for one import; the library cannot be loaded twice."""

    def __init__(self, mpi: ModuleType, package: Any) -> None:
        self._mpi, self._spec = mpi, mpi.__spec__
        self._settings, self._known = package.rc, dict(vars(package.rc))

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != _NAME:
            return None
        if vars(self._settings) != self._known:
            raise RuntimeError(
                f"mpi4py.rc was changed to {vars(self._settings)} after MPI was initialised, which is done before a "
                "call of several ranks runs: say it by variables, such as env={'MPI4PY_RC_INITIALIZE': '0'}"
            )
        sys.meta_path.remove(self)
        return ModuleSpec(name, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._mpi

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
