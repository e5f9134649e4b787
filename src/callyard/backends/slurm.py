"""The public class `Slurm`: the settings of a cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..argument_checks import place_in_backend
from ..errors import ResourceError
from ..errors.suggestions import strict_init
from ..resource_values import Amount
from .live_settings import LiveSettings

__all__ = ["Slurm"]


@strict_init(place_in_backend)
@dataclass(frozen=True)
class Slurm(LiveSettings):
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
        if not isinstance(self.exclude_failed_nodes, bool):
            raise ResourceError(f"exclude_failed_nodes must be True or False, not {self.exclude_failed_nodes!r}")
