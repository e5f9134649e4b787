"""What this machine offers to a test cluster: programs, free ports, cgroups, and a look at processes."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from guardian import CGROUPS, descendants, parents

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # a user's own may lack the last two
PORTS = range(20000, 32000, 32)  # below those that the system gives to outgoing connections


class ClusterError(Exception):
    """A daemon did not do what it was told; the end of its log is in the message."""


def can_track_by_cgroup() -> bool:
    """Tell whether slurmd may make cgroups here. With cgroup v2 it would need systemd."""
    return all(os.access(CGROUPS / name, os.W_OK) for name in ("memory", "freezer", "cpuacct"))


def program(name: str) -> str:
    """Return a program's path, "" where there is none."""
    return shutil.which(name, path=PATH) or ""


def why_no_cluster(*more: str) -> str:
    """Say why no cluster can run here, "" where one can: any user may have one."""
    if sys.platform != "linux":
        return "its daemons are tested on Linux only"
    programs = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "salloc", "scontrol", *more]
    if missing := [name for name in programs if not program(name)]:
        return f"there is no {', '.join(missing)}"
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        return "this machine's own name has no address"
    return ""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def marked(ancestor: int, variable: str) -> list[int]:
    """Return the processes below one that have "NAME=value" in their environment, what they started, and what them.

    Newer versions of slurmstepd start with another environment than that of their slurmd.
    """
    below, parent_of = set(descendants(ancestor)), dict(parents())
    found = {pid for pid in below if variable.encode() in environment_of(pid)}
    for pid in list(found):
        found.update(descendants(pid))
        while (pid := parent_of.get(pid, 0)) in below:
            found.add(pid)
    return [pid for pid in found if running(pid)]


def reserve_ports(count: int) -> tuple[socket.socket, int]:
    """Return the first of some free TCP ports and what keeps them ours: a UDP socket, which no Slurm uses."""
    blocks = list(PORTS)
    random.SystemRandom().shuffle(blocks)
    for first in blocks:
        lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            lock.bind(("127.0.0.1", first))
        except OSError:
            lock.close()
            continue
        if all(map(free, range(first, first + count))):
            return lock, first
        lock.close()
    raise ClusterError(f"there are no {count} free ports from {PORTS.start} to {PORTS.stop}.")


def free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.is_file() else "(no log)"


def until(condition: Callable[[], bool], patience: float = 60) -> None:
    """Ask until it is so: a scheduler can only be asked."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"it was not so within {patience} s"
        time.sleep(0.01)
