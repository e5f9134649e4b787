"""A backend whose nodes are pretended: each agent is a process of this machine with what it is said to have."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from callyard import Executor, Local
from callyard.backends.base import Settings
from callyard.backends.cluster import ClusterBackend, LocalLaunch
from callyard.pool.call_shape import NodeOffer

if TYPE_CHECKING:
    from cluster import Cluster  # not on the path of drivers that are processes of their own

GIB = 1 << 30


@dataclass(frozen=True)
class Nodes(Local):
    """So many nodes, each with so many cores, GPUs and GiB."""

    count: int = 2
    each: int = 1

    def open(self, settings: Settings, cache: Any = None) -> ClusterBackend:  # type: ignore[override]
        gpus = tuple(str(number) for number in range(self.gpus or 0))  # type: ignore[arg-type]
        offer = NodeOffer(self.each, gpus, int((self.memory or 8) * GIB))
        nodes = {f"n{number + 1}": offer for number in range(self.count)}
        return ClusterBackend(LocalLaunch(nodes, tempfile.gettempdir()), settings)


class Inside:
    """What tests know of an executor that its users do not."""

    def __init__(self, executor: Executor) -> None:
        self.driver: Any = executor._running.backend._runner  # type: ignore[attr-defined]

    @property
    def agents(self) -> dict[str, int]:
        """The process numbers of the agents, by node."""
        return {name: agent.pid for name, agent in dict(self.driver._agents._by_name).items()}

    def are_there(self, count: int) -> dict[str, int]:
        """Wait for so many agents."""
        self.driver.prepare()
        until(lambda: len(self.agents) == count)
        return self.agents


def until(condition: Callable[[], Any], patience: float = 60.0) -> None:
    """Wait for what can only be asked."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def jobs_of(slurm: Cluster) -> list[str]:
    """Those that wait or run."""
    return slurm.run("squeue", "--noheader", "--array", "--states=PD,R", "--format=%i").split()


# -- calls -------------------------------------------------------------------------------------------------------


def node() -> str:
    """Where it runs."""
    return os.environ["CALLYARD_NODE"]


def node_and_agent() -> tuple[str, int]:
    """Where it runs, and below which agent: worker, zygote, agent."""
    with open(f"/proc/{os.getppid()}/stat") as file:
        return node(), int(file.read().rpartition(")")[2].split()[1])


def same(value: Any) -> Any:
    return value


def visible() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]
