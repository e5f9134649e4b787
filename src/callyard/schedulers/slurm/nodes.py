"""The nodes of a Slurm cluster: the command for their cores, memory and GPUs, and its reader."""

from __future__ import annotations

import re

from ..steps import NodeGroup

__all__ = ["NodeGroup", "groups", "nodes"]

_MIB = 1 << 20
_GPUS = re.compile(r"\bgpu(?::[^:(,]+)?:(\d+)")


def nodes(partition: str | None) -> list[str]:
    """Return the command for the nodes of a partition, all if it is None; read by `groups`."""
    where = [] if partition is None else [f"--partition={partition}"]
    return ["sinfo", "--noheader", "--exact", *where, "--format=%R|%P|%D|%c|%m|%G"]


def groups(out: str, partition: str | None) -> list[NodeGroup]:
    """Return the groups of nodes in a partition, or in the cluster's default one, from the output of `sinfo`."""
    found = []
    for line in out.splitlines():
        fields = line.split("|")
        if len(fields) == 6 and (partition is not None or fields[1].endswith("*")):
            count, cores, memory = (int(re.sub(r"\D", "", field) or 0) for field in fields[2:5])
            found.append(NodeGroup(count, cores, memory * _MIB, sum(map(int, _GPUS.findall(fields[5])))))
    return found
