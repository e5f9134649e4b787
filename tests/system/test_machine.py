"""What of a machine may be used, read from directories that look like machines, and from this one."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path

import pytest

from callyard.system import machine

GIB = 1 << 30
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNTS = """\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_GROUPS = "4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n"
MEMINFO = "MemTotal:       16777216 kB\nMemFree:        1048576 kB\n"


@pytest.fixture
def describe(tmp_path):
    """Return a function that writes files below a directory and returns the directory."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def cores(root: Path, available: int = 8) -> int:
    number, _ = machine.find_cores(root, lambda: available)
    return number


def memory(root: Path) -> float:
    amount, _ = machine.find_memory(root)
    return amount


def unknown() -> int:
    return 0


# ------------------------------------------------------------------ cgroup v2


def v2(group: str, **limits: str) -> dict[str, str]:
    """Describe a machine with cgroup v2, in which this process is in `group`."""
    own = {"proc/self/cgroup": f"0::{group}\n", "proc/self/mountinfo": V2_MOUNT, "proc/meminfo": MEMINFO}
    return own | {f"sys/fs/cgroup/{name}": text + "\n" for name, text in limits.items()}


def test_a_machine_without_limits_offers_everything(describe):
    root = describe(v2("/", **{"cgroup.controllers": "cpu memory"}))
    assert cores(root) == 8
    assert memory(root) == 16


def test_an_empty_root_is_no_error(tmp_path):
    assert cores(tmp_path, 3) == 3
    assert memory(tmp_path) > 0


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("900000 100000", 8),
        ("50000 20000", 3),
    ],
)
def test_a_cpu_quota_is_rounded_up(describe, quota, expected):
    root = describe(v2("/job", **{"job/cpu.max": quota}))
    assert cores(root) == expected


def test_the_smallest_limit_of_a_group_and_those_above_counts(describe):
    limits = {
        "memory.max": "max",
        "a/memory.max": str(3 * GIB),
        "a/b/memory.max": str(5 * GIB),
        "a/b/c/memory.max": "max",
        "a/cpu.max": "max 100000",
        "a/b/cpu.max": "300000 100000",
        "a/b/c/cpu.max": "400000 100000",
    }
    root = describe(v2("/a/b/c", **limits))
    assert machine.find_memory(root) == (3, f"memory limit of {root}/sys/fs/cgroup/a")
    assert machine.find_cores(root, lambda: 8) == (3, f"cpu quota of {root}/sys/fs/cgroup/a/b")


def test_groups_beside_our_own_do_not_count(describe):
    root = describe(v2("/a", **{"a/memory.max": "max", "b/memory.max": "1", "a/c/memory.max": "1"}))
    assert memory(root) == 16


def test_a_limit_above_what_there_is_does_not_count(describe):
    root = describe(v2("/a", **{"a/memory.max": str(64 * GIB)}))
    assert machine.find_memory(root) == (16, "physical memory")


@pytest.mark.parametrize("group", ["/docker/abc", "/", "/../../elsewhere", "/not/there"])
def test_in_a_container_the_top_of_what_is_mounted_counts(describe, group):
    mount = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw"
    root = describe(v2(group, **{"memory.max": str(GIB)}) | {"proc/self/mountinfo": mount})
    assert memory(root) == 1


def test_in_a_container_a_group_below_what_is_mounted_is_found(describe):
    mount = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw"
    limits = {"memory.max": str(4 * GIB), "inner/memory.max": str(2 * GIB)}
    root = describe(v2("/docker/abc/inner", **limits) | {"proc/self/mountinfo": mount})
    assert memory(root) == 2


def test_nonsense_in_the_files_is_no_limit(describe):
    root = describe(v2("/a", **{"a/memory.max": "lots", "a/cpu.max": "many"}))
    assert (cores(root), memory(root)) == (8, 16)


# ------------------------------------------------------------------ cgroup v1


def v1(**limits: str) -> dict[str, str]:
    own = {"proc/self/cgroup": V1_GROUPS, "proc/self/mountinfo": V1_MOUNTS, "proc/meminfo": MEMINFO}
    return own | {f"sys/fs/cgroup/{name}": text + "\n" for name, text in limits.items()}


def test_version_1_without_limits(describe):
    limits = {
        "memory/job/memory.limit_in_bytes": "9223372036854771712",
        "cpu,cpuacct/job/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
    }
    root = describe(v1(**limits))
    assert (cores(root), memory(root)) == (8, 16)


def test_version_1_with_limits(describe):
    limits = {
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/job/memory.limit_in_bytes": str(2 * GIB),
        "cpu,cpuacct/cpu.cfs_quota_us": "250000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/job/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
    }
    root = describe(v1(**limits))
    assert (cores(root), memory(root)) == (3, 2)


def test_both_versions_at_once(describe):
    limits = {"memory/job/memory.limit_in_bytes": str(2 * GIB), "unified/memory.max": str(GIB)}
    assert memory(describe(v1(**limits))) == 1


# ------------------------------------------------------------------ GPUs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("0", ("0",)),
        ("0,1", ("0", "1")),
        (" 3 , 1 ", ("3", "1")),
        ("01,+2", ("1", "2")),
        ("1gpu,2", ("1", "2")),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("0,,1", ("0",)),
        ("NoDevFiles", ()),
        ("0,9,1", ("0",)),
        ("0,1,0", ()),
        ("GPU-8f2c,GPU-9a1b", ("GPU-8f2c", "GPU-9a1b")),
        ("GPU-8f2c,GPU-8f2c", ()),
        ("GPU-8f2c,1", ("GPU-8f2c",)),
        ("1,GPU-8f2c", ("1",)),
        ("MIG-41b3,MIG-GPU-8f2c/1/0", ("MIG-41b3", "MIG-GPU-8f2c/1/0")),
    ],
)
def test_the_environment_is_read_as_cuda_reads_it(text, expected):
    assert machine.visible_devices(text, lambda: 4) == expected


def test_without_a_driver_the_environment_is_believed():
    assert machine.visible_devices("0,7", unknown) == ("0", "7")


def test_the_environment_goes_before_the_drivers(tmp_path):
    environ = {"CUDA_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "0,1"}
    assert machine.find_gpus(tmp_path, environ, lambda: 2) == (("1",), "CUDA_VISIBLE_DEVICES")


def test_an_empty_variable_hides_all_gpus(tmp_path):
    assert machine.find_gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}, lambda: 2)[0] == ()


def test_nvidias_driver_is_asked(tmp_path):
    assert machine.find_gpus(tmp_path, {}, lambda: 3) == (("0", "1", "2"), "NVML")


def amd(*simd_counts: int) -> dict[str, str]:
    nodes = "sys/class/kfd/kfd/topology/nodes"
    text = "cpu_cores_count 16\nsimd_count {}\nmem_banks_count 1\n"
    properties = {f"{nodes}/{n}/properties": text.format(count) for n, count in enumerate(simd_counts)}
    return properties | {"dev/kfd": ""}


def test_amds_driver_is_asked(describe):
    root = describe(amd(0, 256, 256))
    assert machine.find_gpus(root, {}, unknown) == (("0", "1"), "the amdgpu driver")


def test_an_ordinal_of_no_amd_gpu_ends_the_list(describe):
    root = describe(amd(0, 256, 256))
    assert machine.find_gpus(root, {"ROCR_VISIBLE_DEVICES": "1,2,0"})[0] == ("1",)


def test_amd_gpus_that_may_not_be_opened_are_none(describe):
    root = describe(amd(0, 256))
    (root / "dev/kfd").unlink()
    assert machine.find_gpus(root, {}, unknown)[0] == ()


class Nvml:
    """NVIDIA's management library, as ctypes shows it."""

    def __init__(self, count: int, init: int = 0, counted: int = 0) -> None:
        self.count, self.init, self.counted = count, init, counted
        self.open = 0

    def nvmlInit_v2(self) -> int:
        self.open += not self.init
        return self.init

    def nvmlDeviceGetCount_v2(self, number) -> int:
        number._obj.value = self.count
        return self.counted

    def nvmlShutdown(self) -> int:
        self.open -= 1
        return 0


@pytest.mark.parametrize(
    ("nvml", "expected"), [(Nvml(2), ("0", "1")), (Nvml(2, init=9), ()), (Nvml(2, counted=999), ())]
)
def test_nvml_is_asked_and_closed(tmp_path, monkeypatch, nvml, expected):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: nvml)
    assert machine.find_gpus(tmp_path, {})[0] == expected
    assert nvml.open == 0


@pytest.mark.parametrize("library", [OSError("no such library"), None])
def test_a_missing_or_strange_nvml_is_no_gpu(tmp_path, monkeypatch, library):
    def load(name):
        if library:
            raise library
        return object()

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert machine.find_gpus(tmp_path, {})[0] == ()


# ------------------------------------------------------------------ this machine


def test_this_machine():
    found = machine.detect()
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert 0 < found.memory < math.inf
    assert all(isinstance(gpu, str) and gpu for gpu in found.gpus)


@pytest.mark.needs("linux")
def test_the_affinity_counts():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert machine.detect().cores == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_environment_of_the_process_is_looked_at_when_asked(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2")
    assert machine.detect().gpus == ("GPU-1", "GPU-2")
