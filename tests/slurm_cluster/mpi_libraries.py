"""MPI libraries for ranks that Slurm starts: which of its plugins fits differs between them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cluster import Cluster

UNPACKED = Path(__file__).parents[2] / ".venv/mpich"  # by `make mpi`


@pytest.fixture
def mpich(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let mpi4py load MPICH: Slurm's pmi2 fits it, its pmix often does not."""
    found = next(UNPACKED.glob("usr/lib/*/libmpich.so.12"), None)
    if found is None:
        pytest.skip("there is no MPICH here: `make mpi` brings it where there is apt")
    place = tmp_path / "mpich"
    place.mkdir()
    (place / "libmpi.so.12").symlink_to(found)  # Debian's has a name of its own
    monkeypatch.setenv("MPI4PY_LIBMPI", str(place / "libmpi.so.12"))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{place}:{os.environ.get('LD_LIBRARY_PATH', '')}")


@pytest.fixture
def fitting_mpi(slurm: Cluster, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mpi4py load a library that one of the cluster's plugins fits: Open MPI needs PMIx."""
    if "pmix" not in slurm.run("srun", "--mpi=list"):
        request.getfixturevalue("mpich")
    # All nodes are this machine, where Open MPI's shared memory mixes up ranks that have the same number on theirs.
    monkeypatch.setenv("OMPI_MCA_btl", "tcp,self")
