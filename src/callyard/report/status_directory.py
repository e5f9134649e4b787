"""The directory with the sockets of the processes of this user that have an executor on this machine."""

from __future__ import annotations

from ..system.process_identity import this_process
from ..utils.paths import status_directory

__all__ = ["PURPOSE", "VARIABLE", "status_directory_here"]

VARIABLE = "CALLYARD_STATUS"
PURPOSE = "it has the sockets of your executors"


def status_directory_here() -> str:
    """Return the directory: another one for each machine that shares a home."""
    here = this_process()
    return status_directory(f"{here.host}-{here.machine}" if here.machine else here.host)
