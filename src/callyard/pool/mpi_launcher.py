"""The MPI launcher of this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from ..worker.communicator import find_launcher, launcher_advice


def why_no_mpi() -> str | None:
    """Return in words what is missing for calls with several ranks, and how to get it; None if nothing is."""
    if find_launcher() is None:
        return "neither mpiexec nor mpirun is in PATH; install an MPI, such as Open MPI"
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py is not installed; pip install 'callyard[mpi]'"
    return None


def launch_command(ranks: int, command: list[str]) -> list[str]:
    """Return the command that runs `command` on so many ranks here. All launchers understand `-n`."""
    return [find_launcher() or "mpiexec", "-n", str(ranks), *command]


class SingleLauncher:
    """The only way in which it starts ranks."""

    def candidates(self) -> list[str]:
        return [""]

    def fits(self, way: str) -> None:
        """That is how it should be."""

    def advice(self, tried: list[str]) -> str:
        return launcher_advice(find_launcher())


def as_if_alone(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for a launcher that is to start all ranks on this machine.

    Inside a job launchers find the scheduler's variables, and start ranks on all its nodes.
    """
    from ..schedulers.registry import environment_outside_jobs  # here, because most executors start no ranks

    temporary = {name: environ[name] for name in ("TMPDIR",) if name in environ}  # it is the same job's
    return {**environment_outside_jobs(environ), **temporary}


def launcher_environment(directory: str | None) -> dict[str, str]:
    """Return variables for launchers. Open MPI 4, 5 and 6 have each their own names; the others need nothing.

    Cores are given out by Callyard, so the launcher shall neither count nor bind: two groups at once would be bound to
    the same first cores. Its files go into `directory`, if one is given, which is removed even when it is killed. Who
    runs as root here already is not asked again by each launcher.
    """
    places = (
        "OMPI_MCA_orte_tmpdir_base",
        "OMPI_MCA_btl_vader_backing_directory",
        "OMPI_MCA_btl_sm_backing_directory",
        "PRTE_MCA_prte_tmpdir_base",
    )
    return {
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "PRTE_MCA_mapby": ":oversubscribe",
        "PRTE_MCA_bindto": "none",
        "PMIX_MCA_mca_base_suppress_deprecated_warning": "1",  # the names that 5 knows are old ones for 6
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        **(dict.fromkeys(places, directory) if directory is not None else {}),
    }
