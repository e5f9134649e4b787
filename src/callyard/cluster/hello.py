"""The first message of an agent or a rank: its process, versions, node and job."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..pool.call_shape import NodeCapacity, NodeOffer
from ..schedulers.job_environment import current_job
from ..system.machine import GIB, GPUS, detect
from ..version import VERSION
from ..worker.communicator import Communicator

NAME = "CALLYARD_NODE"  # variable with the name of the node, where no scheduler names it


class PilotShare(NamedTuple):
    """The part of a pilot job that an agent brings to the driver."""

    block: str  # the driver's name of the job: the token of its submission
    job: str  # the scheduler's name of the job
    offer: NodeOffer  # the job's resources on this node

    def dump(self) -> dict[str, Any]:
        return {"block": self.block, "job": self.job, "allocated": self.offer[:3]}


class RankPlace(NamedTuple):
    """The place of a rank in its call."""

    call: int  # the driver's number of the call
    rank: int
    world: Communicator | None  # as MPI sees the place; None without MPI

    def dump(self) -> dict[str, Any]:
        return self._asdict()


class Hello(NamedTuple):
    """The first message, as the driver reads it."""

    node: str
    host: str
    pid: int
    callyard: str
    python: tuple[int, ...]
    capacity: NodeCapacity  # of the machine
    pilot: PilotShare | None = None
    rank: RankPlace | None = None

    @property
    def key(self) -> str:
        """The name of the agent: the node, and the job if the driver has several, because jobs may share a node."""
        return self.node if self.pilot is None else f"{self.node}/{self.pilot.block}"

    def dump(self) -> dict[str, Any]:
        """Return the message as values of JSON."""
        said = {name: value for name, value in self._asdict().items() if name not in ("pilot", "rank")}
        for part in (self.pilot, self.rank):
            said.update({} if part is None else part.dump())
        return said

    @staticmethod
    def load(said: dict[str, Any]) -> Hello:
        """Return the message from values of JSON; another version may send fewer."""
        cores, gpus, memory = said["capacity"]
        pilot = rank = None
        if "block" in said:
            pilot = PilotShare(said["block"], said["job"], NodeOffer(*said["allocated"]))
        if "call" in said:
            rank = RankPlace(said["call"], said["rank"], said["world"] and Communicator(*said["world"]))
        capacity = NodeCapacity(cores, tuple(gpus), memory)
        who = said["node"], said["host"], said["pid"], said["callyard"], tuple(said["python"])
        return Hello(*who, capacity, pilot, rank)


def node_name(environ: Mapping[str, str] = os.environ) -> str:
    return environ.get(NAME) or current_job(environ).node or socket.gethostname()


def this_hello(pilot: PilotShare | None = None, rank: RankPlace | None = None) -> Hello:
    """Return the first message of this process."""
    machine = detect()
    # In a step, a process may see GPUs that do not belong to the job.
    gpus = () if current_job().in_step and not any(name in os.environ for name in GPUS) else tuple(machine.gpus)
    capacity = NodeCapacity(machine.cores, gpus, int(machine.memory * GIB))
    return Hello(node_name(), socket.gethostname(), os.getpid(), VERSION, sys.version_info[:2], capacity, pilot, rank)


def pilot_share(token: str, environ: Mapping[str, str] = os.environ) -> PilotShare:
    """Return this node's part of a job that was submitted with this token."""
    from ..schedulers.registry import read_share  # here, because only agents of pilot jobs need this

    allocation = read_share(environ)
    has = next((node for node in allocation.nodes if node.name == node_name(environ)), allocation.nodes[0])
    offer = NodeOffer(has.cores, has.gpus, has.memory)
    return PilotShare(f"{token}_{current_job(environ).element or 0}", allocation.job, offer)
