"""The public class `Slurm`: the settings of a cluster, and the making of an executor's backend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..argument_checks import place_in_backend
from ..errors import CallyardError, ResourceError, SchedulerError
from ..errors.suggestions import strict_init
from ..resource_values import Amount, whole
from .base import Backend, Settings
from .scheduler_settings import SchedulerSettings, lines

if TYPE_CHECKING:
    from ..result_cache import Cache
    from .scheduler_launch import LaunchSettings

__all__ = ["Slurm"]


@strict_init(place_in_backend)
@dataclass(frozen=True)
class Slurm(SchedulerSettings):
    """A cluster that Slurm manages: a backend for `Executor`.

    Outside an allocation each call becomes a job that outlives this process (`detached`); inside one, or with `nodes`,
    calls are sent to workers on its nodes.

    Args:
        nodes: the number of nodes to keep workers on, or (fewest, most): outside an allocation jobs ask for nodes, as
            calls need them; inside, a number of its own nodes.
        walltime: the time limit of such a job, and of a call that is a job without `run_time`: seconds, or a text as
            "2h".
        partition: the partition of calls that name none.
        account: the account of calls that name none.
        qos: the quality of service of calls that name none.
        constraint: the constraint on nodes of calls that name none.
        reservation: the reservation of calls that name none.
        template: a Jinja job script in the place of Callyard's own: the text, or the path of a file. Calls may ask for
            resources by the names in the template.
        mpi: the plugin for `srun --mpi=`; default: the first that fits is found by trying.
        python: the interpreter on the nodes; default: this one.
        setup: lines of shell before the interpreter, as "module load gcc"; one text or several.
        teardown: lines of shell after the calls of a job, whatever has become of them; the outcome is known before.
        launcher: a command before the interpreter, as `("apptainer", "exec", "image.sif")`.
        interface: the network interface to listen on for workers, by its name or address; default: all.
        ports: the range of ports to listen on, (low, high), as open in a firewall.
        poll: the shortest and the longest time between two questions to the scheduler about jobs (s).
        result_grace: the longest time after the end of a job until its result is visible (s); not given to jobs that
            have left their exit code.
        calls_per_job: the number of short calls in one job, one after the other.
        log_limit: the most that the log of a job, or of each of its calls, may take on disk (GiB, or a text as
            "100MB"; at least 4 KiB). Of a longer log the beginning and the end are kept.
        detached: True for calls that are jobs and outlive this process; default: see above.
        exclude_failed_nodes: True to submit no further job of this executor to a node on which one has failed by a
            fault of the node.
        host: another machine that submits; not here yet.

    Raises:
        ResourceError: an argument makes no sense.
        CallyardError: two arguments do not go together, or `host` is given. `Executor` raises it, too, if the template
            cannot be read, and `SchedulerError` for `detached=False` outside an allocation.
        TypeError: an argument is unknown.

    >>> slurm = Slurm(partition="short", setup="module load gcc")
    >>> with Executor(backend=slurm, cache="results") as executor:  # doctest: +SKIP
    ...     energy = executor.submit(relax, atoms, resource_dict={"cores": 4, "run_time": "2h"})
    """

    nodes: int | tuple[int, int] | None = None
    walltime: Amount = Amount()
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    template: str | os.PathLike[str] | None = None
    mpi: str | None = None
    python: str | os.PathLike[str] | None = None
    setup: str | Sequence[str] = ()
    teardown: str | Sequence[str] = ()
    launcher: str | Sequence[str] = ()
    interface: str | None = None
    ports: tuple[int, int] | None = None
    poll: tuple[float, float] = (5.0, 60.0)
    result_grace: float = 60.0
    calls_per_job: int = 1
    log_limit: Amount = Amount("100MB")
    detached: bool | None = None
    exclude_failed_nodes: bool = False
    host: None = None

    _scheduler = "Slurm"
    _defaults = ("partition", "account", "qos", "constraint", "reservation")
    _texts = ("mpi", "interface", "template", "python")

    def __post_init__(self) -> None:
        self._check()
        _check_nodes(self.nodes)
        _check_ports(self.ports)
        if not isinstance(self.exclude_failed_nodes, bool):
            raise ResourceError(f"exclude_failed_nodes must be True or False, not {self.exclude_failed_nodes!r}")
        if self.detached and self.nodes is not None and not _is_inside():
            raise CallyardError(
                "detached=True makes each call a job of its own; leave out nodes=, or say detached=False"
            )

    @property
    def other_resources(self) -> Sequence[str]:
        """The names of the template, which calls may use as resources beside the common ones."""
        return self._template_keys() if _is_detached(self) else ()

    def open(self, settings: Settings, cache: Cache | None = None) -> Backend:
        """Make the backend of an executor.

        Raises:
            CallyardError: the settings do not go together, the template cannot be read, or no allocation has so many
                nodes.
        """
        if _is_detached(self):
            return self._open_detached(settings, cache)
        return _open_live(self, settings)


def _is_inside() -> bool:
    """Return True if this process runs inside an allocation."""
    return "SLURM_JOB_ID" in os.environ


def _is_detached(slurm: Slurm) -> bool:
    return (not _is_inside() and slurm.nodes is None) if slurm.detached is None else slurm.detached


def _open_live(slurm: Slurm, settings: Settings) -> Backend:
    from .cluster import ClusterBackend
    from .scheduler_launch import PilotLaunch, StepLaunch

    if slurm.nodes is not None and not _is_inside():
        for name in ("calls_per_job", "log_limit"):
            if getattr(slurm, name) != getattr(Slurm, name):
                raise CallyardError(
                    f"{name} is for calls that are jobs of their own; leave it out, or leave out nodes="
                )
        own = _launch_settings(slurm, slurm._template_text(), slurm._template_keys())
        return ClusterBackend(PilotLaunch(own), settings, own.check)
    try:
        if slurm.exclude_failed_nodes:
            raise CallyardError("exclude_failed_nodes is for jobs, and calls in an allocation are none; leave it out")
        if slurm.teardown:
            raise CallyardError("teardown is for jobs of Callyard's own; put its lines at the end of this job's script")
        own = _launch_settings(slurm, None, ())
        return ClusterBackend(StepLaunch(own), settings, own.check)
    except ValueError as error:
        if isinstance(error, CallyardError):
            raise
        raise SchedulerError(
            f"Slurm(detached=False) needs an allocation (salloc or sbatch), or nodes= to ask for; {error}"
        ) from error


def _launch_settings(slurm: Slurm, template: str | None, template_keys: Sequence[str]) -> LaunchSettings:
    from ..hosts.this_machine import open_host
    from ..schedulers.registry import open_scheduler
    from .scheduler_launch import LaunchSettings

    return LaunchSettings(
        scheduler=open_scheduler(slurm._scheduler),
        host=open_host(),
        nodes=slurm.nodes,
        asked=slurm._asked(),
        walltime=slurm.walltime,
        template=template,
        template_keys=template_keys,
        python=None if slurm.python is None else os.fspath(slurm.python),
        setup=lines(slurm.setup),
        teardown=lines(slurm.teardown),
        launcher=slurm._launcher(),
        mpi=slurm.mpi,
        interface=slurm.interface,
        ports=slurm.ports,
        poll=slurm.poll,
        exclude_failed_nodes=slurm.exclude_failed_nodes,
    )


def _check_ports(ports: object) -> None:
    if ports is None:
        return
    if isinstance(ports, (tuple, list)) and len(ports) == 2 and all(type(each) is int for each in ports):
        low, high = ports
        if 0 < low <= high < 1 << 16:
            return
    raise ResourceError(f"ports must be (lowest, highest) of a range of ports, not {ports!r}")


def _check_nodes(nodes: object) -> None:
    if nodes is None or isinstance(nodes, int):
        whole("nodes", 1 if nodes is None else nodes, 1)
        return
    if isinstance(nodes, tuple) and len(nodes) == 2 and all(type(number) is int for number in nodes):
        low, high = nodes
        if 0 <= low <= high and high >= 1:
            return
    raise ResourceError(f"nodes must be a number of nodes or (fewest, most), not {nodes!r}")
