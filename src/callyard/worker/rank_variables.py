"""The variables by which programs other than MPI find the ranks of a call, as torch.distributed does by `env://`."""

from __future__ import annotations

import socket
from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple

from ..schedulers.job_environment import current_job

__all__ = ["RankAddress", "set_variables", "variables"]

_SET = "CALLYARD_RANK_VARIABLES"  # the names set here: in calls made by a rank these do not count as the user's
_LOOPBACK = "127.0.0.1"


class RankAddress(NamedTuple):
    """Where a rank is. `port`: one that is free there, of rank 0 alone."""

    node: str
    host: str
    port: int = 0


def variables(rank: int, addresses: Sequence[RankAddress]) -> dict[str, str]:
    """Return the variables of a rank, from where all of them are."""
    first, node = addresses[0], addresses[rank].node
    same = [number for number, address in enumerate(addresses) if address.node == node]
    is_together = all(address.node == first.node for address in addresses)
    return {
        "MASTER_ADDR": _LOOPBACK if is_together else first.host,
        "MASTER_PORT": str(first.port),
        "RANK": str(rank),
        "WORLD_SIZE": str(len(addresses)),
        "LOCAL_RANK": str(same.index(rank)),
        "LOCAL_WORLD_SIZE": str(len(same)),
    }


def set_variables(world: Any, environ: MutableMapping[str, str]) -> None:
    """Set the variables of this rank, except those of the user; `world` is the communicator of all ranks."""
    host = socket.gethostname()
    port = _port.take() if world.rank == 0 else 0
    addresses = world.allgather(RankAddress(current_job(environ).node or host, host, port))
    users = set(environ) - set(environ.pop(_SET, "").split(","))
    found = {name: text for name, text in variables(world.rank, addresses).items() if name not in users}
    environ.update({**found, _SET: ",".join(found)})


class _Port:
    """A free port, bound for the life of this process, so that the system chooses it for no other program.

    A server that reuses addresses can listen there all the same, and nearly all servers do.
    """

    def __init__(self) -> None:
        self.number = 0
        self.descriptor = -1  # not a socket: that would warn at the interpreter's end that nobody has closed it

    def take(self) -> int:
        if not self.number:
            held = socket.socket(socket.AF_INET)
            for option in (socket.SO_REUSEADDR, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR)):
                held.setsockopt(socket.SOL_SOCKET, option, 1)
            held.bind(("", 0))
            self.number, self.descriptor = int(held.getsockname()[1]), held.detach()
        return self.number


_port = _Port()
