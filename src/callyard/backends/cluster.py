"""The backend for live calls on several nodes: agents there, each with a worker pool as that of `Local()`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..cluster.base import AgentProcess, Launch, ListenSettings, RanksToStart, StartedAgents
from ..cluster.driver import ClusterDriver
from ..cluster.hello import NAME
from ..cluster.node_placement import NodePlacement
from ..cluster.static_nodes import StaticNodes
from ..pool.call import CallPlan
from ..pool.call_shape import KindOffer, NodeOffer
from ..pool.mpi_launcher import SingleLauncher, as_if_alone, launch_command, launcher_environment
from ..resources import Resources
from ..serialize.packer import Packer
from ..serialize.shared_memory import SegmentPool
from ..system.python_command import python_command
from .base import Settings
from .live_base import LiveBackend, pack_initializer
from .resource_mapping import plan_for_nodes


class ClusterBackend(LiveBackend):
    """The live calls of one executor on the nodes of a launch."""

    def __init__(
        self,
        launch: Launch,
        settings: Settings,
        check: Callable[[Resources], None] = lambda resources: None,  # noqa: ARG005
    ) -> None:
        """`check` raises ResourceError for what means nothing to the scheduler of the nodes."""
        self._launch, self._check = launch, check

        def make_driver(segments: SegmentPool, _: Packer, expecting: Callable[[], bool]) -> ClusterDriver:
            initializer = pack_initializer(settings)
            tasks = settings.max_tasks_per_child
            return ClusterDriver(launch, segments, settings.max_workers, tasks, initializer, expecting)

        super().__init__(make_driver, settings.recorder)

    def make_plan(self, resources: Resources) -> CallPlan:
        self._check(resources)
        return plan_for_nodes(resources, self._launch.kinds(resources.run_time is not None))

    @property
    def description(self) -> str:
        return f"live on {self._launch.describe()}"


class AgentLog(NamedTuple):
    """The log of a pilot job, to which its agents write the output of calls.

    Attributes:
        path: the path; "{element}" in it stands for the number of the job's element.
        limit: the most that the log may take (bytes).
        apart: True for a file beside the log for each node, because only one process can keep a file within its limit.
    """

    path: str
    limit: int
    apart: bool


def agent_command(
    contact: str,
    job_variables: Mapping[str, str],
    token: str | None = None,
    log: AgentLog | None = None,
    python: str | None = None,
) -> list[str]:
    """Return the command that runs an agent.

    Args:
        contact: the path of the contact file.
        job_variables: see `JobVariables.environment`; empty if no scheduler starts the agent.
        token: the token of the pilot job around the agent.
        log: the log of that job.
        python: the interpreter, if it is not this one.
    """
    of_job = [] if token is None else [token]
    of_job += [] if log is None else [log.path, str(log.limit), "apart" if log.apart else "together"]
    return _command("callyard.cluster.run_agent", [contact, *job_variables.values(), *of_job], python)


def rank_command(arguments: Sequence[str], python: str | None = None) -> list[str]:
    """Return the command that runs one rank of a call on several nodes."""
    return _command("callyard.cluster.mpi_remote_rank", arguments, python)


def _command(module: str, arguments: Sequence[str], python: str | None) -> list[str]:
    """Return the command for this interpreter and package, or for another interpreter with its own package."""
    if python is not None:
        return [python, "-c", f"from {module} import main; main()", *arguments]
    return python_command(module, "main", *arguments)


class LocalLaunch:
    """Agents on this machine, each of which pretends to be a node: for tests, and to try things out."""

    rank_launchers = SingleLauncher()
    tells_each_end = True
    how_to_keep_one = ""

    def __init__(self, offers: Mapping[str, NodeOffer], directory: str) -> None:
        self._offers = offers
        self.listen = ListenSettings(directory, interface="lo")

    def kinds(self, timed: bool) -> Sequence[KindOffer]:
        return [KindOffer(list(self._offers.values()))]

    def make_starter(self, placement: NodePlacement) -> StaticNodes:
        return StaticNodes(self, placement)

    def nodes(self) -> Mapping[str, NodeOffer]:
        return self._offers

    def ends_in(self) -> float | None:
        return None

    def is_over(self, said: str) -> bool:
        return False

    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[StartedAgents]:
        return [AgentProcess([node], agent_command(contact, {}), {**os.environ, NAME: node}) for node in nodes]

    def start_ranks(self, ranks: RanksToStart, way: str) -> StartedAgents:
        environment = {**as_if_alone(os.environ), **launcher_environment(None), **ranks.environment}
        return AgentProcess(ranks.nodes, launch_command(ranks.size, rank_command(ranks.arguments)), environment)

    def describe_node(self, node: str) -> str:
        return node

    def describe(self) -> str:
        return f"{len(self._offers)} pretended nodes"
