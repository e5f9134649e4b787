"""Which of Slurm's MPI plugins fits here: found by trying, and kept in a file for each cluster."""

from __future__ import annotations

import contextlib
import os
import re
from functools import cached_property

from ..schedulers.slurm import mpi
from ..schedulers.slurm.variables import environment
from ..utils.paths import runs_directory
from .this_machine import LocalHost

__all__ = ["MpiPlugins"]

_PATIENCE = 10.0  # s for an answer that one can do without


class MpiPlugins:
    """The ways in which `srun` may start ranks here, by the words after `--mpi=`; an empty one is its default."""

    def __init__(self, chosen: str | None) -> None:
        """`chosen`: what the user says, which alone is tried then."""
        self._chosen = chosen

    def candidates(self) -> list[str]:
        """Those to try, in this order."""
        if self._chosen is not None:
            return [self._chosen]
        return mpi.candidates(self._offered, _noted())

    def fits(self, name: str) -> None:
        """Remember that ranks have found each other by this one."""
        if self._chosen is None and name and name != _noted():
            with contextlib.suppress(OSError):  # it is found again
                _note(name)

    def advice(self, tried: list[str]) -> str:
        """What to do when ranks have found each other by none of these."""
        return mpi.advice(self._chosen, tried, self._offered)

    @cached_property
    def _offered(self) -> list[str]:
        reply = LocalHost().run(mpi.LIST, timeout=_PATIENCE, env=environment(os.environ))
        return mpi.offered(reply.out + reply.err)


def _path() -> str:
    cluster = os.environ.get("SLURM_CLUSTER_NAME", "")
    return os.path.join(runs_directory(), f"mpi-{re.sub(r'[^A-Za-z0-9_-]', '_', cluster)}")


def _noted() -> str | None:
    try:
        with open(_path(), encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError):
        return None


def _note(name: str) -> None:
    path = _path()
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    part = f"{path}.{os.getpid()}"
    with open(part, "w", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(name)
    os.replace(part, path)
