"""Live calls on the nodes of a Slurm allocation: one step in it, with one agent per node."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING

from ..errors import CallyardError, ResourceError, SchedulerError
from ..hosts.here import Here
from ..hosts.mpi_plugins import Plugins
from ..node.fixed import Fixed
from ..node.fleet import Fleet
from ..node.launch import Offer, Process, Ranks, Started
from ..schedulers import slurm_allocation
from ..schedulers.slurm_environment import environment
from .base import Settings
from .live import LiveBackend, agent_command, rank_command
from .rooms import live_directory

if TYPE_CHECKING:
    from .slurm import Slurm

_PATIENCE = 10.0  # s for an answer that one can do without
_SETUP = 'set -e\n{setup}\nexec "$@"'


class StepLaunch:
    """Agents started by `srun` on the nodes of the allocation that this process is in."""

    def __init__(self, slurm: Slurm, environ: Mapping[str, str] = os.environ) -> None:
        allocation = slurm_allocation.read_allocation(environ)
        nodes = allocation.nodes[: _how_many(slurm, len(allocation.nodes))]
        self._job = allocation.job
        self._offers = {node.name: Offer(node.cores, node.gpus, node.memory) for node in nodes}
        self._slurm = slurm
        self._end: float | None = None  # of the allocation, as far as it was asked for
        self.ways = Plugins(slurm.mpi)
        self.directory = live_directory()
        self.interface, self.ports = slurm.interface, slurm.ports

    def offers(self, timed: bool) -> Sequence[Offer]:
        left = self._time_left() if timed else None
        return [offer._replace(time=left) for offer in self._offers.values()]

    def muster(self, fleet: Fleet) -> Fixed:
        return Fixed(self, fleet)

    def nodes(self) -> Mapping[str, Offer]:
        return self._offers

    def ends_in(self) -> float | None:
        return None if self._end is None else self._end - monotonic()

    def _time_left(self) -> float | None:
        """Asked once, for calls that have a time; infinite where nobody says."""
        if self._end is None:
            end = slurm_allocation.end_time(os.environ)
            self._end = monotonic() + (_ask_time_left(self._job) if end is None else end - time())
        return self.ends_in()

    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[Started]:
        command = after(self._slurm, agent_command(contact, python=python(self._slurm)))
        variables = slurm_allocation.step_environment(os.environ)
        if shutil.which("srun") is None:
            raise OSError("srun is not in PATH; load the cluster's Slurm module")
        argv = slurm_allocation.agents(nodes, command)
        return [Process(nodes, argv, variables, slurm_allocation.ended_on, slurm_allocation.NOISE)]

    def start_ranks(self, ranks: Ranks, way: str) -> Started:
        command = after(self._slurm, rank_command(ranks.arguments, python(self._slurm)))
        argv = slurm_allocation.ranks(ranks.nodes, ranks.size, ranks.per_node, way, command)
        variables = {**slurm_allocation.step_environment(os.environ), **ranks.environment}
        return Process(ranks.nodes, argv, variables, noise=slurm_allocation.NOISE)

    def lost(self, node: str) -> str:
        return f"{node} (job {self._job})"

    def describe(self) -> str:
        cores = sum(offer.cores or 0 for offer in self._offers.values())
        return f"{len(self._offers)} nodes of Slurm job {self._job}: {cores} cores"


def _how_many(slurm: Slurm, there: int) -> int:
    if slurm.nodes is None:
        return there
    least, most = slurm.nodes if isinstance(slurm.nodes, tuple) else (slurm.nodes, slurm.nodes)
    if least > there:
        raise ResourceError(f"nodes={slurm.nodes!r} was asked for, and this allocation has {there}; ask for fewer")
    return min(most, there)


def python(slurm: Slurm) -> str | None:
    return None if slurm.python is None else os.fspath(slurm.python)


def after(slurm: Slurm, command: Sequence[str], *, setup: bool = True) -> list[str]:
    """The command behind what the user wants to come first on a node."""
    launcher = shlex.split(slurm.launcher) if isinstance(slurm.launcher, str) else list(slurm.launcher)
    lines = "\n".join(slurm.setup_lines()) if setup else ""
    before = ["bash", "-c", _SETUP.format(setup=lines), "callyard"] if lines else []
    return [*before, *launcher, *command]


def said_of(argv: Sequence[str]) -> str:
    """What a command of Slurm's says, without insisting: nothing where it does not answer."""
    reply = Here().run(argv, timeout=_PATIENCE, env=environment(os.environ))
    return reply.out + reply.err


def _ask_time_left(job: str) -> float:
    return slurm_allocation.times_left(said_of(slurm_allocation.time_left([job]))).get(job, inf)


def open_live(slurm: Slurm, settings: Settings) -> LiveBackend:
    """The live calls of `backend=Slurm(...)` inside an allocation.

    Raises:
        CallyardError: this process is in none, or it has not what is asked for.
    """
    try:
        return LiveBackend(StepLaunch(slurm), settings)
    except ValueError as error:
        if isinstance(error, CallyardError):
            raise
        raise SchedulerError(
            f"Slurm(detached=False) needs an allocation (salloc or sbatch), or nodes= to ask for; {error}"
        ) from error
