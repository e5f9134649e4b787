"""Where it was measured, in words."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.peers import Peer


def describe(peers: Sequence[Peer]) -> list[str]:
    packages = dict.fromkeys(peer.package for peer in peers if peer.package not in sys.stdlib_module_names)
    return [
        f"{cores()} cores, {processor()}, {platform.system()} {platform.machine()}",
        f"{platform.python_implementation()} {platform.python_version()}",
        ", ".join(f"{package} {installed_version(package)}" for package in packages),
    ]


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n")
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(from source)"
