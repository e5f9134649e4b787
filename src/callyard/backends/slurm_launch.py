"""Live calls on nodes that Slurm is asked for: `Slurm(nodes=...)` outside of an allocation."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING

from ..cluster.launch import AgentProcess, NodeOffer, RanksToStart, StartedAgents
from ..cluster.node_placement import NodePlacement
from ..cluster.static_nodes import StaticNodes
from ..errors import CallyardError, ResourceError, SchedulerError
from ..hosts.mpi_plugins import MpiPlugins
from ..hosts.this_machine import open_host
from ..pool.call_shape import NodeCapacity
from ..resources import Resources
from ..schedulers.base import JobRequest
from ..schedulers.slurm import allocation
from ..schedulers.slurm import allocation as slurm_allocation
from ..schedulers.slurm import nodes as slurm_nodes
from ..schedulers.slurm.scheduler import SlurmScheduler
from ..schedulers.slurm.variables import environment
from .base import Settings
from .batch.scheduler_client import SchedulerClient
from .cluster import ClusterBackend, agent_command, rank_command
from .pilot_jobs import PilotJobs
from .run_directories import live_directory, log_directory

if TYPE_CHECKING:
    from .slurm import Slurm


class PilotLaunch:
    """Agents on the nodes of pilot jobs, which have these as a whole."""

    def __init__(self, slurm: Slurm) -> None:
        self._slurm = slurm
        nodes = slurm.nodes or 1
        self.least, self.most = (nodes, nodes) if isinstance(nodes, int) else nodes
        self.poll = slurm.poll
        self.directory = live_directory()
        self.interface, self.ports = slurm.interface, slurm.ports
        self._kinds: list[slurm_nodes.NodeKind] | None = None
        self.rank_launchers = MpiPlugins(slurm.mpi)
        self._pilots: PilotJobs | None = None

    # -- for the driver --------------------------------------------------------------------------------

    def offers(self, timed: bool) -> Sequence[NodeOffer]:
        time, gpus = self._slurm.walltime, self._gpus()
        return [
            NodeOffer(kind.cores, gpus, kind.memory, time)
            for kind in self._known()
            for _ in range(min(kind.nodes, self.most))
        ]

    def make_starter(self, placement: NodePlacement) -> PilotJobs:
        self._pilots = PilotJobs(self, SchedulerClient(SlurmScheduler(), open_host(), self.poll[0]), placement)
        return self._pilots

    def start_ranks(self, ranks: RanksToStart, way: str) -> StartedAgents:
        command = after(self._slurm, rank_command(ranks.arguments, python(self._slurm)))
        job = ranks.block.step_job
        argv = allocation.ranks(ranks.nodes, ranks.size, ranks.per_node, way, command, job)
        variables = {**environment(os.environ), **ranks.environment}
        return AgentProcess(ranks.nodes, argv, variables, noise=allocation.NOISE)

    def describe_node(self, node: str) -> str:
        block = None if self._pilots is None else self._pilots.job_on(node)
        return node if block is None else f"{node} (job {block.job})"

    def describe(self) -> str:
        many = f"{self.most}" if self.least == self.most else f"{self.least} to {self.most}"
        where = f" in partition {self._slurm.partition}" if self._slurm.partition else ""
        return f"{many} {'node' if self.most == 1 else 'nodes'} that Slurm is asked for{where}"

    # -- for the pilots --------------------------------------------------------------------------------

    def typical(self) -> NodeCapacity | None:
        kinds = self._known()
        if not kinds:
            return None
        kind = max(kinds, key=lambda kind: kind.nodes)
        return NodeCapacity(kind.cores, tuple(map(str, range(self._gpus()))), kind.memory)

    def request(self, token: str, size: int, count: int, contact: str) -> JobRequest:
        slurm = self._slurm
        command = [*_step(size), *after(slurm, agent_command(contact, token, python=python(slurm)), setup=False)]
        place = os.path.dirname(contact)
        asked = self._resources(size)
        log = f"{log_directory()}/{token}-{'{element}' if count > 1 else '0'}.log"
        script = f"{place}/{token}"
        with open(script, "x", opener=_private, encoding="utf-8") as file:
            file.write(self._script(asked, command, log, count))
        templated = slurm.template is not None
        return JobRequest(
            name="callyard",
            token=token,
            script=script,
            log=log,
            # All memory of the nodes; what is the template's business is not said twice.
            resources=asked if templated else asked.updated({"slurm_cmd_args": ["--mem=0"]}),
            elements=count if count > 1 else None,
            time=slurm.walltime,
            templated=templated,
        )

    def _resources(self, size: int) -> Resources:
        slurm = self._slurm
        asked = {name: getattr(slurm, name) for name in ("partition", "account", "qos", "constraint")}
        known = {name: value for name, value in asked.items() if value is not None}
        gres = {"gres": f"gpu:{self._gpus()}"} if self._gpus() else {}
        return Resources().updated({**known, **gres, "nodes": size, "ranks": size, "exclusive": True})

    def _gpus(self) -> int:
        """How many each node has at least: to ask for more would leave some nodes out."""
        return min((kind.gpus for kind in self._known()), default=0)

    def _script(self, asked: Resources, command: Sequence[str], log: str, count: int) -> str:
        from ..schedulers.script import job_script, render, variables

        text, setup = self._slurm.template_text(), self._slurm.setup_lines()
        if text is None:
            return job_script(command, setup)
        elements = count if count > 1 else None
        time = self._slurm.walltime
        known = variables(asked, command, job_name="callyard", log=log, setup=setup, time=time, elements=elements)
        return render(text, {**dict.fromkeys(self._slurm.own_keys()), **known})

    def _known(self) -> list[slurm_nodes.NodeKind]:
        """What the nodes have, asked once; nothing where nobody says, or where a template says what is asked for."""
        if self._slurm.template is not None:
            return []
        if self._kinds is None:
            partition = self._slurm.partition
            self._kinds = slurm_nodes.kinds(said_of(slurm_nodes.nodes(partition)), partition)
        return self._kinds


def _step(size: int) -> list[str]:
    return allocation.agents_of_job(size, [])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o700)


def open_nodes(slurm: Slurm, settings: Settings) -> ClusterBackend:
    """The live calls of `backend=Slurm(nodes=...)` outside of an allocation."""
    if slurm.calls_per_job != 1:
        raise CallyardError("calls_per_job is for calls that are jobs of their own; leave it out, or leave out nodes=")
    return ClusterBackend(PilotLaunch(slurm), settings)


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
        self._offers = {node.name: NodeOffer(node.cores, node.gpus, node.memory) for node in nodes}
        self._slurm = slurm
        self._end: float | None = None  # of the allocation, as far as it was asked for
        self.rank_launchers = MpiPlugins(slurm.mpi)
        self.directory = live_directory()
        self.interface, self.ports = slurm.interface, slurm.ports

    def offers(self, timed: bool) -> Sequence[NodeOffer]:
        left = self._time_left() if timed else None
        return [offer._replace(time=left) for offer in self._offers.values()]

    def make_starter(self, placement: NodePlacement) -> StaticNodes:
        return StaticNodes(self, placement)

    def nodes(self) -> Mapping[str, NodeOffer]:
        return self._offers

    def ends_in(self) -> float | None:
        return None if self._end is None else self._end - monotonic()

    def _time_left(self) -> float | None:
        """Asked once, for calls that have a time; infinite where nobody says."""
        if self._end is None:
            end = slurm_allocation.end_time(os.environ)
            self._end = monotonic() + (_ask_time_left(self._job) if end is None else end - time())
        return self.ends_in()

    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[StartedAgents]:
        command = after(self._slurm, agent_command(contact, python=python(self._slurm)))
        variables = slurm_allocation.step_environment(os.environ)
        if shutil.which("srun") is None:
            raise OSError("srun is not in PATH; load the cluster's Slurm module")
        argv = slurm_allocation.agents(nodes, command)
        return [AgentProcess(nodes, argv, variables, slurm_allocation.ended_on, slurm_allocation.NOISE)]

    def start_ranks(self, ranks: RanksToStart, way: str) -> StartedAgents:
        command = after(self._slurm, rank_command(ranks.arguments, python(self._slurm)))
        argv = slurm_allocation.ranks(ranks.nodes, ranks.size, ranks.per_node, way, command)
        variables = {**slurm_allocation.step_environment(os.environ), **ranks.environment}
        return AgentProcess(ranks.nodes, argv, variables, noise=slurm_allocation.NOISE)

    def describe_node(self, node: str) -> str:
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
    reply = open_host().run(argv, timeout=_PATIENCE, env=environment(os.environ))
    return reply.out + reply.err


def _ask_time_left(job: str) -> float:
    return slurm_allocation.times_left(said_of(slurm_allocation.time_left([job]))).get(job, inf)


def open_live(slurm: Slurm, settings: Settings) -> ClusterBackend:
    """The live calls of `backend=Slurm(...)` inside an allocation.

    Raises:
        CallyardError: this process is in none, or it has not what is asked for.
    """
    try:
        return ClusterBackend(StepLaunch(slurm), settings)
    except ValueError as error:
        if isinstance(error, CallyardError):
            raise
        raise SchedulerError(
            f"Slurm(detached=False) needs an allocation (salloc or sbatch), or nodes= to ask for; {error}"
        ) from error
