"""Live calls on nodes that Slurm is asked for: `Slurm(nodes=...)` outside of an allocation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import CallyardError
from ..hosts.here import Here
from ..hosts.mpi_plugins import Plugins
from ..node.fleet import Fleet
from ..node.launch import Offer, Process, Ranks, Started
from ..node.shape import Capacity
from ..resources import Resources
from ..schedulers import slurm as dialect
from ..schedulers import slurm_allocation, slurm_nodes
from ..schedulers.base import JobRequest
from .base import Settings
from .desk import Desk
from .live import LiveBackend, agent_command, rank_command
from .pilots import Pilots
from .rooms import live_directory, log_directory
from .slurm_live import after, python, said_of

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
        self._kinds: list[slurm_nodes.Kind] | None = None
        self.ways = Plugins(slurm.mpi)
        self._pilots: Pilots | None = None

    # -- for the crew ----------------------------------------------------------------------------------

    def offers(self, timed: bool) -> Sequence[Offer]:
        time, gpus = self._slurm.walltime, self._gpus()
        return [
            Offer(kind.cores, gpus, kind.memory, time)
            for kind in self._known()
            for _ in range(min(kind.nodes, self.most))
        ]

    def muster(self, fleet: Fleet) -> Pilots:
        self._pilots = Pilots(self, Desk(dialect, Here(), self.poll[0]), fleet)
        return self._pilots

    def start_ranks(self, ranks: Ranks, way: str) -> Started:
        command = after(self._slurm, rank_command(ranks.arguments, python(self._slurm)))
        job = ranks.block.step_job
        argv = slurm_allocation.ranks(ranks.nodes, ranks.size, ranks.per_node, way, command, job)
        variables = {**dialect.environment(os.environ), **ranks.environment}
        return Process(ranks.nodes, argv, variables, noise=slurm_allocation.NOISE)

    def lost(self, node: str) -> str:
        block = None if self._pilots is None else self._pilots.job_of(node)
        return node if block is None else f"{node} (job {block.job})"

    def describe(self) -> str:
        many = f"{self.most}" if self.least == self.most else f"{self.least} to {self.most}"
        where = f" in partition {self._slurm.partition}" if self._slurm.partition else ""
        return f"{many} {'node' if self.most == 1 else 'nodes'} that Slurm is asked for{where}"

    # -- for the pilots --------------------------------------------------------------------------------

    def typical(self) -> Capacity | None:
        kinds = self._known()
        if not kinds:
            return None
        kind = max(kinds, key=lambda kind: kind.nodes)
        return Capacity(kind.cores, tuple(map(str, range(self._gpus()))), kind.memory)

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

    def _known(self) -> list[slurm_nodes.Kind]:
        """What the nodes have, asked once; nothing where nobody says, or where a template says what is asked for."""
        if self._slurm.template is not None:
            return []
        if self._kinds is None:
            partition = self._slurm.partition
            self._kinds = slurm_nodes.kinds(said_of(slurm_nodes.nodes(partition)), partition)
        return self._kinds


def _step(size: int) -> list[str]:
    return slurm_allocation.agents_of_job(size, [])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o700)


def open_nodes(slurm: Slurm, settings: Settings) -> LiveBackend:
    """The live calls of `backend=Slurm(nodes=...)` outside of an allocation."""
    if slurm.calls_per_job != 1:
        raise CallyardError("calls_per_job is for calls that are jobs of their own; leave it out, or leave out nodes=")
    return LiveBackend(PilotLaunch(slurm), settings)
