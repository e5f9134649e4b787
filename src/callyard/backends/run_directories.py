"""Directories for calls that are jobs and are not to be remembered."""

from __future__ import annotations

import contextlib
import os
import shutil
import time

from ..cache.directory import CacheDirectory
from ..errors import CallyardError
from ..jobs.spool import folders
from ..system.process_identity import ProcessIdentity, this_process
from ..utils.paths import runs_directory

__all__ = ["live_directory", "log_directory", "private_home", "remove_if_over"]


_KEPT = 7 * 24 * 3600.0  # s for which logs are kept


def private_home() -> CacheDirectory:
    """A new directory where the nodes see it too: in the user's home, or where CALLYARD_RUNS says.

    Its name says who has made it, so that what others have left can be removed once their jobs have ended.
    """
    _sweep()
    return CacheDirectory.open(os.path.join(runs_directory(), f"{this_process().label}+{os.urandom(4).hex()}"))


def _sweep() -> None:
    with contextlib.suppress(OSError, CallyardError):
        for name in os.listdir(runs_directory()):
            owner = ProcessIdentity.from_label(name.partition("+")[0])
            if owner is not None and owner.state() == "gone":
                remove_if_over(CacheDirectory.open(os.path.join(runs_directory(), name)))


def remove_if_over(home: CacheDirectory) -> None:
    """Remove a directory for calls that are not to be remembered, unless some still run: nobody wants the results."""
    if all(folder.is_over() for folder in folders(home)):
        gone = f"{home.path}.gone"  # renamed first: jobs that are just ending find nothing to write into
        with contextlib.suppress(OSError):
            os.rename(home.path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def live_directory() -> str:
    """Where agents on the nodes find out how to reach this process."""
    return os.path.join(runs_directory(), "live")


def log_directory() -> str:
    """Where what is printed on nodes that were asked for stays for a while."""
    path = os.path.join(runs_directory(), "logs")
    os.makedirs(path, mode=0o700, exist_ok=True)
    for entry in os.scandir(path):
        with contextlib.suppress(OSError):  # another process removes it
            if entry.stat().st_mtime < time.time() - _KEPT:
                os.unlink(entry.path)
    return path
