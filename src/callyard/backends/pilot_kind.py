"""The pilot jobs of one kind of nodes: their requests to the scheduler, and the resources of their nodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..errors import ResourceError
from ..pool.call_shape import KindOffer, NodeCapacity, NodeOffer
from ..resource_values import memory_bytes
from ..resources import Resources
from ..schedulers.base import JobRequest, Scheduler
from ..schedulers.steps import NodeGroup
from .cluster import AgentLog, agent_command
from .failed_nodes import FailedNodes
from .launch_settings import LaunchSettings
from .node_kind import AskedKind
from .resource_mapping import plan_for_nodes, with_nodes
from .run_directories import log_directory

__all__ = ["PilotKind"]


class PilotKind:
    """One kind of nodes of an executor, which asks for whole nodes by jobs."""

    def __init__(
        self,
        settings: LaunchSettings,
        asked: AskedKind,
        known: Callable[[AskedKind], Sequence[NodeGroup]],
        failed_nodes: FailedNodes,
    ) -> None:
        """Describe the kind.

        Args:
            settings: those of all kinds.
            asked: the kind.
            known: returns the nodes of the kind's partition, as far as the scheduler tells.
            failed_nodes: the nodes to keep away from.
        """
        self._settings, self._asked, self._known, self._failed_nodes = settings, asked, known, failed_nodes
        self._alone = len(settings.kinds) == 1
        self.least, self.most = asked.least, asked.most
        self.where = "" if self._alone else asked.where
        settings.scheduler.site().check(self._resources(1))

    def describe(self, there: int) -> str:
        many = f"{self.most}" if self.least == self.most else f"{self.least} to {self.most}"
        name = self._settings.scheduler.name
        return f"{there} {'node' if there == 1 else 'nodes'}, of {many} that {name} is asked for{self._asked.where}"

    # -- the nodes -------------------------------------------------------------------------------------

    def offer(self) -> KindOffer:
        """Return the nodes that may be there at once, as far as known.

        Where calls could be for another kind, unknown GPUs count as none: a call with GPUs is for a kind that surely
        has them.
        """
        asked, gpus = self._asked, self._gpus()
        nodes = [
            NodeOffer(group.cores, gpus, self._memory(group.memory), asked.walltime)
            for group in self._suitable()
            for _ in range(min(group.nodes, self.most))
        ]
        if not nodes and not self._alone:
            nodes = [NodeOffer(None, gpus, self._memory(None), asked.walltime)] * self.most
        return KindOffer(nodes, asked.words, asked.where.strip())

    def typical(self) -> NodeCapacity | None:
        """Return the resources of most nodes, as far as known."""
        suitable = self._suitable()
        if not suitable:
            return None
        group = max(suitable, key=lambda group: group.nodes)
        return NodeCapacity(group.cores, tuple(map(str, range(self._gpus()))), self._memory(group.memory) or 0)

    def _suitable(self) -> Sequence[NodeGroup]:
        """Return the known nodes that have what the kind says."""
        asked = self._asked
        least = memory_bytes(asked.memory)
        return [group for group in self._known(asked) if group.gpus >= (asked.gpus or 0) and group.memory >= least]

    def _memory(self, found: int | None) -> int | None:
        return found if self._asked.memory is None else memory_bytes(self._asked.memory)

    def _gpus(self) -> int:
        """Return the smallest number of GPUs of the nodes: a larger request would leave some nodes out."""
        if self._asked.gpus is not None:
            return self._asked.gpus
        return min((group.gpus for group in self._suitable()), default=0)

    # -- the jobs --------------------------------------------------------------------------------------

    def request(self, token: str, size: int, count: int, contact: str) -> JobRequest:
        """Return the request for `count` jobs of `size` nodes each."""
        settings = self._settings
        log = f"{log_directory()}/{token}-{'{element}' if count > 1 else '0'}.log"
        kept = AgentLog(log, settings.log_limit, apart=size > 1)
        command = agent_command(contact, settings.job_variables, token, kept, python=settings.python)
        agent = settings.on_node(command, setup=False)
        asked = self._resources(size)
        script = f"{os.path.dirname(contact)}/{token}"
        with open(script, "x", opener=_private, encoding="utf-8") as file:
            file.write(self._script(asked, settings.steps.agents(size, agent), log, count))
        return JobRequest(
            name="callyard",
            token=token,
            script=script,
            log=log,
            resources=asked,
            elements=count if count > 1 else None,
            time=self._asked.walltime,
            whole_nodes=self._asked.memory is None,
            node_gpus=self._gpus(),
            templated=settings.template is not None,
        )

    def _resources(self, size: int) -> Resources:
        return self._failed_nodes.without(_resources_of(self._asked, size))

    def _script(self, asked: Resources, command: Sequence[str], log: str, count: int) -> str:
        from ..schedulers.script import job_script, render, variables

        settings = self._settings
        if settings.template is None:
            return job_script(command, settings.setup, teardown=settings.teardown)
        known = variables(
            asked, command, job_name="callyard", log=log, setup=settings.setup, teardown=settings.teardown,
            time=self._asked.walltime, elements=count if count > 1 else None,
        )  # fmt: skip
        return render(settings.template, {**dict.fromkeys(settings.template_keys), **known})


def _resources_of(asked: AskedKind, size: int) -> Resources:
    """Return the resources of a job with so many nodes of a kind."""
    whole = {"nodes": size, "ranks": size, "exclusive": True}
    memory = {} if asked.memory is None else {"memory": asked.memory * size}
    return Resources().updated({**asked.words, **whole, **memory})


def check_on_pilots(scheduler: Scheduler, resources: Resources) -> None:
    """Raise ResourceError for resources that no call can have on nodes of pilot jobs."""
    site = scheduler.site()
    site.check_live(resources)
    nodes = with_nodes(resources).nodes or 1
    if nodes > 1 and site.steps is not None and not site.steps.reaches_jobs:
        raise ResourceError(
            f"nodes={nodes}: {scheduler.name} starts no ranks on the nodes of jobs from outside; submit this call "
            f"inside {site.steps.how_to_get_one}, or with detached=True"
        )


def check_for_pilots(scheduler: Scheduler, kinds: Sequence[AskedKind]) -> Callable[[Resources], object]:
    """Return the check of a call's resources by texts alone: of the nodes is known what the kinds say.

    Without a kind calls run on nodes that are there already.

    Raises:
        ResourceError: a word of a kind means nothing to the scheduler.
    """
    for kind in kinds:
        scheduler.site().check(_resources_of(kind, 1))
    offers = [KindOffer(_said_of_nodes(kind), kind.words, kind.where.strip()) for kind in kinds] or [KindOffer([])]

    def check(resources: Resources) -> None:
        if kinds:
            check_on_pilots(scheduler, resources)
        else:
            scheduler.site().check_live(resources)
        plan_for_nodes(resources, offers)

    return check


def _said_of_nodes(kind: AskedKind) -> list[NodeOffer]:
    memory = None if kind.memory is None else memory_bytes(kind.memory)
    return [NodeOffer(None, kind.gpus, memory, kind.walltime)] * kind.most


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o700)
