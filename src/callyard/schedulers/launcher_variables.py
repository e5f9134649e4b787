"""The variables of MPI launchers: those with the rank of a process, and those to hide from another launcher.

Ranks load this module, so it loads nothing itself.
"""

from __future__ import annotations

__all__ = ["LOCAL_RANK_VARIABLES", "RANK_VARIABLES", "is_of_launcher"]

# The rank of a process, and the rank on its machine: Open MPI, PMIx, MPICH and Intel, MVAPICH.
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
LOCAL_RANK_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK")

_PREFIXES = (
    "HYDI_",
    "HYDRA_",
    "MPI_LOCAL",
    "OMPI_COMM_WORLD_",
    "OMPI_MCA_ess",
    "OMPI_MCA_orte_",
    "OMPI_MCA_pmix",
    "PALS_",
    "PMI_",
    "PMIX_",
    "PRTE_MCA_ess",
    "PRTE_MCA_prte_",
)
_EXACT = frozenset(
    {
        "OMPI_APP_CTX_NUM_PROCS",
        "OMPI_ARGV",
        "OMPI_COMMAND",
        "OMPI_FILE_LOCATION",
        "OMPI_FIRST_RANKS",
        "OMPI_MCA_initial_wdir",
        "OMPI_NUM_APP_CTX",
        "OMPI_UNIVERSE_SIZE",
        "OMPI_VERSION",
        "PRTE_LAUNCHED",
    }
)


def is_of_launcher(name: str) -> bool:
    """Return True for a variable of one launcher to its ranks, which would mislead the ranks of another."""
    return name in _EXACT or name.startswith(_PREFIXES)
