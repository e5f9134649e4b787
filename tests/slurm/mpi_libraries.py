"""MPI libraries for ranks that Slurm starts: which of its plugins fits differs between them."""

from __future__ import annotations

import ctypes.util
import os
from pathlib import Path

import pytest
from cluster import Cluster


@pytest.fixture
def mpich(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let mpi4py load MPICH: Slurm's pmi2 fits it, its pmix often does not."""
    name = ctypes.util.find_library("mpich")
    if name is None:
        pytest.skip("there is no libmpich here")
    place = tmp_path / "mpich"
    place.mkdir()
    own = next(path for path in Path("/usr").glob(f"lib*/**/{name}"))
    (place / "libmpi.so.12").symlink_to(own)  # Debian's has a name of its own
    monkeypatch.setenv("MPI4PY_LIBMPI", str(place / "libmpi.so.12"))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{place}:{os.environ.get('LD_LIBRARY_PATH', '')}")


@pytest.fixture
def fitting_mpi(slurm: Cluster, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mpi4py load a library that one of the cluster's plugins fits: Open MPI needs PMIx."""
    if "pmix" not in slurm.run("srun", "--mpi=list"):
        request.getfixturevalue("mpich")
    # All nodes are this machine, where Open MPI's shared memory mixes up ranks that have the same number on theirs.
    monkeypatch.setenv("OMPI_MCA_btl", "tcp,self")
