"""Files in memory held open by processes: written but unmapped data, missing from every account of their memory.

Such files are nameless (memfd) or on a tmpfs, above all in /dev/shm. Mapped pages count where they are touched; the
rest of a file counts whole for a process with the file open for writing. Without a cgroup some memory stays invisible:
closed files, unattached System V segments, and pages of a mapping written through the file but never touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from stat import S_ISREG

_OURS = "/memfd:callyard"  # lent segments and result logs, which are mapped
_ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
_File = tuple[int, int]  # device, inode


class HeldFiles:
    """The files in memory of sampled processes; one object for many looks."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._in_memory: frozenset[int] | None = None  # the devices of file systems in memory

    def held(self, pids: Iterable[int]) -> int:
        """Return the bytes of such files held by these processes beyond their mappings; each file counts once."""
        sizes: dict[_File, int] = {}
        for pid in pids:
            sizes.update(self._open_files(pid))
        if not sizes:
            return 0
        mapped = dict.fromkeys(sizes, 0)
        for pid in pids:
            for file, size in self._mapped(pid).items():
                if file in mapped:
                    mapped[file] = max(mapped[file], size)
        return sum(max(0, size - mapped[file]) for file, size in sizes.items())

    def _open_files(self, pid: int) -> Iterator[tuple[_File, int]]:
        """Yield the files of a process and their sizes, restricted to files open for writing."""
        place = f"{self._proc}/{pid}"
        with suppress(OSError):  # the process has just ended, or belongs to another user
            for name in os.listdir(f"{place}/fd"):
                with suppress(OSError):  # the descriptor has just been closed
                    if self._may_be_memory(os.readlink(f"{place}/fd/{name}")):
                        status = os.stat(f"{place}/fd/{name}")
                        if self._is_memory(status) and _writes(f"{place}/fdinfo/{name}"):
                            yield (status.st_dev, status.st_ino), 512 * status.st_blocks

    def _may_be_memory(self, target: str) -> bool:
        """Judge by the name: most descriptors are pipes, sockets and devices, and need no `stat`."""
        return target.startswith("/") and not target.startswith((_OURS, os.devnull))

    def _is_memory(self, status: os.stat_result) -> bool:
        return S_ISREG(status.st_mode) and status.st_blocks > 0 and status.st_dev in self._devices()

    def _devices(self) -> frozenset[int]:
        if self._in_memory is None:
            self._in_memory = _nameless_device()
            with suppress(OSError), open(f"{self._proc}/self/mountinfo", encoding="utf-8", errors="replace") as file:
                self._in_memory |= frozenset(_devices_in_memory(file))
        return self._in_memory

    def _mapped(self, pid: int) -> dict[_File, int]:
        """Return how many bytes of each file a process has mapped, touched or not."""
        mapped: dict[_File, int] = {}
        try:
            with open(f"{self._proc}/{pid}/maps", "rb") as file:
                rows = [line.split(None, 5) for line in file]
        except OSError:
            return mapped
        for addresses, _, _, device, inode, *_ in rows:
            if inode != b"0":
                start, end = (int(text, 16) for text in addresses.split(b"-"))
                major, minor = (int(text, 16) for text in device.split(b":"))
                key = (os.makedev(major, minor), int(inode))
                mapped[key] = mapped.get(key, 0) + end - start
        return mapped


def _writes(fdinfo: str) -> bool:
    """Return True if a descriptor is open for writing."""
    with open(fdinfo, "rb") as file:
        flags = next((line.split()[1] for line in file if line.startswith(b"flags:")), b"0")
    return int(flags, 8) & _ACCESS != os.O_RDONLY


def _nameless_device() -> frozenset[int]:
    """Return the device of nameless files, a device without a mount point."""
    if not hasattr(os, "memfd_create"):
        return frozenset()
    try:
        fd = os.memfd_create("callyard", os.MFD_CLOEXEC)
    except OSError:
        return frozenset()
    with open(fd, "rb") as file:
        return frozenset([os.fstat(file.fileno()).st_dev])


def _devices_in_memory(mounts: Iterable[str]) -> Iterator[int]:
    """Yield the devices of the tmpfs in these lines of mountinfo."""
    for line in mounts:
        before, _, after = line.partition(" - ")
        if after.split()[:1] in (["tmpfs"], ["devtmpfs"], ["ramfs"]):
            major, minor = before.split()[2].split(":")
            yield os.makedev(int(major), int(minor))
