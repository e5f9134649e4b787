"""The launch of live calls through a scheduler: agents on nodes of an allocation, or of jobs submitted for them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from math import inf
from time import monotonic, time

from ..cluster.base import AgentProcess, ListenSettings, RanksToStart, StartedAgents
from ..cluster.node_placement import NodePlacement
from ..cluster.static_nodes import StaticNodes
from ..errors import ResourceError
from ..hosts.mpi_plugins import MpiPlugins
from ..pool.call_shape import KindOffer, NodeOffer
from ..resources import Resources
from ..schedulers.base import JobId
from ..schedulers.steps import Allocation, NodeGroup, RankStep
from ..utils.quantities import counted
from .batch.scheduler_client import SchedulerClient
from .cluster import agent_command, rank_command
from .failed_nodes import FailedNodes
from .launch_settings import LaunchSettings
from .node_kind import AskedKind
from .pilot_jobs import PilotJobs
from .pilot_kind import PilotKind, check_on_pilots
from .run_directories import live_directory

__all__ = ["PilotLaunch", "StepLaunch"]


class PilotLaunch:
    """Agents on the nodes of pilot jobs, which have whole nodes of one or several kinds."""

    def __init__(self, settings: LaunchSettings) -> None:
        """Describe the kinds.

        Raises:
            ResourceError: a word of a kind means nothing to the scheduler.
        """
        self._settings, self._steps = settings, settings.steps
        self.poll = settings.poll
        self.listen = ListenSettings(live_directory(), settings.interface, settings.ports)
        self._known: dict[object, Sequence[NodeGroup]] = {}  # by partition, once asked for
        self.rank_launchers = MpiPlugins(settings.scheduler.site(), settings.host, settings.mpi)
        self._pilots: PilotJobs | None = None
        self.failed_nodes = FailedNodes(settings.exclude_failed_nodes)
        self.kinds_of_nodes = [
            PilotKind(settings, asked, self._known_nodes, self.failed_nodes) for asked in settings.kinds
        ]

    def check(self, resources: Resources) -> None:
        """Raise ResourceError for resources that no call can have on such nodes."""
        check_on_pilots(self._settings.scheduler, resources)

    # -- as a launch -----------------------------------------------------------------------------------

    def kinds(self, timed: bool) -> Sequence[KindOffer]:
        return [kind.offer() for kind in self.kinds_of_nodes]

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
        there = [0 if self._pilots is None else self._pilots.count(i) for i in range(len(self.kinds_of_nodes))]
        return "; ".join(kind.describe(count) for kind, count in zip(self.kinds_of_nodes, there, strict=True))

    # -- for the pilot jobs ----------------------------------------------------------------------------

    def _known_nodes(self, asked: AskedKind) -> Sequence[NodeGroup]:
        """Return the nodes of a kind's partition, asked for once; nothing without an answer, or with a template.

        A template may ask for anything.
        """
        ask = self._settings.scheduler.site().nodes
        if ask is None or self._settings.template is not None:
            return []
        partition = asked.words.get("partition")
        if partition not in self._known:
            query = ask(None if partition is None else str(partition))
            self._known[partition] = query.read(self._settings.said(query))
        return self._known[partition]


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

    def kinds(self, timed: bool) -> Sequence[KindOffer]:
        left = self._time_left() if timed else None
        return [KindOffer([offer._replace(time=left) for offer in self._offers.values()])]

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
