"""The launch of live calls through a scheduler: agents on nodes of an allocation, or of jobs submitted for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic, time

from ..cluster.base import AgentProcess, ListenSettings, RanksToStart, StartedAgents
from ..cluster.node_placement import NodePlacement
from ..cluster.static_nodes import StaticNodes
from ..errors import ResourceError
from ..hosts.base import Host
from ..hosts.mpi_plugins import MpiPlugins
from ..pool.call_shape import NodeCapacity, NodeOffer
from ..resources import Resources
from ..schedulers.base import JobId, JobRequest, Scheduler
from ..schedulers.command import Query
from ..schedulers.steps import Allocation, NodeKind, RankStep, Steps
from ..utils.quantities import counted
from .batch.scheduler_client import SchedulerClient
from .cluster import agent_command, rank_command
from .failed_nodes import FailedNodes
from .pilot_jobs import PilotJobs
from .resource_mapping import with_nodes
from .run_directories import live_directory, log_directory

__all__ = ["LaunchSettings", "PilotLaunch", "StepLaunch"]

_TIME_LIMIT = 10.0  # s for an answer that is not necessary
_SETUP = 'set -e\n{setup}\nexec "$@"'


@dataclass(frozen=True)
class LaunchSettings:
    """The user's settings of live calls on nodes, besides the scheduler and the host of its commands.

    Attributes:
        nodes: the number of nodes, or the fewest and the most; None for all of the allocation.
        asked: the resources of pilot jobs, such as their partition.
        walltime: the time limit of pilot jobs (s).
        template: the script of pilot jobs as a Jinja template.
        template_keys: the template's names of the user's own.
        python: the interpreter on the nodes; None for this one.
        setup: the shell lines before the interpreter.
        teardown: the shell lines after the agents of a pilot job.
        launcher: the words before the interpreter.
        mpi: the plugin by which ranks find each other.
        interface: the network interface to listen on for agents.
        ports: the range of ports to listen on.
        poll: the shortest and the longest time between two questions about jobs (s).
        exclude_failed_nodes: whether pilot jobs keep away from nodes on which one has failed.
    """

    scheduler: Scheduler
    host: Host
    nodes: int | tuple[int, int] | None
    asked: Mapping[str, object]
    walltime: float | None
    template: str | None
    template_keys: Sequence[str]
    python: str | None
    setup: Sequence[str]
    launcher: Sequence[str]
    mpi: str | None
    interface: str | None
    ports: tuple[int, int] | None
    poll: tuple[float, float]
    exclude_failed_nodes: bool = False
    teardown: Sequence[str] = ()

    @property
    def steps(self) -> Steps:
        """The scheduler's way to start processes on nodes."""
        steps = self.scheduler.site().steps
        if steps is None:
            raise ResourceError(f"{self.scheduler.name} starts no processes on nodes, only jobs: say detached=True")
        return steps

    @property
    def job_variables(self) -> Mapping[str, str]:
        """The variable from which processes on nodes learn the names of the job's variables."""
        return self.scheduler.site().job_variables.environment()

    def on_node(self, command: Sequence[str], *, setup: bool = True) -> list[str]:
        """Return the command behind the user's words for the start on a node."""
        lines = "\n".join(self.setup) if setup else ""
        before = ["bash", "-c", _SETUP.format(setup=lines), "callyard"] if lines else []
        return [*before, *self.launcher, *command]

    def environment(self) -> dict[str, str]:
        """Return the variables for the scheduler's commands, outside an allocation."""
        return self.scheduler.site().environment(self.host.environment())

    def said(self, query: Query[object]) -> str:
        """Return both streams of a command; nothing if it fails, because the answer is not necessary."""
        reply = self.host.run(query.argv, timeout=_TIME_LIMIT, env=self.environment(), stdin=query.stdin)
        return reply.out + reply.err


class PilotLaunch:
    """Agents on the nodes of pilot jobs, which have whole nodes."""

    def __init__(self, settings: LaunchSettings) -> None:
        self._settings, self._steps = settings, settings.steps
        nodes = settings.nodes or 1
        self.least, self.most = (nodes, nodes) if isinstance(nodes, int) else nodes
        self.poll = settings.poll
        self.listen = ListenSettings(live_directory(), settings.interface, settings.ports)
        self._kinds: Sequence[NodeKind] | None = None
        self.rank_launchers = MpiPlugins(settings.scheduler.site(), settings.host, settings.mpi)
        self._pilots: PilotJobs | None = None
        self.failed_nodes = FailedNodes(settings.exclude_failed_nodes)

    def check(self, resources: Resources) -> None:
        """Raise ResourceError for resources that no call can have on such nodes."""
        self._settings.scheduler.site().check_live(resources)
        nodes = with_nodes(resources).nodes or 1
        if nodes > 1 and not self._steps.reaches_jobs:
            raise ResourceError(
                f"nodes={nodes}: {self._settings.scheduler.name} starts no ranks on the nodes of jobs from outside; "
                f"submit this call inside {self._steps.how_to_get_one}, or with detached=True"
            )

    # -- as a launch -----------------------------------------------------------------------------------

    def offers(self, timed: bool) -> Sequence[NodeOffer]:
        time, gpus = self._settings.walltime, self._gpus()
        return [
            NodeOffer(kind.cores, gpus, kind.memory, time)
            for kind in self._known()
            for _ in range(min(kind.nodes, self.most))
        ]

    def make_starter(self, placement: NodePlacement) -> PilotJobs:
        client = SchedulerClient(self._settings.scheduler, self._settings.host, self.poll[0])
        self._pilots = PilotJobs(self, client, placement)
        return self._pilots

    def start_ranks(self, ranks: RanksToStart, way: str) -> StartedAgents:
        environment = {**self._settings.environment(), **ranks.environment}
        return _start_ranks(self._settings, ranks, way, environment, ranks.block.step_job)

    def describe_node(self, node: str) -> str:
        block = None if self._pilots is None else self._pilots.job_on(node)
        return node if block is None else f"{node} (job {block.job})"

    def describe(self) -> str:
        many = f"{self.most}" if self.least == self.most else f"{self.least} to {self.most}"
        asked = self._settings.asked
        where = next((f" in {key} {asked[key]}" for key in ("partition", "queue") if asked.get(key)), "")
        name = self._settings.scheduler.name
        there = 0 if self._pilots is None else self._pilots.count
        return f"{there} {'node' if there == 1 else 'nodes'}, of {many} that {name} is asked for{where}"

    # -- for the pilot jobs ----------------------------------------------------------------------------

    def typical(self) -> NodeCapacity | None:
        kinds = self._known()
        if not kinds:
            return None
        kind = max(kinds, key=lambda kind: kind.nodes)
        return NodeCapacity(kind.cores, tuple(map(str, range(self._gpus()))), kind.memory)

    def request(self, token: str, size: int, count: int, contact: str) -> JobRequest:
        settings = self._settings
        command = agent_command(contact, settings.job_variables, token, python=settings.python)
        agent = settings.on_node(command, setup=False)
        asked = self._resources(size)
        log = f"{log_directory()}/{token}-{'{element}' if count > 1 else '0'}.log"
        script = f"{os.path.dirname(contact)}/{token}"
        with open(script, "x", opener=_private, encoding="utf-8") as file:
            file.write(self._script(asked, self._steps.agents(size, agent), log, count))
        return JobRequest(
            name="callyard",
            token=token,
            script=script,
            log=log,
            resources=asked,
            elements=count if count > 1 else None,
            time=settings.walltime,
            whole_nodes=True,
            templated=settings.template is not None,
        )

    def _resources(self, size: int) -> Resources:
        gres = {"gres": f"gpu:{self._gpus()}"} if self._gpus() else {}
        whole = {"nodes": size, "ranks": size, "exclusive": True}
        return self.failed_nodes.without(Resources().updated({**self._settings.asked, **gres, **whole}))

    def _gpus(self) -> int:
        """Return the smallest number of GPUs of the nodes: a larger request would leave some nodes out."""
        return min((kind.gpus for kind in self._known()), default=0)

    def _script(self, asked: Resources, command: Sequence[str], log: str, count: int) -> str:
        from ..schedulers.script import job_script, render, variables

        settings = self._settings
        if settings.template is None:
            return job_script(command, settings.setup, teardown=settings.teardown)
        known = variables(
            asked, command, job_name="callyard", log=log, setup=settings.setup, teardown=settings.teardown,
            time=settings.walltime, elements=count if count > 1 else None,
        )  # fmt: skip
        return render(settings.template, {**dict.fromkeys(settings.template_keys), **known})

    def _known(self) -> Sequence[NodeKind]:
        """Return the kinds of nodes, asked for once; nothing without an answer, or if a template asks for nodes."""
        ask = self._settings.scheduler.site().nodes
        if ask is None or self._settings.template is not None:
            return []
        if self._kinds is None:
            partition = self._settings.asked.get("partition")
            query = ask(None if partition is None else str(partition))
            self._kinds = query.read(self._settings.said(query))
        return self._kinds


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o700)


class StepLaunch:
    """Agents on the nodes of the allocation around this process, started as steps."""

    def __init__(self, settings: LaunchSettings, allocation: Allocation) -> None:
        """Choose nodes of the allocation.

        Raises:
            ResourceError: the allocation has too few nodes.
        """
        self._settings, self._steps, self._allocation = settings, settings.steps, allocation
        nodes = allocation.nodes[: _how_many(settings.nodes, len(allocation.nodes))]
        self._offers = {node.name: NodeOffer(node.cores, node.gpus, node.memory) for node in nodes}
        self._addresses = {node.name: node.address or node.name for node in nodes}
        self._names = {address: name for name, address in self._addresses.items()}
        self._end: float | None = None  # of the allocation, once asked for
        self.rank_launchers = MpiPlugins(settings.scheduler.site(), settings.host, settings.mpi)
        self.listen = ListenSettings(live_directory(), settings.interface, settings.ports)
        self.tells_each_end, self.how_to_keep_one = self._steps.ended_on is not None, self._steps.how_to_keep_one

    def check(self, resources: Resources) -> None:
        """Raise ResourceError for resources that mean nothing to the scheduler."""
        self._settings.scheduler.site().check_live(resources)

    def offers(self, timed: bool) -> Sequence[NodeOffer]:
        left = self._time_left() if timed else None
        return [offer._replace(time=left) for offer in self._offers.values()]

    def make_starter(self, placement: NodePlacement) -> StaticNodes:
        return StaticNodes(self, placement)

    def nodes(self) -> Mapping[str, NodeOffer]:
        return self._offers

    def ends_in(self) -> float | None:
        return None if self._end is None else self._end - monotonic()

    def is_over(self, said: str) -> bool:
        return self._settings.scheduler.site().is_over(said)

    def _time_left(self) -> float | None:
        """Return the seconds to the end of the allocation, asked for once; infinite without an answer."""
        if self._end is None:
            ends = self._allocation.ends
            self._end = monotonic() + (self._ask_time_left() if ends is None else ends - time())
        return self.ends_in()

    def _ask_time_left(self) -> float:
        ask, job = self._settings.scheduler.site().time_left, JobId.parse(self._allocation.job)
        if ask is None:
            return inf
        query = ask([job])
        return query.read(self._settings.said(query)).get(job, inf)

    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[StartedAgents]:
        settings, steps = self._settings, self._steps
        command = settings.on_node(agent_command(contact, settings.job_variables, python=settings.python))
        if shutil.which(steps.launcher) is None:
            name = settings.scheduler.name
            raise OSError(f"{steps.launcher} is not in PATH; load the cluster's {name} module")
        argv = steps.agents([self._addresses[node] for node in nodes], command)
        return [AgentProcess(nodes, argv, self._environment(), self._ended_on, steps.noise)]

    def _ended_on(self, text: str) -> Sequence[str]:
        ended = () if self._steps.ended_on is None else self._steps.ended_on(text)
        return [self._names[address] for address in ended if address in self._names]

    def _environment(self) -> dict[str, str]:
        return {**self._steps.environment(self._settings.host.environment()), **self._allocation.variables}

    def start_ranks(self, ranks: RanksToStart, way: str) -> StartedAgents:
        addressed = ranks._replace(nodes=[self._addresses[node] for node in ranks.nodes])
        return _start_ranks(self._settings, addressed, way, {**self._environment(), **ranks.environment})

    def describe_node(self, node: str) -> str:
        return f"{node} (job {self._allocation.job})" if self._allocation.job else node

    def describe(self) -> str:
        cores = sum(offer.cores or 0 for offer in self._offers.values())
        return f"{counted(len(self._offers), 'node')} of {self._allocation.title}: {counted(cores, 'core')}"


def _start_ranks(
    settings: LaunchSettings, ranks: RanksToStart, way: str, environment: dict[str, str], job: str | None = None
) -> StartedAgents:
    """Start the ranks of a call; `job` has the nodes, if that is not the job around this process."""
    step = RankStep(ranks.nodes, ranks.size, ranks.per_node, way, job, ranks.options, ranks.cores, ranks.gpus)
    environment = {**environment, **settings.job_variables}
    argv = settings.steps.ranks(step, settings.on_node(rank_command(ranks.arguments, settings.python)))
    return AgentProcess(ranks.nodes, argv, environment, noise=settings.steps.noise)


def _how_many(wanted: int | tuple[int, int] | None, there: int) -> int:
    if wanted is None:
        return there
    least, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    if least > there:
        raise ResourceError(f"nodes={wanted!r} was asked for, and this allocation has {there}; ask for fewer")
    return min(most, there)
