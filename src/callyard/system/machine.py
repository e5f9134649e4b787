"""The part of this machine available to this process: cores, GPUs, memory, and the cgroups that limit them.

Nothing here raises, starts a process or imports a library: an unknown limit counts as no limit, an undetected GPU as
none. All files are read below `root`, so that tests can describe any machine by a directory.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

__all__ = [
    "Machine",
    "detect",
    "find_cores",
    "find_gpus",
    "find_memory",
    "lines",
    "own_groups",
    "visible_devices",
]

GIB = 1 << 30
LEAF = "callyard"  # the group below a delegated one for our own processes, once calls have groups too
PHYSICAL = "physical memory"  # what limits the memory of a process without a limit
ROOT = Path("/")


GPUS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # the variables that restrict a process to some GPUs


@dataclass(frozen=True)
class Machine:
    cores: int
    gpus: tuple[str, ...]  # in the form of CUDA_VISIBLE_DEVICES and ROCR_VISIBLE_DEVICES
    memory: float  # GiB


def detect(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> Machine:
    """Return the cores, GPUs and memory available to this process."""
    cores, _ = find_cores(root)
    gpus, _ = find_gpus(root, environ)
    memory, _ = find_memory(root)
    return Machine(cores, gpus, memory)


# Each of these functions returns an amount and, in a few words, its source.


def find_cores(root: Path = ROOT, available: Callable[[], int] | None = None) -> tuple[int, str]:
    """Return the number of cores left to this process by its affinity and its cgroups."""
    cores, how = (available or _available_cores)(), "affinity of this process"
    quota, group = _smallest(_quota, _lineages(root, "cpu"))
    if quota < cores:
        return math.ceil(quota), f"cpu quota of {group}"
    return cores, how


def find_memory(root: Path = ROOT) -> tuple[float, str]:
    """Return the memory in GiB left to this process by the machine and its cgroups."""
    total = _physical_memory(root)
    limit, group = _smallest(_limit, _lineages(root, "memory"))
    if limit < total:
        return limit / GIB, f"memory limit of {group}"
    return total / GIB, PHYSICAL


def find_gpus(
    root: Path = ROOT,
    environ: Mapping[str, str] = os.environ,
    count_nvidia: Callable[[], int] | None = None,
) -> tuple[tuple[str, ...], str]:
    """Return the GPUs available to this process: those named by the environment, or those known to the drivers."""
    drivers = {
        "CUDA_VISIBLE_DEVICES": ("NVML", count_nvidia or _count_nvidia),
        "ROCR_VISIBLE_DEVICES": ("the amdgpu driver", lambda: _count_amd(root)),
    }
    for variable, (_, count) in drivers.items():
        if variable in environ:
            return visible_devices(environ[variable], count), variable
    for driver, count in drivers.values():
        if number := count():
            return tuple(map(str, range(number))), driver
    return (), "no driver knows one"


# ------------------------------------------------------------------ cores and memory


def _available_cores() -> int:
    count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)  # Python 3.13
    if count is os.cpu_count and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return count() or 1


def _physical_memory(root: Path) -> float:
    for line in lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return 1024 * float(line.split()[1])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return math.inf


def _quota(group: Path) -> float | None:
    """Return the cores that a cgroup may keep busy; None without a limit."""
    try:
        if version_2 := lines(group / "cpu.max"):
            quota, period = version_2[0].split()
        else:
            (quota,), (period,) = lines(group / "cpu.cfs_quota_us"), lines(group / "cpu.cfs_period_us")
        return int(quota) / int(period) if int(quota) > 0 else None
    except ValueError:  # "max", or there are no such files
        return None


def _limit(group: Path) -> float | None:
    """Return the memory limit of a cgroup in bytes; version 1 writes a number beyond all memory for no limit."""
    try:
        return float(int((lines(group / "memory.max") or lines(group / "memory.limit_in_bytes"))[0]))
    except (ValueError, IndexError):
        return None


def _smallest(measure: Callable[[Path], float | None], groups: Iterable[Path]) -> tuple[float, Path | None]:
    found = ((value, group) for group in groups if (value := measure(group)) is not None)
    return min(found, default=(math.inf, None))


# ------------------------------------------------------------------ cgroups


def own_groups(root: Path, controller: str) -> list[tuple[Path, Path]]:
    """Return the cgroups of this process that may limit `controller`, each with the top of its hierarchy.

    Version 1 has a hierarchy for each controller, version 2 one for all; a machine may have both.
    """
    mounts = [line.split() for line in lines(root / "proc/self/mountinfo") if " - " in line]
    found = []
    for line in lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        carriers = [mount for mount in mounts if _carries(mount, controller if controllers else None)]
        found += [_directory(root, mount, path) for mount in carriers[:1]]
    return found


def _carries(mount: list[str], controller: str | None) -> bool:
    kind, _, options = mount[mount.index("-") + 1 :][:3]
    if controller is None:
        return kind == "cgroup2"
    return kind == "cgroup" and controller in options.split(",")


def _directory(root: Path, mount: list[str], path: str) -> tuple[Path, Path]:
    """Return a group's directory, and the top of its hierarchy. In a container its path may start above the mount."""
    within, top = mount[3].rstrip("/"), root / mount[4].lstrip("/")
    group = top / path.removeprefix(within).lstrip("/")
    return (group if ".." not in path and group.is_dir() else top), top


def _lineages(root: Path, controller: str) -> Iterator[Path]:
    """Yield the groups of this process and all groups above, because each of them limits its members."""
    for group, top in own_groups(root, controller):
        yield from (place for place in (group, *group.parents) if place.is_relative_to(top))


def delegation(root: Path, top: int) -> tuple[Path | None, str]:
    """Return the cgroup v2 in which the process `top` may make groups; otherwise None and the reason."""
    version_2 = [group for group, _ in own_groups(root, "memory") if (group / "cgroup.controllers").exists()]
    if not version_2:
        return None, "none is mounted"
    group = version_2[0]
    if group.name == LEAF:  # taken over before, by this process or an ancestor
        group = group.parent
    why = _refusal(root, group, top)
    return (None, why) if why else (group, "")


def _refusal(root: Path, group: Path, top: int) -> str:
    if "memory" not in " ".join(lines(group / "cgroup.controllers")).split():
        return f"{group} does not have the memory controller"
    places = [group, group / "cgroup.procs", group / "cgroup.subtree_control"]
    if not all(os.access(place, os.W_OK) for place in places) or _is_systemds(root, group):
        return f"{group} is not delegated to this process"
    if lines(group / "cgroup.type") not in ([], ["domain"]):
        return f"{group} is for threads"
    if not all(_descends(root, pid, top) for pid in members(group) + members(group / LEAF)):
        return f"{group} holds other processes too"
    return ""


def _is_systemds(root: Path, group: Path) -> bool:
    """Return True if systemd reserves the group: root can write everywhere, but must not write there."""
    if sys.platform == "linux" and os.geteuid() == 0 and (root / "run/systemd/system").is_dir():
        try:
            return os.getxattr(group, "trusted.delegate") != b"1"
        except OSError:
            return True
    return False


def _descends(root: Path, pid: int, top: int) -> bool:
    while pid > 1 and pid != top:
        parents = [line for line in lines(root / f"proc/{pid}/status") if line.startswith("PPid:")]
        pid = int(parents[0].split()[1]) if parents else 0
    return pid == top


def members(group: Path) -> list[int]:
    """Return the processes in a group; 0 stands for a process invisible from this container."""
    return [int(line) for line in lines(group / "cgroup.procs")]


def lines(path: Path) -> list[str]:
    """Return the lines of a file of the kernel, none where there is no such file."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


# ------------------------------------------------------------------ GPUs

# An ordinal is read as strtoul does: 1 from "1st".
_DEVICE = re.compile(r"\s*((?:GPU|MIG)-\S+|\+?\d+)")


def visible_devices(text: str, count: Callable[[], int]) -> tuple[str, ...]:
    """Return the GPUs named by the value of such a variable, in the reading of the CUDA driver.

    The first word that names no GPU ends the list (`-1`, `NoDevFiles`, an ordinal of no GPU, a UUID among ordinals); a
    repetition makes the list empty. `count` returns the number of GPUs, 0 if unknown.
    """
    matches = takewhile(bool, map(_DEVICE.match, text.split(",")))
    names = [match[1] if "-" in match[1] else str(int(match[1])) for match in matches if match]
    if len(set(names)) < len(names):
        return ()
    if not names or not names[0].isdigit():
        return tuple(takewhile(lambda name: not name.isdigit(), names))
    number = count() or math.inf
    return tuple(takewhile(lambda name: name.isdigit() and int(name) < number, names))


def _count_nvidia() -> int:
    """Return the number of GPUs by NVIDIA's management library, without starting CUDA."""
    try:
        import ctypes

        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        number = ctypes.c_uint(0)
        if nvml.nvmlInit_v2() != 0:
            return 0
        failed = nvml.nvmlDeviceGetCount_v2(ctypes.byref(number))
        nvml.nvmlShutdown()
    except (ImportError, OSError, AttributeError):  # no ctypes, no such library, or one from long ago
        return 0
    return 0 if failed else number.value


def _count_amd(root: Path) -> int:
    """Count AMD's GPUs in the driver's list; GPUs withheld from a container cannot be read there."""
    if not os.access(root / "dev/kfd", os.R_OK | os.W_OK):
        return 0
    nodes = (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    counts = [line for node in nodes for line in lines(node) if line.startswith("simd_count ")]
    return sum(line != "simd_count 0" for line in counts)  # 0: the node has only CPUs
