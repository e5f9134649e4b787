"""The directory with the sockets of the processes of this user that have an executor on this machine."""

from __future__ import annotations

import os
from functools import cache

from ..system.machine_name import machine_name
from ..utils.paths import statuses_directory

__all__ = ["PURPOSE", "VARIABLE", "status_directory_here"]

VARIABLE = "CALLYARD_STATUS"
PURPOSE = "it has the sockets of your executors"
_name_here = cache(machine_name)


def status_directory_here() -> str:
    """Return the directory: `CALLYARD_STATUS`, or one of this machine's own in the user's home."""
    home = statuses_directory()
    return os.environ.get(VARIABLE) or os.path.join(home, _name_here(home))
