"""What is in a test cluster's directory when it starts."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from slurm_conf import Layout, loopback_only, slurm_conf
from this_machine import program

CLIENTS = ["sacct", "sacctmgr", "salloc", "sbatch", "scancel", "scontrol", "sdiag", "sinfo", "squeue", "srun", "sstat"]
LONGEST_SOCKET = 107  # bytes of a Unix socket's path


def check_paths(layout: Layout) -> None:
    node = layout.nodes[-1]
    longest = layout.directory / f"spool/{node}/{node}_1234567.4294967295"
    if len(os.fsencode(longest)) > LONGEST_SOCKET:
        raise ValueError(f"{layout.directory} is too long a path: there are sockets in the cluster's directory.")


def write_files(layout: Layout) -> None:
    for name in ("log", "state", "dev", "bin", "counts", *(f"spool/{node}" for node in layout.nodes)):
        (layout.directory / name).mkdir(parents=True)
    make_devices(layout)
    files: list[tuple[str, str | bytes, int]] = [
        ("munge.key", os.urandom(128), 0o600),
        ("slurm.conf", slurm_conf(layout), 0o644),
        ("gres.conf", gres_conf(layout), 0o644),
        ("cgroup.conf", cgroup_conf(layout.cgroups), 0o644),
        ("slurmdbd.conf", slurmdbd_conf(layout), 0o600),
        ("prolog", prolog(layout), 0o755),
        *((f"bin/{name}", wrapper(layout, name), 0o755) for name in CLIENTS if program(name)),
    ]
    for name, content, mode in files:
        write(layout.directory / name, content, mode)
    for node in layout.nodes:
        write_node(layout.directory, layout.directory / "conf" / node)


def write_node(common: Path, own: Path) -> None:
    # The PMIx plugin makes a directory named after job and step on each node; here nodes share a machine.
    (own / "pmix").mkdir(parents=True)
    for name in ("slurm.conf", "gres.conf", "cgroup.conf"):
        (own / name).symlink_to(common / name)
    write(own / "mpi.conf", f"PMIxCliTmpDirBase={own / 'pmix'}\n")


def write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.touch(mode)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def device_files(directory: Path, count: int) -> tuple[str, ...]:
    """Return the device files that stand for GPUs: fewer than asked for where there are none to be had."""
    if os.getuid() == 0:
        return tuple(f"{directory}/dev/gpu{number}" for number in range(count))
    return tuple(path for number in range(count) if os.path.exists(path := f"/dev/tty{number}"))


def make_devices(layout: Layout) -> None:
    for number, path in enumerate(layout.gpus):
        if path.startswith(str(layout.directory)):
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(195, number))  # 195: NVIDIA's, whether it is here or not


def gres_conf(layout: Layout) -> str:
    return "AutoDetect=off\n" + "".join(f"Name=gpu File={path}\n" for path in layout.gpus)


def cgroup_conf(cgroups: bool) -> str:
    if not cgroups:
        return ""
    return (
        "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nConstrainCores=no\nConstrainDevices=no\n"
        "ConstrainRAMSpace=yes\nConstrainSwapSpace=no\nMinRAMSpace=5\nAllowedRAMSpace=100\n"
    )


def slurmdbd_conf(layout: Layout) -> str:
    return "\n".join(
        [
            "AuthType=auth/munge",
            f"AuthInfo=socket={layout.munge}",
            "DbdHost=localhost",
            "DbdAddr=127.0.0.1",
            f"DbdPort={layout.port + 1}",
            f"SlurmUser={layout.user}",
            f"PidFile={layout.directory / 'slurmdbd.pid'}",
            "StorageType=accounting_storage/mysql",
            "StorageHost=localhost",
            "StorageUser=root",
            "StorageLoc=slurm_acct_db",
            *(["CommunicationParameters=NoInAddrAny"] if loopback_only() else []),
            "",
        ]
    )


def prolog(layout: Layout) -> str:
    """Return a script that fails, and so drains the node, while there is a certain file."""
    return f"#!/bin/sh\n[ ! -e {shlex.quote(str(layout.fail_prolog))} ]\n"


def wrapper(layout: Layout, name: str) -> str:
    """Return a script that counts its runs, a byte for each, and becomes the program."""
    counts = shlex.quote(str(layout.directory / "counts" / name))
    return f'#!/bin/sh\nprintf . >>{counts}\nexec {shlex.quote(program(name))} "$@"\n'
