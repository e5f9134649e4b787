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


def launch_command(ranks: int, command: list[str]) -> list[str]:
    """The command that runs `command` on so many ranks here. All launchers understand `-n`."""
    return [find_launcher() or "mpiexec", "-n", str(ranks), *command]


def launcher_environment(directory: str) -> dict[str, str]:
    """What launchers read. Open MPI 4 and 5 have each their own names; the others need nothing.

    Cores are given out by Penstock, so the launcher shall neither count nor bind: two groups at once would be bound to
    the same first cores. Its files go into `directory`, which is removed even when it is killed. Who runs as root here
    already is not asked again by each launcher.
    """
    return {
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "OMPI_MCA_orte_tmpdir_base": directory,
        "OMPI_MCA_btl_vader_backing_directory": directory,
        "OMPI_MCA_btl_sm_backing_directory": directory,
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "PRTE_MCA_prte_tmpdir_base": directory,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
