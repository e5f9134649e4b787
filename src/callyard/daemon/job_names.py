"""The names of jobs, unique in the world: HOST-MARK-NUMBER.

The host is for people. The mark says whose the job is: it begins with the checksum of a name that the machine keeps
when the host gets another one, as laptops take theirs from the network that they are in.
"""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

from ..system.machine_name import machine_name
from ..system.process_identity import this_process

__all__ = ["JobNames", "host_of"]


class JobNames(NamedTuple):
    """The names of one machine's jobs: its host name, and the beginning of their marks."""

    host: str
    machine: str

    @classmethod
    def here(cls, directory: str) -> JobNames:
        """Return the names of this machine's jobs; `directory` is that of its daemon."""
        return cls(this_process().host, f"{zlib.crc32(machine_name(directory).encode()):08x}")

    def new(self, count: int) -> list[str]:
        """Return names that no other jobs have, on this machine or another one."""
        prefix = f"{self.host}-{self.machine}{os.urandom(4).hex()}"
        return [f"{prefix}-{number}" for number in range(1, count + 1)]

    def is_own(self, name: str) -> bool:
        """Return True for the name of a job of this machine."""
        return name.rpartition("-")[0].rpartition("-")[2].startswith(self.machine)


def host_of(name: str) -> str:
    """Return the name that the host of a job had."""
    return name.rsplit("-", 2)[0]
