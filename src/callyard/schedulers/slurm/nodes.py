"""The nodes of a Slurm cluster: the commands for what they have and for their states, and the readers."""

from __future__ import annotations

import re

from ..steps import NodeGroup

__all__ = ["NodeGroup", "failed", "groups", "nodes", "states"]

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


# By the beginnings and ends of states ("*": it does not answer), the surest signs first: a job with a drained node may
# have failed by another one.
_FAILED = ((("down", "boot_fail", "error", "fail"), ("*",)), (("drain", "unk"), ()))


def states(names: str) -> list[str]:
    """Return the command for the states of some nodes, named as in a job; read by `failed`."""
    return ["sinfo", "--noheader", "--Node", f"--nodes={names}", "--format=%N|%T"]


def failed(out: str) -> list[str]:
    """Return the nodes that have failed, of those of a job that one of them has ended.

    Slurm may have put the node back into service since then; so the answer may be none.
    """
    found = [line.strip().split("|") for line in out.splitlines() if line.count("|") == 1]
    for signs, marks in _FAILED:
        names = [name for name, state in found if state.lower().startswith(signs) or state.endswith(marks)]
        if names:
            return list(dict.fromkeys(names))  # a node in two partitions has two lines
    return []
