"""The MPI launcher of this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from ..worker.communicator import find_launcher, launcher_advice


def why_no_mpi() -> str | None:
    """Return words on the missing part for calls with several ranks, and how to get it; None if nothing is."""
    if find_launcher() is None:
        return "neither mpiexec nor mpirun is in PATH; install an MPI, such as Open MPI"
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py is not installed; pip install 'callyard[mpi]'"
    return None


def launch_command(ranks: int, command: list[str]) -> list[str]:
    """Return the command that runs `command` on this number of ranks here. All launchers understand `-n`."""
    return [find_launcher() or "mpiexec", "-n", str(ranks), *command]


class SingleLauncher:
    """The launcher of one machine, with one way to start ranks; the launcher of a cluster has several to try."""

    def candidates(self) -> list[str]:
        return [""]

    def fits(self, way: str) -> None:
        """Do nothing: there is no other way."""

    def advice(self, tried: list[str]) -> str:
        return launcher_advice(find_launcher())


def as_if_alone(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` for a launcher that should start all ranks on this machine.

    Inside a job, launchers find the scheduler's variables, and would start ranks on all nodes of the job.
    """
    from ..schedulers.registry import environment_outside_jobs  # here, because most executors start no ranks

    temporary = {name: environ[name] for name in ("TMPDIR",) if name in environ}  # the job's own directory
    return {**environment_outside_jobs(environ), **temporary}


def launcher_environment(directory: str | None) -> dict[str, str]:
    """Return variables for launchers. Open MPI 4, 5 and 6 have names of their own; other launchers need none.

    Callyard gives out the cores, so the launcher must neither count nor bind: two groups at once would be bound to the
    same first cores. The launcher's files go into `directory`, if given: the zygote removes the directory even when the
    launcher is killed. A user who is root here has decided so, and is not asked again by each launcher.
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
        "PMIX_MCA_mca_base_suppress_deprecated_warning": "1",  # Open MPI 5 knows the names; 6 warns
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        **(dict.fromkeys(places, directory) if directory is not None else {}),
    }
