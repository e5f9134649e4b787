"""The settings of live calls on nodes that a scheduler gives: what is common to allocations and pilot jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ResourceError
from ..hosts.base import Host
from ..schedulers.base import Scheduler
from ..schedulers.command import Query
from ..schedulers.steps import Steps
from .node_kind import AskedKind

__all__ = ["LaunchSettings"]

_TIME_LIMIT = 10.0  # s for an answer that is not necessary
_SETUP = 'set -e\n{setup}\nexec "$@"'


@dataclass(frozen=True)
class LaunchSettings:
    """The user's settings of live calls on nodes, besides the scheduler and the host of its commands.

    Attributes:
        nodes: the number of nodes of an allocation, or the fewest and the most; None for all.
        kinds: the kinds of nodes that pilot jobs ask for.
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
        log_limit: the most that the log of a pilot job may take on disk (bytes).
        exclude_failed_nodes: whether pilot jobs keep away from nodes on which one has failed.
    """

    scheduler: Scheduler
    host: Host
    nodes: int | tuple[int, int] | None
    kinds: Sequence[AskedKind]
    template: str | None
    template_keys: Sequence[str]
    python: str | None
    setup: Sequence[str]
    launcher: Sequence[str]
    mpi: str | None
    interface: str | None
    ports: tuple[int, int] | None
    poll: tuple[float, float]
    log_limit: int
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
