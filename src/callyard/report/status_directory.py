"""The directory with the sockets of the processes of this user that have an executor on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import cache

from ..system.machine_name import machine_name
from ..system.unix_sockets import socket_in
from ..utils.paths import statuses_directory

__all__ = ["PURPOSE", "VARIABLE", "connected_or_removed", "status_directory_here"]

VARIABLE = "CALLYARD_STATUS"
PURPOSE = "it has the sockets of your executors"
_name_here = cache(machine_name)


def status_directory_here() -> str:
    """Return the directory: `CALLYARD_STATUS`, or one of this machine's own in the user's home."""
    home = statuses_directory()
    return os.environ.get(VARIABLE) or os.path.join(home, _name_here(home))


def connected_or_removed(directory: str, name: str, patience: float) -> socket.socket | None:
    """Return a connection to the process of a socket; None if it is gone, after removing the socket.

    Raises:
        TimeoutError: the process is there and lets nobody in for so long (s).
        OSError: there is no way to the socket.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(patience)
        with socket_in(directory, name, VARIABLE) as path:
            sock.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        sock.close()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, name))
        return None
    except BaseException:
        sock.close()
        raise
    return sock
