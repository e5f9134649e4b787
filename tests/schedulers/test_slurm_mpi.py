"""Slurm's plugins for MPI, from what its versions print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.schedulers.slurm import mpi

OLD = """\
srun: MPI types are...
srun: none
srun: pmi2
srun: openmpi
"""
NEW = """\
MPI plugin types are...
\tpmix
\tnone
\tcray_shasta
\tpmi2
specific pmix plugin versions available: pmix_v3,pmix_v5,pmix_v4
"""


@pytest.mark.parametrize(
    ("said", "names", "order"),
    [
        (OLD, ["none", "pmi2", "openmpi"], ["pmi2", "openmpi"]),
        (
            NEW,
            ["pmix", "none", "cray_shasta", "pmi2", "pmix_v5", "pmix_v4", "pmix_v3"],
            ["pmix", "pmix_v5", "pmix_v4", "pmix_v3", "pmi2", "cray_shasta"],
        ),
        ("MPI plugin types are...\n\tnone\n", ["none"], [""]),
        ("srun: error: Unable to contact slurm controller (connect failure)\n", [], [""]),
        ("", [], [""]),
    ],
)
def test_what_is_offered_and_tried(said: str, names: list[str], order: list[str]) -> None:
    assert mpi.offered(said) == names
    assert mpi.candidates(names) == order


NAMES = st.lists(st.sampled_from(["none", "pmix", "pmix_v4", "pmi2", "cray_shasta", "openmpi"]), unique=True)


@given(NAMES, st.none() | st.sampled_from(["none", "pmi2", "gone", "", "openmpi"]))
def test_each_is_tried_once_and_the_one_that_fitted_first(names: list[str], fitted: str | None) -> None:
    order = mpi.candidates(names, fitted)
    assert sorted(order) == sorted(set(names) - {"none"}) or order == [""]
    assert fitted not in names or fitted == "none" or order[0] == fitted


def test_advice() -> None:
    assert mpi.advice("pmix", ["pmix"], ["none", "pmi2"]) == (
        "Slurm(mpi='pmix') does not fit the MPI library, and `srun --mpi=list` offers none, pmi2: "
        "name another by mpi=, or leave it out"
    )
    assert mpi.advice(None, ["pmi2", "cray_shasta"], ["none", "pmi2", "cray_shasta"]) == (
        "`srun --mpi=list` offers none, pmi2, cray_shasta, of which pmi2, cray_shasta did not fit the MPI library: "
        "name another by mpi=, or use a library that one of them fits"
    )
