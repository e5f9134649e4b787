"""The settings of schedulers with live calls: whether calls are jobs or go to workers on nodes, and which nodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CallyardError, ResourceError, SchedulerError
from .base import Backend, Settings
from .node_kind import AskedKind, NodeKind, asked_kinds, check_kinds, check_nodes
from .scheduler_settings import SchedulerSettings
from .shell_lines import lines

if TYPE_CHECKING:
    from ..resources import Resources
    from ..result_cache import Cache
    from ..schedulers.base import Scheduler
    from ..schedulers.steps import Allocation
    from .launch_settings import LaunchSettings

__all__ = ["LiveSettings"]

_TIME_LIMIT = 30.0  # s for the answer where this process is


class LiveSettings(SchedulerSettings):
    """The base of the public classes of schedulers that start processes on nodes.

    Inside an allocation of the user's own, calls go to workers on its nodes; outside, with `nodes`, to workers on the
    nodes of pilot jobs, and without to jobs. `detached` overrides that.
    """

    nodes: int | tuple[int, int] | None
    kinds: Sequence[NodeKind]
    mpi: str | None
    interface: str | None
    ports: tuple[int, int] | None

    def _check(self) -> None:
        """Raise ResourceError or CallyardError for an argument that makes no sense."""
        super()._check()
        check_nodes(self.nodes)
        object.__setattr__(self, "kinds", check_kinds(self.kinds))
        _check_ports(self.ports)
        if self.detached and (self.kinds or (self.nodes is not None and not self._is_around())):
            name = "kinds=" if self.kinds else "nodes="
            raise CallyardError(
                f"detached=True makes each call a job of its own; leave out {name}, or say detached=False"
            )

    def _is_around(self) -> bool:
        """Return True if this process is in an allocation, or can reach an instance, by its variables."""
        return self._open_scheduler().site().inside(os.environ)

    def _open_scheduler(self) -> Scheduler:
        from ..schedulers.registry import open_scheduler

        return open_scheduler(self._scheduler)

    @property
    def other_resources(self) -> Sequence[str]:
        """The names of the template, which calls may use as resources beside the common ones."""
        if self.template is None or not self._is_detached(self._allocation()):
            return ()
        return self._template_keys()

    def on_host(self) -> Any:
        """Return what is opened on the other computer."""
        return self._on_host(self._is_detached(None))

    def open(self, settings: Settings, cache: Cache | None = None) -> Backend:
        """Make the backend of an executor.

        Raises:
            CallyardError: the settings do not go together, the template cannot be read, or no allocation has so many
                nodes.
        """
        allocation = self._allocation()
        if self._is_detached(allocation):
            return self._open_detached(settings, cache)
        return self._open_live(settings, allocation)

    def resource_check(self, settings: Settings, detached: bool) -> Callable[[Resources], object]:
        """Return the check of a call's resources by texts alone: nothing is asked, as calls may be another computer's.

        Raises:
            CallyardError: the settings do not go together.
        """
        if detached:
            return super().resource_check(settings, detached)
        from .pilot_kind import check_for_pilots

        if not self._asks_for_nodes and self._is_around():
            return check_for_pilots(self._open_scheduler(), ())
        return check_for_pilots(self._open_scheduler(), self._asked_kinds())

    # -- where this process is -------------------------------------------------------------------------

    def _allocation(self) -> Allocation | None:
        """Return the allocation for live calls; None if there is none, or calls are jobs in any case."""
        from ..hosts.ask import Asker
        from ..hosts.open_host import open_host
        from ..schedulers.command import NoAnswer

        site = self._open_scheduler().site()
        steps, host = site.steps, open_host(site)
        if self.detached or steps is None or self.host is not None:  # a gateway is in no allocation
            return None
        try:
            return steps.allocation(host.environment(), Asker(site, host, _TIME_LIMIT))
        except NoAnswer:
            if self.detached is None and not self._asks_for_nodes:
                return None  # each call becomes a job, whose submission tells the reason, or is tried again
            raise
        except ValueError as error:
            if isinstance(error, CallyardError):
                raise
            raise SchedulerError(f"{self._needs_allocation(steps.how_to_get_one)}; {error}") from error

    def _is_detached(self, allocation: Allocation | None) -> bool:
        return (allocation is None and not self._asks_for_nodes) if self.detached is None else self.detached

    def would_be_live(self) -> bool:
        """Return True if calls would go to workers on nodes, as far as the environment tells."""
        return self._asks_for_nodes or self._is_around()

    @property
    def _asks_for_nodes(self) -> bool:
        """True if nodes are asked for where none are there."""
        return self.nodes is not None or bool(self.kinds)

    def _needs_allocation(self, how: str) -> str:
        return f"{self._scheduler}(detached=False) needs {how}, or nodes= to ask for"

    # -- live calls ------------------------------------------------------------------------------------

    def _open_live(self, settings: Settings, allocation: Allocation | None) -> Backend:
        from .cluster import ClusterBackend
        from .scheduler_launch import PilotLaunch, StepLaunch

        if allocation is not None:
            self._refuse_settings_of_jobs()
            steps = StepLaunch(self._launch_settings((), None, ()), allocation)
            return ClusterBackend(steps, settings, steps.check)
        pilots = PilotLaunch(self._launch_settings(self._asked_kinds(), self._template_text(), self._template_keys()))
        return ClusterBackend(pilots, settings, pilots.check)

    def _asked_kinds(self) -> Sequence[AskedKind]:
        """Return the kinds of nodes to ask for.

        Raises:
            CallyardError: none is asked for, or some settings are for jobs of single calls.
        """
        if not self._asks_for_nodes:
            steps_of_site = self._open_scheduler().site().steps
            how = (
                "a scheduler that starts processes on nodes" if steps_of_site is None else steps_of_site.how_to_get_one
            )
            raise SchedulerError(self._needs_allocation(how))
        if self.calls_per_job != type(self).calls_per_job:
            raise CallyardError(
                "calls_per_job is for calls that are jobs of their own; leave it out, or leave out nodes="
            )
        return asked_kinds(self.kinds, self.nodes, self.walltime, self._asked())

    def _refuse_settings_of_jobs(self) -> None:
        if self.kinds:
            raise CallyardError("kinds is for nodes to ask for, and those of an allocation are there; leave it out")
        if getattr(self, "exclude_failed_nodes", False):
            raise CallyardError("exclude_failed_nodes is for jobs, and calls in an allocation are none; leave it out")
        if self.teardown:
            raise CallyardError("teardown is for jobs of Callyard's own; put its lines at the end of this job's script")

    def _launch_settings(
        self, kinds: Sequence[AskedKind], template: str | None, template_keys: Sequence[str]
    ) -> LaunchSettings:
        from ..hosts.open_host import open_host
        from .launch_settings import LaunchSettings

        scheduler = self._open_scheduler()
        return LaunchSettings(
            scheduler=scheduler,
            host=open_host(scheduler.site()),
            nodes=self.nodes,
            kinds=kinds,
            template=template,
            template_keys=template_keys,
            python=None if self.python is None else os.fspath(self.python),
            setup=lines(self.setup),
            teardown=lines(self.teardown),
            launcher=self._launcher(),
            mpi=self.mpi,
            interface=self.interface,
            ports=self.ports,
            poll=self.poll,
            log_limit=self._log_bytes(),
            exclude_failed_nodes=getattr(self, "exclude_failed_nodes", False),
        )


def _check_ports(ports: object) -> None:
    if ports is None:
        return
    if isinstance(ports, (tuple, list)) and len(ports) == 2 and all(type(each) is int for each in ports):
        low, high = ports
        if 0 < low <= high < 1 << 16:
            return
    raise ResourceError(f"ports must be (lowest, highest) of a range of ports, not {ports!r}")
