"""Memory limits of calls: by sampling their processes, by a data limit, or by a cgroup.

Three ways:

* A cgroup v2 for the call, if one is delegated to this process: the kernel counts, and kills.
* `limit_data` in the worker: a single huge allocation raises MemoryError, and the process survives.
* `Sampler` beside the workers: adds up the memory of each call's process tree, and names the trees over their limits.

The memory of a process is its anonymous and shared memory, both including swap, and the files in memory that it holds
open (`HeldFiles`). Pages of other files are left out, because the kernel takes them back when memory is short. The sum
is cheap to read but counts memory shared by processes (after a fork, or in a segment mapped by all) once for each. So
it serves as an upper bound: only a tree with too large a sum is measured again by proportional shares, which are exact
but cost time in proportion to the memory.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .machine import LEAF, PHYSICAL, ROOT, delegation, find_memory, lines, members, own_groups
from .memory_files import HeldFiles

__all__ = [
    "OomKills",
    "Sampler",
    "data_limit",
    "delegated",
    "enforcement",
    "group_peak",
    "limit_data",
    "make_group",
    "move",
    "oom_kills",
    "oom_kills_within",
    "own_group_peak",
    "remove_group",
    "sample",
    "take_over",
]

CALL_GROUP = "call-"  # the names of groups of calls begin so
PACE = 10  # the pause between two exact measurements of one tree, in durations of the first


# ------------------------------------------------------------------ memory of processes


class SampledProcess(NamedTuple):
    parent: int
    session: int  # from ps: the process group, equal to the session for its leader
    held: int  # bytes
    shape: tuple[int, int]  # equal to the parent's while both share one address space; (0, 0): unknown


class Sampler:
    """The memory held by process trees, sampled repeatedly.

    A tree is a process (the root), its descendants, the members of its session, and the orphans adopted by its parent
    if the parent is a guard for this tree alone. Roots are started by the caller or by such a guard. A process once
    seen in a tree stays in the tree, also after its parent has ended.
    """

    def __init__(self, proc: str = "/proc", clock: Callable[[], float] = time.monotonic) -> None:
        self._proc = proc
        self._clock = clock
        self._last = clock()
        self._strangers: frozenset[int] = frozenset()  # no descendants of ours: not worth reading again
        self._owners: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self._files = HeldFiles(proc)
        self._in_files: dict[int, int] = {}  # by root
        self._next_exact: dict[int, float] = {}
        self.sums: Mapping[int, int] = {}  # of the last sample

    def sample(self, roots: Iterable[int]) -> Mapping[int, int]:
        """Return at most how many bytes the tree of each root holds: shared memory counts repeatedly."""
        wanted = set(roots)
        processes = self._look()
        owners = _owners(processes, wanted, self._owners)
        self._strangers |= processes.keys() - owners.keys()
        self._owners = {pid: root for pid, root in owners.items() if root in wanted}
        self._held = {pid: _own(processes, pid) for pid in self._owners}
        sums = dict.fromkeys(wanted, 0)
        for pid, root in self._owners.items():
            sums[root] += self._held[pid]
        self._in_files = {root: self._files.held(self.members(root)) for root in wanted}
        self.sums = {root: held + self._in_files[root] for root, held in sums.items()}
        return self.sums

    def members(self, root: int) -> list[int]:
        """Return the processes in the tree of a root, as of the last sample."""
        return [pid for pid, owner in self._owners.items() if owner == root]

    def exceeding(self, limits: Mapping[int, int]) -> dict[int, int]:
        """Return the roots of the trees over their limits, with the bytes held by each tree.

        Each shared page counts in proportion here. After a slow measurement a tree within its limit is not measured
        again for a while, so that measuring stays a small part of the caller's time.
        """
        held = self.sample(limits)
        now = self._clock()
        self._next_exact = {root: at for root, at in self._next_exact.items() if root in limits and at > now}
        suspects = [root for root in limits if held[root] > limits[root] and root not in self._next_exact]
        return {root: exact for root in suspects if (exact := self._exact(root)) > limits[root]}

    def _exact(self, root: int) -> int:
        began = self._clock()
        total = self._in_files[root] + sum(min(self._held[pid], self._share(pid)) for pid in self.members(root))
        now = self._clock()
        self._next_exact[root] = now + PACE * (now - began)
        return total

    def _share(self, pid: int) -> int:
        try:
            text = _read(f"{self._proc}/{pid}/smaps_rollup")
        except OSError:  # gone, not ours to look into, or not Linux
            return self._held[pid]
        if b"\nPss_Anon:" not in text:  # Linux before 5.4: Pss includes pages of files, hence the min() above
            return _kilobytes(text, b"Pss") + _kilobytes(text, b"SwapPss")
        return sum(_kilobytes(text, name) for name in (b"Pss_Anon", b"Pss_Shmem", b"SwapPss"))

    def _look(self) -> dict[int, SampledProcess]:
        if not os.path.isdir(f"{self._proc}/self"):
            return _by_ps()
        last, self._last = self._last, self._clock()
        if self._last - last > 1:  # long enough for the number of an ended process to be used again
            self._strangers = frozenset()
        pids = {int(name) for name in os.listdir(self._proc) if name.isdigit()}
        self._strangers &= pids
        found = ((pid, _process(self._proc, pid)) for pid in pids - self._strangers)
        return {pid: process for pid, process in found if process}


def sample(roots: Iterable[int]) -> Mapping[int, int]:
    """Return at most how many bytes the tree of each root holds, once."""
    return Sampler().sample(roots)


def _owners(processes: Mapping[int, SampledProcess], roots: set[int], before: Mapping[int, int]) -> dict[int, int]:
    """Return the root of each process, or this process for others that it started.

    Besides descent, session and earlier samples count: an orphan is adopted by the guard of its root or by this
    process.
    """
    owners = {root: root for root in roots | {os.getpid()} if root in processes}
    guards = {processes[root].parent: root for root in owners if root != os.getpid()}
    guards.pop(os.getpid(), None)
    for pid in processes:
        line: list[int] = []
        while pid in processes and pid not in owners and pid not in line:  # reused numbers may form a ring
            line.append(pid)
            pid = processes[pid].parent
        owner = owners.get(pid)
        for pid in reversed(line):
            claims = (owner, guards.get(processes[pid].parent), processes[pid].session, before.get(pid))
            owner = next((claim for claim in claims if claim in roots), owner)
            if owner is not None:
                owners[pid] = owner
    return owners


def _own(processes: Mapping[int, SampledProcess], pid: int) -> int:
    """Return the memory of a process, 0 while it borrows its parent's address space.

    Subprocesses do so between vfork and exec. Another thread may change the memory meanwhile, but the pages of files
    and the size of the stack are equal in both processes; after a fork they differ.
    """
    process = processes[pid]
    parent = processes.get(process.parent)
    borrowed = parent is not None and parent.shape == process.shape != (0, 0)
    return 0 if borrowed else process.held


def _process(proc: str, pid: int) -> SampledProcess | None:
    try:
        text = _read(f"{proc}/{pid}/status")
    except OSError:  # the process has just ended
        return None
    held = sum(_kilobytes(text, name) for name in (b"RssAnon", b"RssShmem", b"VmSwap"))
    shape = (_kilobytes(text, b"RssFile"), _kilobytes(text, b"VmStk"))
    return SampledProcess(_number(text, b"PPid"), _number(text, b"NSsid"), held, shape)


def _number(text: bytes, name: bytes) -> int:
    start = text.find(b"\n" + name + b":")
    if start < 0:
        return 0
    start += len(name) + 2
    return int(text[start : text.find(b"\n", start)].split()[0])


def _kilobytes(text: bytes, name: bytes) -> int:
    return 1024 * _number(text, name)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # in one read, because the kernel may change the file between two
        return file.read(1 << 16)


def _by_ps() -> dict[int, SampledProcess]:
    import subprocess

    command = ["ps", "-axo", "pid=,ppid=,pgid=,rss="]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    rows = (map(int, line.split()) for line in text.splitlines())
    return {pid: SampledProcess(parent, group, 1024 * rss, (0, 0)) for pid, parent, group, rss in rows}


# ------------------------------------------------------------------ limits by the kernel


def data_limit(memory: int, threads: int = 1) -> int:
    """Return the data limit for a call with `memory` bytes and this number of threads.

    The limit counts mapped memory, touched or not. The stacks of threads are most of the untouched part, so they are
    added: a call within its memory must not fail.
    """
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return memory + threads * (stack if stack != resource.RLIM_INFINITY else 8 << 20)


def limit_data(limit: int) -> int:
    """Set the soft limit of this process's private memory (-1: none) and return the one before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if sys.platform == "linux":  # other systems leave out most of the memory
        allowed = [value for value in (limit, hard) if value != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(allowed, default=resource.RLIM_INFINITY), hard))
    return soft


def delegated(root: Path = ROOT, top: int | None = None) -> Path | None:
    """Return the cgroup v2 in which this process may make groups for calls; None if there is none.

    The group must hold only the process `top` (default: this one) and its descendants: a group that hands a controller
    to groups below it must have no processes of its own, so its processes have to be moved.
    """
    group, _ = delegation(root, top or os.getpid())
    return group


def take_over(group: Path) -> bool:
    """Move the processes of a delegated group into a leaf, so that calls can have groups beside it; False on error."""
    try:
        if not (group / LEAF).exists():
            os.mkdir(group / LEAF)
        for _ in range(10):  # processes may fork meanwhile
            for pid in members(group):
                move(group / LEAF, pid)
        _write(group / "cgroup.subtree_control", "+memory")
    except OSError:
        return False
    return True


def make_group(parent: Path, name: str, limit: int) -> Path:
    """Make the group of a call with a limit of `limit` bytes; beyond the limit the kernel kills the whole group."""
    group = parent / name
    os.mkdir(group)
    try:
        _write(group / "memory.max", str(limit))
        for file, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
            if (group / file).exists():  # a kernel without swap; Linux before 4.19
                _write(group / file, value)
    except OSError:
        remove_group(group)
        raise
    return group


def move(group: Path, pid: int) -> None:
    """Move a process into a group; memory allocated before stays charged to the old group."""
    with suppress(ProcessLookupError):  # the process has just ended
        _write(group / "cgroup.procs", str(pid))


def oom_kills(group: Path) -> int:
    """Return how many processes of a group the kernel ended because the group had too little memory."""
    events = lines(group / "memory.events") or lines(group / "memory.oom_control")  # the latter is of version 1
    return int(dict(line.split() for line in events).get("oom_kill", 0))


def oom_kills_within(name: str, root: Path = ROOT) -> int:
    """Return the same for this process's own group, whichever group above has too little.

    0 unless the group is the job's, below a group called `name`; without a name, unless it or one above has a limit: in
    others kills of all kinds of processes are counted.
    """
    if not name and find_memory(root)[1] == PHYSICAL:
        return 0
    groups = [group for group, _ in own_groups(root, "memory") if not name or name in group.parts]
    return sum(map(oom_kills, groups))


def group_peak(group: Path) -> int:
    """Return the most memory (bytes) of all processes of a group of version 2 together; 0 where the kernel is too old.

    Memory that a process had when it was moved into the group is not counted.
    """
    found = lines(group / "memory.peak")
    return int(found[0]) if found else 0


def own_group_peak(root: Path = ROOT) -> int:
    """Return the same for the group of this process's call; 0 if the call has none."""
    groups = [group for group, _ in own_groups(root, "memory") if group.name.startswith(CALL_GROUP)]
    return max(map(group_peak, groups), default=0)


class OomKills:
    """The processes beside this one that the kernel ends for memory; each of them explains the end of one process.

    `job` is the name of the job's cgroup; empty where it is not known.
    """

    def __init__(self, job: str = "", root: Path = ROOT, explained: int | None = None) -> None:
        """`explained`: how many are explained already; by default all so far."""
        self._job, self._root = job, root
        self._explained = self._count() if explained is None else explained

    def explain_one(self) -> bool:
        """Return True if a kill is left to explain the end of a process by SIGKILL, and count this kill as used."""
        left = self._count() > self._explained
        self._explained += left
        return left

    def _count(self) -> int:
        return oom_kills_within(self._job, self._root)


def remove_group(group: Path) -> bool:
    """Remove a group and all groups below; return False while there are processes inside."""
    with suppress(OSError):
        for place, _, _ in os.walk(group, topdown=False):
            os.rmdir(place)
    return not group.exists()


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def enforcement(root: Path = ROOT, top: int | None = None) -> str:
    """Return one sentence: how calls are kept within their memory on this machine."""
    way = "What the processes of a call hold is sampled with ps, ten times a second."
    if sys.platform == "linux":
        group, why = delegation(root, top or os.getpid())
        way = f"A data limit, and sampling of the processes ten times a second; no cgroup v2: {why}."
        if group:
            way = f"Each call with a memory limit gets a cgroup of its own in {group}."
    return way
