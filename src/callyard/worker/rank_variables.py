"""The variables by which programs other than MPI find the ranks of a call, as torch.distributed does by `env://`."""

from __future__ import annotations

import socket
from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple

from ..schedulers.job_environment import current_job

__all__ = ["RankAddress", "set_variables", "variables"]

_SET = "CALLYARD_RANK_VARIABLES"  # the names that were set here: they are not the user's, in calls that a rank makes
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
    """A free port, bound for the life of this process: the system chooses it for nobody else.

    A server that reuses addresses, as nearly all do, may have it.
    """

    def __init__(self) -> None:
        self.held: socket.socket | None = None

    def take(self) -> int:
        if self.held is None:
            self.held = socket.socket(socket.AF_INET)
            for option in (socket.SO_REUSEADDR, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR)):
                self.held.setsockopt(socket.SOL_SOCKET, option, 1)
            self.held.bind(("", 0))
        return int(self.held.getsockname()[1])


_port = _Port()
