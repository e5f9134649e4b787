"""The nodes to which an executor submits no further job, because one has failed there by a fault of the node."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from ..resources import Resources
from ..schedulers.base import Status
from ..utils.command_thread import Steps
from .batch.scheduler_client import SchedulerClient
from .resource_mapping import without_nodes

__all__ = ["FailedNodes"]

_log = logging.getLogger("callyard")


class FailedNodes:
    """The failed nodes of one executor; none if its user has not asked for that (`exclude_failed_nodes`)."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self.names: tuple[str, ...] = ()
        self._asked = set[str]()  # nodes of failed jobs, as the scheduler writes them

    def without(self, resources: Resources) -> Resources:
        """Return the resources of a job that keeps away from these nodes."""
        return without_nodes(resources, self.names)

    def learn(self, scheduler: SchedulerClient, statuses: Iterable[Status]) -> Steps:
        """Note the nodes that have failed, by the ends of jobs. Of several nodes the scheduler is asked for them."""
        if not self._wanted:
            return
        statuses = list(statuses)
        self._exclude({status.failed_node for status in statuses if status.failed_node})
        for nodes in {status.failed_among for status in statuses if status.failed_among} - self._asked:
            self._asked.add(nodes)
            failed = yield partial(scheduler.failed_of, nodes)
            self._exclude(failed)
            if not failed:
                _log.warning(
                    "callyard: a job on %s failed by a fault of a node, and the scheduler does not say of which; none "
                    "of them is excluded from later jobs",
                    nodes,
                )

    def _exclude(self, nodes: Iterable[str]) -> None:
        new = sorted(set(nodes) - set(self.names))
        if new:
            _log.warning("callyard: no more jobs are submitted to %s, where one has failed", ", ".join(new))
            self.names = (*self.names, *new)
